//! What of an image: `cargo run --release --example instruct -- --adapter ip-adapter-instruct-sd15.bin --image a.png "a cat" --use "the style" --use "the composition"`.
//!
//! One row of images for each instruction, from the same seeds, so that what each takes of the image can be compared.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fabric::core::image::{Crop, Image, clip_batch};
use fabric::core::models::ImageEncoder;
use fabric::ipadapter::{ImagePrompt, InstructGuidance, InstructTexts, Instruction, IpAdapter};

mod common;

/// Makes images with another as their prompt, under instructions that say what of it is meant.
#[derive(Parser)]
struct Arguments {
    /// What the images should show, besides.
    prompt: String,
    /// The Instruct adapter's file.
    #[arg(long)]
    adapter: PathBuf,
    /// The image encoder's folder; the model's `image_encoder` if absent.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// The image.
    #[arg(long)]
    image: PathBuf,
    /// What to take of it, as in "the style"; may be given several times.
    #[arg(long = "use", default_values = ["everything from the image", "the style", "the colour", "the composition"])]
    queries: Vec<String>,
    /// How strongly the image acts.
    #[arg(long, default_value_t = 1.0)]
    scale: f32,
    /// Instructions that mix four branches: how strongly the instruction counts; 6 if absent, and 5 for XL.
    #[arg(long)]
    instruction_scale: Option<f64>,
    /// The same: how strongly the image counts.
    #[arg(long, default_value_t = 1.0)]
    image_scale: f64,
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
    let settings = arguments.common.settings()?;
    let device = arguments.common.device()?;
    let adapter = IpAdapter::open(&arguments.adapter, &device)?;
    let encoder = match &arguments.encoder {
        Some(folder) => common::images::encoder(folder, &device)?,
        None => common::images::encoder(&arguments.common.model()?.join("image_encoder"), &device)?,
    };
    let image = Image::open(&arguments.image)?;
    let pixels = clip_batch(std::slice::from_ref(&image), encoder.image_size(), Crop::Centre, &device)?;
    // The published code encodes an image that is zero once normalised where there is none.
    let [with, without] = [pixels.clone(), pixels.zeros_like()].map(|pixels| encoder.penultimate(pixels));
    let pipeline = arguments.common.load()?;
    let layers = pipeline.cross_attentions();
    let mut rows = vec![vec![image]];
    for query in &arguments.queries {
        let mut instruction = Instruction::new(format!("use {query}"));
        let published = instruction.guidance.for_adapter(adapter.config());
        if let InstructGuidance::ThreeWay { instruction: published, .. } = published {
            let scale = arguments.instruction_scale.unwrap_or(published);
            let guidance = InstructGuidance::ThreeWay { instruction: scale, image: arguments.image_scale };
            instruction = instruction.with_guidance(guidance);
        }
        let prompt = &*arguments.prompt;
        let negative = arguments.series.negative.as_deref().unwrap_or_default();
        let encoder = pipeline.text_encoder();
        let texts = InstructTexts::encode(encoder, adapter.config(), prompt, negative, &instruction, &settings.text)?;
        let steering = ImagePrompt::instructed(&adapter, &layers, [&with, &without], &texts, instruction.guidance)?
            .with_scale(instruction.corrected_scale(arguments.scale, adapter.config()))?;
        let request = arguments.series.request(prompt, settings.clone()).with_steering(steering);
        let made = pipeline.generate(&request)?;
        println!("row {}: {}, {} branches", rows.len() + 1, instruction.query, request.guidance()?.branches().len());
        // Each row as it is made: an error in a later one, or a sheet that is too large, must not cost it.
        arguments.series.save(&format!("row-{}-", rows.len() + 1), &made)?;
        rows.push(made.images);
    }
    let rows: Vec<&[Image]> = rows.iter().map(Vec::as_slice).collect();
    arguments.series.sheet(&rows);
    Ok(())
}
