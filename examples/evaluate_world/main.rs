//! Measures a model of the small world against what its captions, image prompts and instructions ask for:
//! `cargo run --release --features world --example evaluate_world`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::models::world::{Attribute, Judge, Sample, Split, Tally, sample};
use fabric::models::{ModelOptions, demo_folder, load_folder};

mod adapters;
mod captions;
#[path = "../common/mod.rs"]
mod common;
mod losses;
mod networks;

/// Measures a model of the small world.
#[derive(Parser)]
struct Arguments {
    /// The model's folder; the demonstration model's if absent.
    #[arg(long)]
    model: Option<PathBuf>,
    /// A part to measure; may be given several times, all parts if absent.
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Captions of factor combinations that training showed, and as many that it never showed.
    #[arg(long, default_value_t = 1000)]
    captions: u64,
    /// Scenes of each size for the table of losses.
    #[arg(long, default_value_t = 400)]
    scenes: u64,
    /// Image prompts, and pairs for each task of Instruct.
    #[arg(long, default_value_t = 200)]
    pairs: u64,
    /// Steps of the sampler.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Guidance scale.
    #[arg(long, default_value_t = 3.0)]
    guidance: f64,
    /// Where a sheet of images made from captions goes.
    #[arg(long)]
    sheet: Option<PathBuf>,
    /// Where to compute: flex, ndarray, cuda, cuda:N, wgpu; the first that this build has if absent.
    #[arg(long)]
    device: Option<String>,
}

/// The parts of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Readers on drawings, retrieval, and the VAE's error.
    Networks,
    /// Where factors are lost: drawn, after the VAE, made by the U-Net.
    Losses,
    /// Images made from captions of combinations shown and never shown.
    Captions,
    /// What the image prompt carries over.
    ImagePromptKv,
    /// What instructions take from an image.
    Instruct,
}

/// The model under test.
struct Evaluation<'a> {
    arguments: &'a Arguments,
    folder: PathBuf,
    device: Device,
    judge: Judge,
    pipeline: Pipeline,
}

/// Seed of the scenes that are asked for; training has another one.
const SEED: u64 = 990_001;

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let folder = arguments.model.clone().map_or_else(demo_folder, Ok)?;
    let judge = Judge::load(&folder, &device)?;
    let (pipeline, _) = load_folder(&folder, &device, &ModelOptions::default())?;
    let evaluation = Evaluation { arguments, folder, device, judge, pipeline };
    let parts = match &arguments.part[..] {
        [] => Part::value_variants(),
        parts => parts,
    };
    for part in parts {
        match part {
            Part::Networks => networks::measure(&evaluation)?,
            Part::Losses => losses::measure(&evaluation)?,
            Part::Captions => captions::measure(&evaluation)?,
            Part::ImagePromptKv => adapters::measure_image_prompt(&evaluation)?,
            Part::Instruct => adapters::measure_instruct(&evaluation)?,
        }
    }
    Ok(())
}

impl Evaluation<'_> {
    /// A request for one image of a caption, with the evaluation's settings.
    fn request(&self, caption: &str, seed: u64) -> Request {
        let Arguments { steps, guidance, .. } = *self.arguments;
        let settings = Settings { steps, guidance_scale: guidance, ..Settings::default() };
        Request::new(caption).with_seeds([seed]).with_settings(settings)
    }
}

/// Samples of one split.
fn samples(split: Split, count: u64) -> Vec<Sample> {
    (0..count).map(|index| sample(SEED, index, split)).collect()
}

/// Prints the head of a table of factors, after these columns.
fn print_head(columns: &[&str]) {
    let factors = Attribute::ALL.map(|attribute| attribute.to_string());
    let names: Vec<&str> =
        columns.iter().copied().chain(factors.iter().map(String::as_str)).chain(["everything"]).collect();
    println!("\n| {} |\n|{}", names.join(" | "), "---|".repeat(names.len()));
}

/// Prints one line of such a table, in percent.
fn print_line(columns: &[&str], tally: &Tally) {
    let percent = |share: Option<f64>| share.map_or("".to_owned(), |share| format!("{:.1}", 100.0 * share));
    let shares = Attribute::ALL.map(|attribute| percent(tally.share(attribute)));
    let cells: Vec<&str> = columns.iter().copied().chain(shares.iter().map(String::as_str)).collect();
    println!("| {} | {} |", cells.join(" | "), percent(tally.all()));
}
