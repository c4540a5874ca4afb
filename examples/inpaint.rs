//! Inpainting: repaints the masked part of an image:
//! `cargo run --release --example inpaint -- --image out/seed-0.png "a red star"`.
//!
//! The image can be one that another example made, such as `text_to_image`. The mask (`--mask mask.png`) is white where
//! the image is repainted. Without one, the middle is repainted. An inpainting model (nine input channels) gets the
//! mask as input. With any other model, the unmasked latents are restored after each step.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::{Image, ImageError};

mod common;

/// Repaints the masked part of an image (inpainting).
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Prompt: what the repainted image should show.
    prompt: String,
    /// Image to repaint.
    #[arg(long)]
    image: PathBuf,
    /// Mask image: white is repainted, black is kept. Default: white in the middle, half as wide and high as the image.
    #[arg(long)]
    mask: Option<PathBuf>,
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

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    arguments.series.prepare()?;
    let image = Image::open(&arguments.image)?;
    let mask = match &arguments.mask {
        Some(path) => Image::open_mask(path)?,
        None => mask_of_middle(&image)?,
    };
    let settings = arguments.common.settings()?;
    let request = arguments.series.request(&arguments.prompt, settings);
    let request = request.with_inpainting(image.clone(), mask.clone(), arguments.strength);
    request.validate()?;
    let made = arguments.common.load()?.generate(&request)?;
    arguments.series.finish(&[image, mask], &made)
}

/// Returns a mask for the middle of an image, half as wide and half as high.
fn mask_of_middle(image: &Image) -> Result<Image, ImageError> {
    let (width, height) = (image.width(), image.height());
    let is_middle = |at: usize, side: usize| (side / 4..side - side / 4).contains(&at);
    let pixel = |at: usize| [if is_middle(at % width, width) && is_middle(at / width, height) { 255 } else { 0 }; 3];
    Image::from_rgb(width, height, (0..width * height).flat_map(pixel).collect())
}
