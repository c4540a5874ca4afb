//! Measures a model of the small world against what its captions ask for:
//! `cargo run --release --features world --example evaluate_world`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::Device;
use clap::Parser;
use fabric::core::picture::{Mark, Picture, contact_sheet};
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::models::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use fabric::models::load::{Component, LoadDtype, LoadOptions, ModelFolder, load_into};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::vae::{Vae, VaeConfig};
use fabric::models::world::{Judge, Sample, Split, Tally, sample};
use fabric::models::{ModelOptions, demo_folder, load_folder};

mod common;

/// Measures a model of the small world.
#[derive(Parser)]
struct Arguments {
    /// The model's folder; the demonstration model's if absent.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Captions of factor combinations that training showed, and as many that it never showed.
    #[arg(long, default_value_t = 1000)]
    captions: u64,
    /// Steps of the sampler.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Strength of the caption.
    #[arg(long, default_value_t = 3.0)]
    guidance: f64,
    /// Where a sheet of pictures goes.
    #[arg(long)]
    sheet: Option<PathBuf>,
    /// Where to compute: flex, ndarray, cuda, cuda:N, wgpu; the first that this build has if absent.
    #[arg(long)]
    device: Option<String>,
}

/// Of the scenes that are asked for; training has another one.
const SEED: u64 = 990_001;

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let model = arguments.model.clone().map_or_else(demo_folder, Ok)?;
    let judge = Judge::load(&model, &device)?;
    let samples = |split, count| -> Vec<Sample> { (0..count).map(|index| sample(SEED, index, split)).collect() };
    println!("| what | percent right |\n|---|---|");
    let splits = [("seen combinations", Split::Train), ("combinations never seen", Split::HeldOut)];
    for (name, split) in splits {
        let right = common::world::readers(&judge, &samples(split, 1000))?;
        println!("| readers on drawings of {name} | {right} |");
    }
    let parts = Parts::load(&model, &device)?;
    println!(
        "| captions that find their picture among 64 | {:.1} |",
        100.0
            * common::world::retrieval(
                (&parts.text, &parts.vision),
                &parts.tokenizer,
                &samples(Split::Train, 512),
                &device
            )?
    );
    println!(
        "| VAE, drawn pictures and back | {:.2} dB |",
        common::world::fidelity(&parts.vae, &samples(Split::HeldOut, 256), &device)?
    );
    let (pipeline, _) = load_folder(&model, &device, &ModelOptions::default())?;
    let mut rows = Vec::new();
    for (name, split) in splits {
        let clock = Instant::now();
        let wanted = samples(split, arguments.captions);
        let (tally, pictures) = make(arguments, &pipeline, &judge, &wanted)?;
        let seconds = clock.elapsed().as_secs_f64() / wanted.len().max(1) as f64;
        println!("| {} pictures of {name}, {seconds:.2} s each | {tally} |", tally.pictures());
        rows.extend(pictures.chunks(8).take(2).map(<[Picture]>::to_vec));
    }
    if let Some(path) = &arguments.sheet {
        let rows: Vec<Vec<_>> =
            rows.iter().map(|row| row.iter().map(|picture| (picture, Mark::None)).collect()).collect();
        contact_sheet(&rows, 4)?.save(path)?;
        println!("\n{}", path.display());
    }
    Ok(())
}

/// Pictures from captions, and how often they show what was named.
fn make(
    arguments: &Arguments,
    pipeline: &Pipeline,
    judge: &Judge,
    wanted: &[Sample],
) -> Result<(Tally, Vec<Picture>), Box<dyn Error>> {
    let mut tally = Tally::default();
    let mut pictures = Vec::new();
    let settings = Settings { steps: arguments.steps, guidance_scale: arguments.guidance, ..Settings::default() };
    for (number, sample) in (0_u64..).zip(wanted) {
        let request = Request::new(sample.caption.text.clone()).with_seeds([number]).with_settings(settings.clone());
        let made = pipeline.generate(&request)?.pictures;
        for seen in judge.read(&made)? {
            tally.add(&sample.caption.named, &seen);
        }
        if pictures.len() < 16 {
            pictures.extend(made);
        }
    }
    Ok((tally, pictures))
}

/// The networks that are measured on their own.
struct Parts {
    text: ClipText,
    vision: ClipVision,
    vae: Vae,
    tokenizer: ClipTokenizer,
}

impl Parts {
    fn load(model: &std::path::Path, device: &Device) -> Result<Self, Box<dyn Error>> {
        let folder = ModelFolder::open(model)?;
        let options = LoadOptions::default().with_dtype(LoadDtype::F32);
        let text = folder.config::<ClipTextConfig>(Component::TextEncoder)?.init(device)?;
        let vision = folder.config::<ClipVisionConfig>(Component::ImageEncoder)?.init(device)?;
        let vae = folder.config::<VaeConfig>(Component::Vae)?.init(device)?;
        Ok(Self {
            text: load_into(text, &*folder.weights(Component::TextEncoder)?, &options)?.0,
            vision: load_into(vision, &*folder.weights(Component::ImageEncoder)?, &options)?.0,
            vae: load_into(vae, &*folder.weights(Component::Vae)?, &options)?.0,
            tokenizer: ClipTokenizer::from_folder(model.join("tokenizer"))?,
        })
    }
}
