//! An adapter learned from images: `cargo run --release --features train --example train_adapter -- --data data.jsonl --model MODEL --like ip-adapter_sd15.safetensors`.
//!
//! `data.jsonl` has a line for each example: `{"image": "a.png", "text": "what it shows"}`, with `"condition": "b.png"` where the
//! prompt is another image, and for Instruct `"task"` and `"instruction"`. Stopped and begun again with the same
//! settings, a run goes on where it was.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use fabric::core::schedule::SchedulerConfig;
use fabric::ipadapter::train::{
    AdapterOptions, AdapterTask, Dataset, Partners, first_weights, first_weights_of_instruct, published_settings,
};
use fabric::ipadapter::{AdapterFile, IpAdapter};
use fabric::models::load::{Component, LoadDtype, LoadOptions, ModelFolder};
use fabric::models::train::{TrainSettings, Trainer};
use fabric::models::{ModelOptions, StableDiffusion};
use serde::Deserialize;
use serde_json::Value;

mod common;

/// Trains an IP-Adapter or an Instruct adapter as published.
#[derive(Parser)]
struct Arguments {
    /// Examples, one JSON object per line.
    #[arg(long)]
    data: PathBuf,
    /// Lines that may be broken, or whose images are missing or cannot be read.
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// The model's folder, which stays as it is.
    #[arg(long)]
    model: PathBuf,
    /// The image encoder's folder; the model's `image_encoder` if absent.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// An adapter of the kind and sizes to train; with `--go-on` its weights are where training begins.
    #[arg(long)]
    like: PathBuf,
    /// Begins with the weights of that adapter, instead of new ones.
    #[arg(long)]
    go_on: bool,
    /// For Instruct: the plus adapter to begin with.
    #[arg(long)]
    plus: Option<PathBuf>,
    /// Settings as JSON: `{"training": {"steps": 1000, "batch": 8}, "options": {"size": 512}}`; the published recipe if absent.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where checkpoints, the loss curve and the adapter go.
    #[arg(long, default_value = "adapter")]
    out: PathBuf,
    /// Threads that prepare images.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Where to compute; the first device that this build has if absent.
    #[arg(long)]
    device: Option<String>,
}

/// What the settings' file says; what it leaves out is as published.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Config {
    training: serde_json::Map<String, Value>,
    options: AdapterOptions,
}

impl Config {
    fn training(&self) -> Result<TrainSettings, Box<dyn Error>> {
        let mut settings = serde_json::to_value(published_settings())?;
        for (name, value) in &self.training {
            settings[name] = value.clone();
        }
        Ok(serde_json::from_value(settings)?)
    }
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let config: Config = match &arguments.config {
        Some(path) => fabric::core::json::from_str(&std::fs::read_to_string(path)?)?,
        None => Config::default(),
    };
    let training = config.training()?;
    common::prepare(&arguments.out, ["adapter.safetensors".to_owned()])?;
    let data = Dataset::open(&arguments.data, arguments.skip)?;
    println!("{} examples, {} lines left out", data.examples().len(), data.skipped().len());
    for skipped in data.skipped() {
        println!("line {}: {}", skipped.line, skipped.reason);
    }
    let plain = common::device(arguments.device.as_deref())?;
    let tracking = plain.clone().autodiff();
    let (partners, scheduler) = partners(arguments, [&plain, &tracking])?;
    let file = AdapterFile::open(&arguments.like)?;
    let kind = file.config()?;
    println!("{kind}; it reads {}", kind.reads());
    let layers = partners.unet.cross_attentions();
    let first = match (&arguments.plus, arguments.go_on) {
        (_, true) => {
            IpAdapter::load(kind.clone(), file.weights(), &LoadOptions::default(), &tracking)?.0.weights().clone()
        }
        (Some(plus), false) => first_weights_of_instruct(&kind, &AdapterFile::open(plus)?, &tracking)?,
        (None, false) => {
            let unet = ModelFolder::open(&arguments.model)?.weights(Component::UNet)?;
            first_weights(&kind, &layers, &*unet, &tracking)?
        }
    };
    let task = AdapterTask::new(&kind, partners, &scheduler, data, &training, &config.options)?;
    let mut trainer = Trainer::new(task, first, &training, &arguments.out, &tracking, arguments.workers.max(1))?;
    while !trainer.is_done() {
        let done = trainer.step()?;
        if done.step.is_multiple_of(10) || done.step == done.steps {
            let minutes = done.seconds_left / 60.0;
            println!(
                "{}/{}: loss {:.4}, gradient {:.3}, {:.2} s a step, {minutes:.0} min left",
                done.step, done.steps, done.loss, done.gradient, done.seconds
            );
        }
    }
    for broken in trainer.task().broken() {
        println!("left out, line {}: {}", broken.line, broken.reason);
    }
    let path = arguments.out.join("adapter.safetensors");
    IpAdapter::new(kind, trainer.averaged())?.save(&path, LoadDtype::F16)?;
    println!("{}", path.display());
    Ok(())
}

/// The model's networks: only the U-Net lets gradients pass, and none learns.
fn partners(
    arguments: &Arguments,
    [plain, tracking]: [&Device; 2],
) -> Result<(Partners, SchedulerConfig), Box<dyn Error>> {
    let (model, _) = StableDiffusion::from_folder(&arguments.model, plain, &ModelOptions::default())?;
    let encoder = arguments.encoder.clone().unwrap_or_else(|| arguments.model.join("image_encoder"));
    let partners = Partners {
        unet: Arc::new(model.unet.fork(tracking).no_grad()),
        autoencoder: Arc::new(model.vae),
        text: Arc::new(model.text),
        vision: Arc::new(common::images::encoder(&encoder, plain)?),
    };
    Ok((partners, model.scheduler))
}
