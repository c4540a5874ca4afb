//! Draws random scenes of the small world, as used for training, and prints their captions:
//! `cargo run --release -p fabric-world --example draw_world -- out/world.png`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::{Image, Mark, contact_sheet};
use fabric_world::{SIDE, Split, sample};

#[path = "../../common/mod.rs"]
mod common;

/// Draws random scenes of the small world on a contact sheet and prints their captions.
#[derive(Parser)]
struct Arguments {
    /// File to write the contact sheet to.
    out: PathBuf,
    /// Number of images.
    #[arg(long, default_value_t = 96)]
    count: u64,
    /// Seed of the random scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draw only the combinations of factors that are held out of training.
    #[arg(long)]
    held_out: bool,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let split = if arguments.held_out { Split::HeldOut } else { Split::Train };
    let mut images = Vec::new();
    for index in 0..arguments.count {
        let sample = sample(arguments.seed, index, split);
        println!("{index}: {}", sample.caption.text);
        let rgb = sample.scene.render(&sample.variation, SIDE)?;
        images.push(Image::from_rgb(SIDE as usize, SIDE as usize, rgb)?);
    }
    let rows: Vec<Vec<_>> =
        images.chunks(12).map(|row| row.iter().map(|image| (image, Mark::None)).collect()).collect();
    contact_sheet(&rows, 4)?.save(&arguments.out)?;
    println!("{}", arguments.out.display());
    Ok(())
}
