//! Draws images of the small world, each with its caption:
//! `cargo run --release --features world --example draw_world -- out/world.png`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::{Image, Mark, contact_sheet};
use fabric::models::world::{SIDE, Split, sample};

mod common;

/// Draws images of the small world.
#[derive(Parser)]
struct Arguments {
    /// The contact sheet to write.
    out: PathBuf,
    /// How many images.
    #[arg(long, default_value_t = 96)]
    count: u64,
    /// Seed of the series.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only combinations that training never shows.
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
