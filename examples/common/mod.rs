//! What the examples share: settings from the command line, loading with a progress bar, a report in words.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]
#![allow(dead_code, reason = "not every example uses all of it")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use clap::Args;
use fabric::core::image::{Image, ImageError};
use fabric::core::models::WeightNormalisation;
use fabric::core::pipeline::{Pipeline, Report, Settings};
use fabric::core::schedule::{Prediction, SamplerKind};
use fabric::models::load::{LoadDtype, ProgressCallback};
use fabric::models::{LoraChoice, ModelOptions, demo_folder, load_model};
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;

pub(crate) mod images;
#[cfg(feature = "world")]
pub(crate) mod world;

/// Settings that every example takes.
#[derive(Args)]
pub(crate) struct Common {
    /// A model folder in the diffusers layout, or a single checkpoint file; if absent, the demonstration model, a small world
    /// of 64x64 images in `models/world`.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Steps of the sampler; 20 if absent.
    #[arg(long)]
    steps: Option<usize>,
    /// The sampler, for example euler_a, ddim, dpmpp_2m_karras; the model's own if absent.
    #[arg(long)]
    sampler: Option<SamplerKind>,
    /// Strength of the prompt; 1 switches guidance off. If absent, 7.5, and 3 for the demonstration model.
    #[arg(long)]
    guidance: Option<f64>,
    /// Width in pixels, a multiple of 8; the model's own if absent.
    #[arg(long)]
    width: Option<usize>,
    /// Height in pixels.
    #[arg(long)]
    height: Option<usize>,
    /// Images computed at once; fewer need less memory.
    #[arg(long)]
    batch: Option<usize>,
    /// Layers of the text encoder to leave out at its end.
    #[arg(long)]
    clip_skip: Option<usize>,
    /// Reads `(word:1.2)` as a weight.
    #[arg(long)]
    prompt_weights: bool,
    /// With weights: what keeps them in bounds, which is none, mean (AUTOMATIC1111's) or comfy (ComfyUI's).
    #[arg(long)]
    weight_normalisation: Option<WeightNormalisation>,
    /// Reads prompts longer than 77 tokens in several windows.
    #[arg(long)]
    long_prompts: bool,
    /// A LoRA file to merge, or FILE:SCALE; may be given several times.
    #[arg(long)]
    lora: Vec<String>,
    /// Encodes and decodes large images in tiles, for less memory.
    #[arg(long)]
    tile_vae: bool,
    /// Keeps the networks in the machine's memory and one at a time on the device, for GPUs with little of their own.
    #[arg(long)]
    offload: bool,
    /// Reports how much of the attention each reference gets; costs time.
    #[arg(long)]
    measure_attention: bool,
    /// What the network predicts: epsilon, v_prediction or sample. The model's files say so if absent; a single file of
    /// Stable Diffusion 2 does not always.
    #[arg(long)]
    prediction: Option<String>,
    /// Type of the weights in memory: f32, f16, bf16.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Where to compute: flex, ndarray, cuda, cuda:N, wgpu, or another machine's device as ws://HOST:PORT; the first that this
    /// build has if absent.
    #[arg(long)]
    device: Option<String>,
}

impl Common {
    pub(crate) fn settings(&self) -> Result<Settings, Box<dyn Error>> {
        let guidance_scale = if self.model.is_some() { 7.5 } else { 3.0 };
        let mut settings = Settings { steps: 20, guidance_scale, ..Settings::default() };
        self.change(&mut settings);
        settings.validate()?;
        Ok(settings)
    }

    /// Changes what the command line names, and nothing else.
    pub(crate) fn change(&self, settings: &mut Settings) {
        settings.width = self.width.or(settings.width);
        settings.height = self.height.or(settings.height);
        settings.steps = self.steps.unwrap_or(settings.steps);
        settings.sampler = self.sampler.or(settings.sampler);
        settings.guidance_scale = self.guidance.unwrap_or(settings.guidance_scale);
        settings.batch = self.batch.or(settings.batch);
        settings.measure_attention |= self.measure_attention;
        settings.text.clip_skip = self.clip_skip.or(settings.text.clip_skip);
        settings.text.weights |= self.prompt_weights;
        settings.text.weight_normalisation = self.weight_normalisation.unwrap_or(settings.text.weight_normalisation);
        settings.text.long_prompts |= self.long_prompts;
    }

    /// Where the model lies.
    pub(crate) fn model(&self) -> Result<PathBuf, Box<dyn Error>> {
        Ok(self.model.clone().map_or_else(demo_folder, Ok)?)
    }

    pub(crate) fn device(&self) -> Result<Device, Box<dyn Error>> {
        device(self.device.as_deref())
    }

    pub(crate) fn load(&self) -> Result<Pipeline, Box<dyn Error>> {
        self.load_on(&self.device()?)
    }

