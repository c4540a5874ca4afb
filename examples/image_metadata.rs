//! Prints how images were made, if their PNG files say so:
//! `cargo run --release --example image_metadata -- out/seed-0.png`.
//!
//! Files of this library, of AUTOMATIC1111's web UI and of ComfyUI are read. If a file cannot be read, its error is
//! printed, the other files are read, and the program fails at the end.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::{FoundMetadata, ImageMetadata};
use fabric::core::{printable, printable_lines, printable_value};
use serde::Serialize;

mod common;

/// Prints how images were made, if their PNG files say so.
#[derive(Parser)]
struct Arguments {
    /// PNG files.
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Print JSON, one object per image and line, with its path.
    #[arg(long)]
    json: bool,
}

/// Line of the JSON output.
#[derive(Serialize)]
struct Line<'a> {
    path: String,
    #[serde(flatten)]
    found: &'a FoundMetadata,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut code = ExitCode::SUCCESS;
    for path in &arguments.images {
        let result = run(path, arguments.json);
        if result.is_err() {
            code = common::report(result);
        }
    }
    code
}

fn run(path: &Path, json: bool) -> Result<(), Box<dyn Error>> {
    let found = ImageMetadata::read(path)?;
    if json {
        println!("{}", json_line(path, &found)?);
    } else {
        println!("{}\n{}", printable_value(path.display()), description(&found));
    }
    Ok(())
}

/// Returns the metadata as JSON on one line. Characters that a terminal would execute or hide are escaped, which JSON
/// does not require and every reader of JSON understands.
pub(crate) fn json_line(path: &Path, found: &FoundMetadata) -> Result<String, serde_json::Error> {
    let line = Line { path: path.display().to_string(), found };
    let mut escaped = String::new();
    for letter in serde_json::to_string(&line)?.chars() {
        if letter.is_ascii_graphic() || printable(letter) == letter.to_string() {
            escaped.push(letter);
        } else {
            let mut units = [0; 2];
            letter.encode_utf16(&mut units).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        }
    }
    Ok(escaped)
}

/// Describes the metadata on a few lines, cut after 64 KiB, without characters from the file that a terminal would
/// execute or hide.
pub(crate) fn description(found: &FoundMetadata) -> String {
    let metadata = &found.metadata;
    let mut lines = Vec::new();
    let mut line = |name: &str, text: &str| {
        // A line break in a prompt must not begin another line.
        let text: String = text.chars().map(|letter| if letter.is_whitespace() { ' ' } else { letter }).collect();
        if !text.is_empty() {
            lines.push(format!("  {name}: {text}"));
        }
    };
    line("made with", &metadata.software);
    line("read from the text of", &found.source.to_string());
    line("prompt", &metadata.prompt);
    line("negative prompt", metadata.negative_prompt.as_deref().unwrap_or_default());
    line("seed", &metadata.seed().map(|seed| seed.to_string()).unwrap_or_default());
    line("size", &format!("{}x{}", metadata.width, metadata.height));
    line("settings", &metadata.settings.to_string());
    metadata.origin.iter().for_each(|name| line("origin", name));
    for one in &metadata.references {
        line("reference", &format!("{} with strength {}", one.image, one.strength));
    }
    for one in &metadata.image_conditions {
        let aspect = one.aspect.as_ref().map_or("image prompt".to_owned(), ToString::to_string);
        let direction = if one.away { ", away from it" } else { "" };
        line("image condition", &format!("{aspect}: {} with scale {}{direction}", one.image, one.scale));
    }
    if let Some(one) = &metadata.init_image {
        line("init image", &format!("{} with strength {}", one.image, one.strength));
    }
    metadata.not_restored.iter().for_each(|part| line("also", part));
    found.unread.iter().for_each(|part| line("not read", part));
    printable_lines(&lines.join("\n"))
}
