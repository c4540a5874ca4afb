//! Makes images from image prompts with an IP-Adapter:
//! `cargo run --release --example image_prompt -- --image out/seed-0.png "a heart"`.
//!
//! The image can be one that another example made, such as `text_to_image`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::Image;
use fabric::core::pipeline::Window;
use fabric::ipadapter::{Instruction, LayerPreset, LayerScales};

mod common;

/// Makes images from image prompts with an IP-Adapter. FaceID adapters are not supported here.
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Text prompt, in addition to the image prompt. Default: none. The authors' own demo of Stable Diffusion has "best
    /// quality, high quality".
    #[arg(default_value = "", hide_default_value = true)]
    prompt: String,
    /// Image prompt. Repeat the option for several images.
    #[arg(long, required = true)]
    image: Vec<PathBuf>,
    /// Instruction for an Instruct adapter, for example "use the style". Default: everything. An error with other
    /// adapters.
    #[arg(long)]
    instruction: Option<String>,
    /// Scale of the image prompt: a number, or JSON with a number per block, for example {"up": {"`block_1"`: 1.0}}.
    #[arg(long, default_value = "1.0")]
    scale: String,
    /// Layer preset, for example "ease in" or "style transfer": sets the scale per layer from `--scale`, which must
    /// then be a number.
    #[arg(long)]
    preset: Option<LayerPreset>,
    /// Weight of each image in the softmax that all images share, in the order of `--image`: 2 counts an image twice.
    /// Repeat the option for each image.
    #[arg(long)]
    weight: Vec<f32>,
    /// Fraction of the run, 0 to 1, after which the image prompt is switched on.
    #[arg(long, default_value_t = 0.0)]
    start: f64,
    /// Fraction of the run, 0 to 1, after which the image prompt is switched off.
    #[arg(long, default_value_t = 1.0)]
    end: f64,
    #[command(flatten)]
    files: common::adapter::AdapterFiles,
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
    let settings = arguments.common.settings()?;
    let device = arguments.common.device()?;
    let adapter = arguments.files.open(&arguments.common, common::adapter::PLUS, &device)?;
    println!("{}; it reads {}", adapter.config(), adapter.config().reads());
    let images = arguments.image.iter().map(Image::open).collect::<Result<Vec<_>, _>>()?;
    let mut prompt = adapter.prompt(&*images).with_window(Window::new(arguments.start, arguments.end)?);
    prompt = match arguments.preset {
        Some(preset) => prompt.with_preset(preset, arguments.scale.parse()?, None),
        None => match arguments.scale.parse() {
            Ok(scale) => prompt.with_scale(scale),
            Err(_) => prompt.with_scales(LayerScales::from_json(&arguments.scale)?),
        },
    };
    if let Some(instruction) = &arguments.instruction {
        prompt = prompt.with_instruction(Instruction::new(instruction));
    }
    if !arguments.weight.is_empty() {
        prompt = prompt.with_weights(&*arguments.weight);
    }
    let request = arguments.series.request(&arguments.prompt, settings).with(prompt);
    let made = arguments.common.load_on(&device)?.generate(&request)?;
    arguments.series.finish(&images, &made)
}