    pub(crate) fn load_on(&self, device: &Device) -> Result<Pipeline, Box<dyn Error>> {
        let dtype = match self.dtype.as_str() {
            "f32" => LoadDtype::F32,
            "f16" => LoadDtype::F16,
            "bf16" => LoadDtype::BF16,
            other => return Err(format!("--dtype: expected f32, f16 or bf16, got {other}").into()),
        };
        let prediction = self.prediction.as_deref().map(prediction).transpose()?;
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template("loading {bar:40} {bytes}/{total_bytes} {eta}")?);
        let progress = {
            let bar = bar.clone();
            ProgressCallback::new(move |progress| {
                bar.set_length(progress.total_bytes);
                bar.set_position(progress.done_bytes);
            })
        };
        let loras = self.lora.iter().map(|choice| lora(choice)).collect();
        let Self { tile_vae, offload, sampler, .. } = *self;
        let progress = Some(progress);
        let options =
            ModelOptions { dtype, sampler, tile_vae, offload, loras, progress, prediction, ..ModelOptions::default() };
        let (pipeline, _) = load_model(self.model()?, device, &options)?;
        bar.finish_and_clear();
        Ok(pipeline)
    }
}

/// Settings from a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// The device of this name, or the first that this build has.
pub(crate) fn device(name: Option<&str>) -> Result<Device, Box<dyn Error>> {
    Ok(match name {
        Some(name) => fabric::backends::device(name.parse()?)?,
        None => fabric::default_device()?,
    })
}

/// What a network predicts, by the name that scheduler settings give it.
fn prediction(name: &str) -> Result<Prediction, Box<dyn Error>> {
    Ok(match name {
        "epsilon" => Prediction::Epsilon,
        "v_prediction" => Prediction::Velocity,
        "sample" => Prediction::Sample,
        other => {
            return Err(format!("--prediction: expected epsilon, v_prediction or sample, got {other}").into());
        }
    })
}

/// `FILE`, or `FILE:SCALE`; whatever follows the last colon is part of the name unless it is a number.
fn lora(choice: &str) -> LoraChoice {
    let scaled = choice.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse().ok()?)));
    let (path, scale) = scaled.unwrap_or((choice, 1.0));
    LoraChoice { path: path.into(), scale }
}

/// Makes a folder that results will go to, and checks that each of these files can be written there: before the work, so that
/// none of it is lost.
pub(crate) fn prepare(folder: &Path, files: impl IntoIterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let refused = |error: &dyn std::fmt::Display| {
        format!("--out {}: expected a folder that can be written to, got {error}; choose another one", folder.display())
    };
    std::fs::create_dir_all(folder).map_err(|error| refused(&error))?;
    tempfile::tempfile_in(folder).map_err(|error| refused(&error))?;
    match files.into_iter().find(|name| folder.join(name).is_dir()) {
        Some(name) => Err(refused(&format_args!("a folder named {name}")).into()),
        None => Ok(()),
    }
}

/// Saves a sheet of images that are saved already: that there is none is no reason to stop.
pub(crate) fn save_sheet(sheet: Result<Image, ImageError>, path: &Path) {
    match sheet.and_then(|sheet| sheet.save(path)) {
        Ok(()) => println!("{}", path.display()),
        Err(error) => println!("no sheet {}: {error}", path.display()),
    }
}

/// A bar that counts steps.
pub(crate) fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("step {pos}/{len} {bar:40} {elapsed} left {eta}") {
        bar.set_style(style);
    }
    bar
}

/// What a person wants to know about a run.
pub(crate) fn print_report(report: &Report) {
    let steps: f64 = report.step_seconds.iter().sum();
    println!(
        "{} evaluations, {:.2} s each; text {:.2} s, encoding {:.2} s, decoding {:.2} s",
        report.step_seconds.len(),
        steps / report.step_seconds.len().max(1) as f64,
        report.text_seconds,
        report.encode_seconds,
        report.decode_seconds
    );
    let [liked, disliked] = report.references;
    if liked + disliked > 0 {
        println!(
            "{liked} liked and {disliked} disliked, seen in {} of {} passes",
            report.calls_with_references, report.calls
        );
    }
    for (index, mass) in report.attention_mass.iter().enumerate() {
        let side = if index < liked { "liked" } else { "disliked" };
        println!("reference {} ({side}) got {:.1} % of the attention", index + 1, mass * 100.0);
    }
    if let Some(error) = &report.spill_error {
        println!("{error}");
    }
    for note in &report.notes {
        println!("{note}");
    }
    for rest in &report.truncated {
        println!("the prompt is too long, this was left out: {rest}");
    }
}

/// Prints an error with its causes.
pub(crate) fn report(result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}
