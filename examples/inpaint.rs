//! A part of an image made anew: `cargo run --release --example inpaint -- --image a.png --mask mask.png "a red star"`.
//!
//! The mask is light where the image is to change. A model that was trained for it (nine input channels) is shown the mask; with
//! any other one, what is kept is put back after each step.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::Image;

mod common;

/// Makes a part of an image anew.
#[derive(Parser)]
struct Arguments {
    /// What the part should show.
    prompt: String,
    /// The image.
    #[arg(long)]
    image: PathBuf,
    /// Light where it is to change.
    #[arg(long)]
    mask: PathBuf,
    /// How much of the part to give up, 0 to 1; 1 lets nothing of it shine through.
    #[arg(long, default_value_t = 1.0)]
    strength: f64,
    #[command(flatten)]
    series: common::images::Series,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    arguments.series.prepare()?;
    let (image, mask) = (Image::open(&arguments.image)?, Image::open_mask(&arguments.mask)?);
    let settings = arguments.common.settings()?;
    let request = arguments.series.request(&arguments.prompt, settings);
    let request = request.with_init_image(image.clone(), arguments.strength).with_mask(mask.clone());
    request.validate()?;
    let made = arguments.common.load()?.generate(&request)?;
    arguments.series.finish(&[image, mask], &made)
}
