//! Compares instructions of an IP-Adapter Instruct on an image:
//! `cargo run --release --example instruct -- --image out/seed-0.png "a heart" --use "the style"
//! --use "the composition"`.
//!
//! Makes one row of images per instruction, all from the same seeds, so that the rows can be compared. The image can be
//! one that another example made, such as `text_to_image`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::Image;
use fabric::ipadapter::{InstructGuidance, Instruction};

mod common;

/// Makes images from an image prompt and instructions that say what to take from it (IP-Adapter Instruct).
#[derive(Parser)]
pub(crate) struct Arguments {
    /// Text prompt, in addition to the image prompt.
    prompt: String,
    /// Image prompt. Repeat the option for several images, which act together.
    #[arg(long, required = true)]
    image: Vec<PathBuf>,
    /// What to take from the image, for example "the style". Repeat the option for several rows.
    #[arg(long = "use", default_values = ["everything from the image", "the style", "the colour", "the composition"])]
    queries: Vec<String>,
    /// Scale of the image prompt. For "composition" and "pose" with Stable Diffusion 1.5 it is reduced by 0.2, as
    /// published.
    #[arg(long, default_value_t = 1.0)]
    scale: f32,
    /// Guidance scale of the instruction, for adapters with four guidance branches. Default: 6, and 5 for SDXL.
    #[arg(long)]
    instruction_scale: Option<f64>,
    /// Guidance scale of the image, for adapters with four guidance branches.
    #[arg(long, default_value_t = 1.0)]
    image_scale: f64,
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
    let adapter = arguments.files.open(&arguments.common, common::adapter::INSTRUCT, &device)?;
    let images = arguments.image.iter().map(Image::open).collect::<Result<Vec<_>, _>>()?;
    let pipeline = arguments.common.load_on(&device)?;
    let mut rows = vec![images.clone()];
    for query in &arguments.queries {
        let mut instruction = Instruction::new(format!("use {query}"));
        let published = instruction.guidance.for_adapter(adapter.config());
        if let InstructGuidance::ThreeWay { instruction: published, .. } = published {
            let scale = arguments.instruction_scale.unwrap_or(published);
            let guidance = InstructGuidance::ThreeWay { instruction: scale, image: arguments.image_scale };
            instruction = instruction.with_guidance(guidance);
        }
        let prompt = adapter.prompt(&*images).with_instruction(instruction.clone()).with_scale(arguments.scale);
        let request = arguments.series.request(&arguments.prompt, settings.clone()).with(prompt);
        let made = pipeline.generate(&request)?;
        println!("row {}: {}, {} branches", rows.len() + 1, instruction.query, request.guidance()?.branches().len());
        // Saves each row at once, so that an error in a later row or a too large sheet does not lose it.
        arguments.series.save(&format!("row-{}-", rows.len() + 1), &made)?;
        rows.push(made.images);
    }
    let rows: Vec<&[Image]> = rows.iter().map(Vec::as_slice).collect();
    arguments.series.sheet(&rows);
    Ok(())
}
