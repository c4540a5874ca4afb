//! Measures how well a model of the small world follows captions, image prompts and instructions:
//! `cargo run --release -p fabric-world --example evaluate_world`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::models::{ModelOptions, demo_folder, load_model};
use fabric_world::{Attribute, Judge, Sample, Split, Tally, sample};

mod adapters;
mod captions;
#[path = "../../../common/mod.rs"]
mod common;
mod losses;
mod networks;

/// Measures how well a model of the small world follows captions, image prompts and instructions.
#[derive(Parser)]
struct Arguments {
    /// Model folder. Default: the demo model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Part to measure. Repeat the option for several parts. Default: all parts.
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Number of captions with factor combinations from training, and of as many with held-out combinations.
    #[arg(long, default_value_t = 1000)]
    captions: u64,
    /// Number of scenes per size in part `losses`.
    #[arg(long, default_value_t = 400)]
    scenes: u64,
    /// Number of image prompts, and of pairs per task of Instruct.
    #[arg(long, default_value_t = 200)]
    pairs: u64,
    /// Number of sampler steps.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Guidance scale.
    #[arg(long, default_value_t = 3.0)]
    guidance: f64,
    /// File for a contact sheet of images made from captions.
    #[arg(long)]
    sheet: Option<PathBuf>,
    /// Device: flex, ndarray, cuda, cuda:N or wgpu. Default: the first one that this build supports.
    #[arg(long)]
    device: Option<String>,
}

/// Parts of the evaluation.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Accuracy of the readers on drawings, caption retrieval, and the VAE's reconstruction error.
    Networks,
    /// Where factors are lost: on drawings, after the VAE, or in images from the U-Net.
    Losses,
    /// Accuracy of images made from captions with trained and held-out factor combinations.
    Captions,
    /// Factors that images take over from an image prompt.
    ImagePrompt,
    /// Factors that images take over from an image prompt with an instruction.
    Instruct,
    /// Factors that images take over from several image prompts at once, each with its instruction.
    Several,
}

/// Model under test, with the readers that judge its images.
struct Evaluation<'a> {
    arguments: &'a Arguments,
    folder: PathBuf,
    device: Device,
    judge: Judge,
    pipeline: Pipeline,
}

/// Seed of the evaluated scenes; training uses another one.
const SEED: u64 = 990_001;

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = common::device(arguments.device.as_deref())?;
    let folder = arguments.model.clone().map_or_else(demo_folder, Ok)?;
    let judge = Judge::load(&folder, &device)?;
    let (pipeline, _) = load_model(&folder, &device, &ModelOptions::default())?;
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
            Part::ImagePrompt => adapters::measure_image_prompt(&evaluation)?,
            Part::Instruct => adapters::measure_instruct(&evaluation)?,
            Part::Several => adapters::measure_several(&evaluation)?,
        }
    }
    Ok(())
}

impl Evaluation<'_> {
    /// Returns a request for one image of a caption, with the evaluation's settings.
    fn request(&self, caption: &str, seed: u64) -> Request {
        let Arguments { steps, guidance, .. } = *self.arguments;
        let settings = Settings { steps, guidance_scale: guidance, ..Settings::default() };
        Request::new(caption).with_seeds([seed]).with_settings(settings)
    }
}

/// Draws samples of one split.
fn samples(split: Split, count: u64) -> Vec<Sample> {
    (0..count).map(|index| sample(SEED, index, split)).collect()
}

/// Prints the header of a table with these columns and one per factor.
fn print_head(columns: &[&str]) {
    let factors = Attribute::ALL.map(|attribute| attribute.to_string());
    let names: Vec<&str> =
        columns.iter().copied().chain(factors.iter().map(String::as_str)).chain(["everything"]).collect();
    println!("\n| {} |\n|{}", names.join(" | "), "---|".repeat(names.len()));
}

/// Prints one line of that table, in percent.
fn print_line(columns: &[&str], tally: &Tally) {
    let percent = |share: Option<f64>| share.map_or("".to_owned(), |share| format!("{:.1}", 100.0 * share));
    let shares = Attribute::ALL.map(|attribute| percent(tally.share(attribute)));
    let cells: Vec<&str> = columns.iter().copied().chain(shares.iter().map(String::as_str)).collect();
    println!("| {} | {} |", cells.join(" | "), percent(tally.all()));
}
