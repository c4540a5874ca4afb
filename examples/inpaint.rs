//! A part of a picture made anew: `cargo run --release --example inpaint -- --picture a.png --mask mask.png "a red star"`.
//!
//! The mask is light where the picture is to change. A model that was trained for it (nine input channels) is shown the mask; with
//! any other one, what is kept is put back after each step.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::picture::Picture;

mod common;

/// Makes a part of a picture anew.
#[derive(Parser)]
struct Arguments {
    /// What the part should show.
    prompt: String,
    /// The picture.
    #[arg(long)]
    picture: PathBuf,
    /// Light where it is to change.
    #[arg(long)]
    mask: PathBuf,
    /// How much of the part to give up, 0 to 1; 1 lets nothing of it shine through.
    #[arg(long, default_value_t = 1.0)]
    strength: f64,
    #[command(flatten)]
    series: common::pictures::Series,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    arguments.series.prepare()?;
    let (picture, mask) = (Picture::open(&arguments.picture)?, Picture::open_mask(&arguments.mask)?);
    let settings = arguments.common.settings()?;
    let request = arguments.series.request(&arguments.prompt, settings);
    let request = request.with_start(picture.clone(), arguments.strength).with_mask(mask.clone());
    request.validate()?;
    let made = arguments.common.load()?.generate(&request)?;
    arguments.series.finish(&[picture, mask], &made)
}
