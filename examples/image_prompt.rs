//! A picture as a prompt: `cargo run --release --example image_prompt -- --model MODEL --adapter ADAPTER --picture a.png "a cat"`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::{Device, Tensor};
use clap::Parser;
use fabric::core::models::{ImageEncoder, TextOptions};
use fabric::core::picture::{Crop, Mark, Picture, clip_batch, contact_sheet};
use fabric::core::pipeline::{Pipeline, Request};
use fabric::ipadapter::{FeatureKind, Features, InstructTexts, Instruction, IpAdapter, LayerScales, PicturePrompt};
use fabric::models::clip::{ClipVision, ClipVisionConfig};
use fabric::models::load::{ComponentFolder, LoadOptions, load_into};

mod common;

/// Makes pictures with others as their prompt.
#[derive(Parser)]
struct Arguments {
    /// What the pictures should show, besides.
    #[arg(default_value = "best quality, high quality")]
    prompt: String,
    /// What they should not show.
    #[arg(long)]
    negative: Option<String>,
    /// The adapter's file.
    #[arg(long)]
    adapter: PathBuf,
    /// The image encoder's folder; the model's `image_encoder` if absent.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// A picture; may be given several times.
    #[arg(long, required = true)]
    picture: Vec<PathBuf>,
    /// For an Instruct adapter: what to take of the pictures, for example "use the style".
    #[arg(long)]
    instruction: Option<String>,
    /// How strongly the pictures act: a number, or numbers by block as in {"up": {"block_1": 1.0}}.
    #[arg(long, default_value = "1.0")]
    scale: String,
    /// Share of the run after which the pictures begin to act, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    start: f64,
    /// Share of the run after which they act no more, 0 to 1.
    #[arg(long, default_value_t = 1.0)]
    end: f64,
    /// How many pictures.
    #[arg(long, default_value_t = 1)]
    pictures: u64,
    /// Seed of the first picture; the others count up.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the pictures go.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    #[command(flatten)]
    common: common::Common,
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let settings = arguments.common.settings()?;
    let device = arguments.common.device()?;
    let adapter = IpAdapter::open(&arguments.adapter, &device)?;
    println!("{}; it reads {}", adapter.config(), adapter.config().reads());
    let encoder = encoder(arguments, &device)?;
    let paths = arguments.picture.iter();
    let pictures = paths.map(Picture::open).collect::<Result<Vec<_>, _>>()?;
    let pixels = clip_batch(&pictures, encoder.image_size(), Crop::Centre, &device)?;
    let pipeline = arguments.common.load()?;
    let prompt = prompt(arguments, &adapter, &encoder, pixels, &pipeline, &settings.text)?
        .with_scales(&LayerScales::from_json(&arguments.scale)?)?
        .with_window(arguments.start, arguments.end)?;
    let mut request = Request::new(&*arguments.prompt)
        .with_seeds((0..arguments.pictures).map(|at| arguments.seed.wrapping_add(at)))
        .with_settings(settings)
        .with_steering(prompt);
    request.negative_prompt.clone_from(&arguments.negative);
    let made = pipeline.generate(&request)?;
    std::fs::create_dir_all(&arguments.out)?;
    for (picture, seed) in made.pictures.iter().zip(&made.seeds) {
        picture.save(arguments.out.join(format!("seed-{seed}.png")))?;
    }
    // The given ones first, as the encoder saw them.
    let side = made.pictures[0].width();
    let seen = pictures.iter().map(|picture| picture.crop_square(side, Crop::Centre)).collect::<Result<Vec<_>, _>>()?;
    let rows = [&seen, &made.pictures];
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|picture| (picture, Mark::None)).collect()).collect();
    let sheet = arguments.out.join("sheet.png");
    contact_sheet(&rows, 8)?.save(&sheet)?;
    println!("{}", sheet.display());
    common::print_report(&made.report);
    Ok(())
}

fn encoder(arguments: &Arguments, device: &Device) -> Result<ClipVision, Box<dyn Error>> {
    let folder = match &arguments.encoder {
        Some(folder) => folder.clone(),
        None => arguments.common.model()?.join("image_encoder"),
    };
    let folder = ComponentFolder::open(folder, None)?;
    let network = folder.config::<ClipVisionConfig>()?.init(device)?;
    Ok(load_into(network, &*folder.weights()?, &LoadOptions::default())?.0)
}

/// The pictures for every branch, under an instruction where the adapter reads one.
fn prompt(
    arguments: &Arguments,
    adapter: &IpAdapter,
    encoder: &dyn ImageEncoder,
    pixels: Tensor<4>,
    pipeline: &Pipeline,
    text: &TextOptions,
) -> Result<PicturePrompt, Box<dyn Error>> {
    let layers = pipeline.cross_attentions();
    let reads = adapter.config().reads();
    if let FeatureKind::Instructed(..) = reads {
        let query =
            arguments.instruction.as_deref().ok_or("--instruction: this adapter wants one, as \"use the style\"")?;
        let instruction = Instruction::new(query);
        let negative = arguments.negative.as_deref().unwrap_or_default();
        let texts = InstructTexts::encode(pipeline.text_encoder(), &arguments.prompt, negative, &instruction, text)?;
        let [with, without] = [pixels.clone(), pixels.zeros_like()].map(|pixels| encoder.penultimate(pixels));
        return Ok(PicturePrompt::instructed(adapter, &layers, [&with, &without], &texts, instruction.guidance)?);
    }
    if arguments.instruction.is_some() {
        return Err("--instruction: found one, wanted none: only Instruct adapters read instructions".into());
    }
    let unreadable =
        || format!("{}: found {reads}, wanted features of pictures: faces are not read here", adapter.config());
    let with = Features::of(encoder, pixels.clone(), reads).ok_or_else(unreadable)?;
    let without = Features::none_of(encoder, &pixels, reads).ok_or_else(unreadable)?;
    Ok(PicturePrompt::new(adapter, &layers, &with, &without)?)
}
