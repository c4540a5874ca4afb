//! Trains an IP-Adapter on your own images:
//! `cargo run --release --features train --example train_adapter -- --data data.jsonl --model MODEL
//! --like ip-adapter_sd15.safetensors`.
//!
//! `data.jsonl` has one example per line: `{"image": "a.png", "text": "what it shows"}`. Add `"condition": "b.png"`
//! if the image prompt is another image than the target, and `"task"` and `"instruction"` for Instruct. A run that
//! was stopped resumes from its last checkpoint when it is started again with the same settings.

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
use fabric::models::clip::ClipVision;
use fabric::models::load::{Component, LoadDtype, LoadOptions, ModelFolder};
use fabric::models::train::{TrainSettings, Trainer};
use fabric::models::{ModelOptions, StableDiffusion};
use serde::Deserialize;
use serde_json::Value;

mod common;

/// Trains an IP-Adapter or an Instruct adapter with the published recipe.
#[derive(Parser)]
struct Arguments {
    /// Training examples: a file with one JSON object per line.
    #[arg(long)]
    data: PathBuf,
    /// Number of lines that may be skipped because they are invalid or their image is missing or unreadable.
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// Folder of the base model. It is not changed.
    #[arg(long)]
    model: PathBuf,
    /// Folder of the image encoder. Default: `image_encoder` in the model's folder.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// Adapter file that gives the architecture to train. Its weights are used only with `--go-on`.
    #[arg(long)]
    like: PathBuf,
    /// Start from the weights of the `--like` adapter instead of new ones.
    #[arg(long)]
    go_on: bool,
    /// Plus adapter whose weights initialise an Instruct adapter.
    #[arg(long)]
    plus: Option<PathBuf>,
    /// JSON file with settings, for example `{"training": {"steps": 1000, "batch": 8}, "options": {"size": 512}}`.
    /// Settings that it leaves out are those of the published recipe.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Output folder for checkpoints, the loss curve and the adapter.
    #[arg(long, default_value = "adapter")]
    out: PathBuf,
    /// Number of threads that load and preprocess images.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Device: flex, ndarray, cuda, cuda:N or wgpu. Default: the first one that this build supports.
    #[arg(long)]
    device: Option<String>,
}

/// Contents of the settings file; omitted settings have the published values.
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

/// Loads the frozen networks that the adapter is trained with. Gradients flow only through the U-Net.
fn partners(
    arguments: &Arguments,
    [plain, tracking]: [&Device; 2],
) -> Result<(Partners, SchedulerConfig), Box<dyn Error>> {
    let (model, _) = StableDiffusion::open(&arguments.model, plain, &ModelOptions::default())?;
    let encoder = arguments.encoder.clone().unwrap_or_else(|| arguments.model.join("image_encoder"));
    let partners = Partners {
        unet: Arc::new(model.unet.fork(tracking).no_grad()),
        autoencoder: Arc::new(model.vae),
        text: Arc::new(model.text),
        vision: Arc::new(ClipVision::open(&encoder, plain)?),
    };
    Ok((partners, model.scheduler))
}
