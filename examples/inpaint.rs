//! Inpainting: repaints the masked part of an image:
//! `cargo run --release --example inpaint -- --image a.png --mask mask.png "a red star"`.
//!
//! The mask is white where the image is repainted. An inpainting model (nine input channels) gets the mask as input.
//! With any other model, the unmasked latents are restored after each step.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::Image;

mod common;

/// Repaints the masked part of an image (inpainting).
#[derive(Parser)]
struct Arguments {
    /// Prompt: what the repainted image should show.
    prompt: String,
    /// Image to repaint.
    #[arg(long)]
    image: PathBuf,
    /// Mask image: white is repainted, black is kept.
    #[arg(long)]
    mask: PathBuf,
    /// Denoising strength, 0 to 1: at 1 nothing of the masked part is kept, lower values stay closer to it.
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
    let request = request.with_inpainting(image.clone(), mask.clone(), arguments.strength);
    request.validate()?;
    let made = arguments.common.load()?.generate(&request)?;
    arguments.series.finish(&[image, mask], &made)
}
