//! Code that the examples share: command-line options, loading with a progress bar, printing reports and errors.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]
#![allow(dead_code, reason = "not every example uses all of it")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use clap::Args;
use fabric::core::guidance::Apg;
use fabric::core::image::{Image, ImageError};
use fabric::core::models::WeightNormalisation;
use fabric::core::pipeline::{Cads, Generation, Pipeline, Report, Request, Settings, Window};
use fabric::core::schedule::{Prediction, SamplerKind};
use fabric::core::{printable_lines, printable_value};
use fabric::models::load::{LoadDtype, ProgressCallback};
use fabric::models::{LoraChoice, ModelOptions, demo_folder, load_model, recommended_settings};
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;

pub(crate) mod adapter;
pub(crate) mod images;
pub(crate) mod votes;

/// Options for loading a model and generating images.
#[derive(Args)]
pub(crate) struct Common {
    /// Model folder in the diffusers layout, or a single checkpoint file. Default: the demo model in `models/world`,
    /// which makes 64x64 images of a small world.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Number of sampler steps. Default: the model's recommendation, or 20.
    #[arg(long)]
    steps: Option<usize>,
    /// Sampler, for example `euler_a`, ddim or `dpmpp_2m_karras`. Default: the model's own.
    #[arg(long)]
    sampler: Option<SamplerKind>,
    /// Guidance scale; 1 switches guidance off. Default: the model's recommendation, or 7.5.
    #[arg(long)]
    guidance: Option<f64>,
    /// Part of the run with guidance, as START..END with shares from 0 to 1. Default: the whole run.
    #[arg(long, value_parser = window)]
    guidance_window: Option<Window>,
    /// Adaptive projected guidance: less oversaturation at high guidance scales.
    #[arg(long)]
    apg: bool,
    /// Noise in the prompt early in the run (CADS): images of one prompt differ more.
    #[arg(long)]
    cads: bool,
    /// Width in pixels, a multiple of 8. Default: the model's own.
    #[arg(long)]
    width: Option<usize>,
    /// Height in pixels, a multiple of 8. Default: the model's own.
    #[arg(long)]
    height: Option<usize>,
    /// Number of images computed at once; fewer need less memory.
    #[arg(long)]
    batch: Option<usize>,
    /// Number of last layers of the text encoder to skip.
    #[arg(long)]
    clip_skip: Option<usize>,
    /// Read `(word:1.2)` in prompts as a prompt weight.
    #[arg(long)]
    prompt_weights: bool,
    /// Normalisation of prompt weights: none, mean (AUTOMATIC1111's) or comfy (ComfyUI's).
    #[arg(long)]
    weight_normalisation: Option<WeightNormalisation>,
    /// Encode prompts longer than 77 tokens in several tokenizer windows, instead of truncating them.
    #[arg(long)]
    long_prompts: bool,
    /// VAE to use instead of the model's own: a file of weights or a folder.
    #[arg(long)]
    vae: Option<PathBuf>,
    /// Tiny autoencoder whose decoder makes previews: a folder, or a file such as `taesd_decoder.safetensors`. Default:
    /// the model's folder `tiny_vae`, or its VAE.
    #[arg(long)]
    preview_vae: Option<PathBuf>,
    /// LoRA file to merge into the weights, as FILE or <FILE:SCALE>. Repeat the option for several LoRAs.
    #[arg(long)]
    lora: Vec<String>,
    /// Run the VAE on tiles of large images, which needs less memory.
    #[arg(long)]
    tile_vae: bool,
    /// Keep the weights in RAM and move one network at a time to the device, for GPUs with little memory.
    #[arg(long)]
    offload: bool,
    /// Report the share of attention that each reference receives. Slows generation down.
    #[arg(long)]
    measure_attention: bool,
    /// Prediction type: epsilon, `v_prediction` or sample. Default: read from the model's files. Single checkpoint
    /// files of Stable Diffusion 2 do not always contain it.
    #[arg(long)]
    prediction: Option<String>,
    /// Number type of the weights in memory: f32, f16 or bf16.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Device: flex, ndarray, cuda, cuda:N, wgpu, or ws://HOST:PORT for the device of another machine. Default: the
    /// first one that this build supports.
    #[arg(long)]
    device: Option<String>,
}

/// Parses START..END.
fn window(text: &str) -> Result<Window, String> {
    let ends = text.split_once("..").and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
    let (start, end) = ends.ok_or_else(|| format!("expected START..END such as 0.2..0.8, got {text}"))?;
    Window::new(start, end).map_err(|error| error.to_string())
}

impl Common {
    pub(crate) fn settings(&self) -> Result<Settings, Box<dyn Error>> {
        // What is wrong with a model is reported when it is loaded.
        let mut settings = recommended_settings(self.model()?).unwrap_or_default();
        self.change(&mut settings);
        settings.validate()?;
        Ok(settings)
    }

    /// Changes the settings that the command line gives, and no others.
    pub(crate) fn change(&self, settings: &mut Settings) {
        settings.width = self.width.or(settings.width);
        settings.height = self.height.or(settings.height);
        settings.steps = self.steps.unwrap_or(settings.steps);
        settings.sampler = self.sampler.or(settings.sampler);
        settings.guidance_scale = self.guidance.unwrap_or(settings.guidance_scale);
        settings.guidance_window = self.guidance_window.unwrap_or(settings.guidance_window);
        settings.apg = self.apg.then(Apg::default).or(settings.apg);
        settings.cads = self.cads.then(Cads::default).or(settings.cads);
        settings.batch = self.batch.or(settings.batch);
        settings.measure_attention |= self.measure_attention;
        settings.text.clip_skip = self.clip_skip.or(settings.text.clip_skip);
        settings.text.weights |= self.prompt_weights;
        settings.text.weight_normalisation = self.weight_normalisation.unwrap_or(settings.text.weight_normalisation);
        settings.text.long_prompts |= self.long_prompts;
    }

    /// Returns the path of the model: `--model`, or the demo model.
    pub(crate) fn model(&self) -> Result<PathBuf, Box<dyn Error>> {
        Ok(self.model.clone().map_or_else(demo_folder, Ok)?)
    }

    pub(crate) fn device(&self) -> Result<Device, Box<dyn Error>> {
        device(self.device.as_deref())
    }

    /// Whether the device is another machine's.
    pub(crate) fn is_remote(&self) -> bool {
        self.device.as_deref().is_some_and(is_remote)
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
        let (vae, preview_decoder) = (self.vae.clone(), self.preview_vae.clone());
        let Self { tile_vae, offload, sampler, .. } = *self;
        let progress = Some(progress);
        let options = ModelOptions {
            dtype,
            sampler,
            tile_vae,
            offload,
            loras,
            progress,
            prediction,
            vae,
            preview_decoder,
            ..ModelOptions::default()
        };
        let (pipeline, _) = load_model(self.model()?, device, &options)?;
        bar.finish_and_clear();
        Ok(pipeline)
    }
}

/// Reads a JSON file; an error contains its path.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// Whether a device is another machine's, by its name.
pub(crate) fn is_remote(name: &str) -> bool {
    matches!(name.parse(), Ok(fabric::DeviceKind::Remote { .. }))
}

/// Returns the device of this name, or by default the first one that this build supports.
pub(crate) fn device(name: Option<&str>) -> Result<Device, Box<dyn Error>> {
    Ok(match name {
        Some(name) => fabric::backends::device(name.parse()?)?,
        None => fabric::default_device()?,
    })
}

/// Parses a prediction type by its name in diffusers' scheduler configuration.
pub(crate) fn prediction(name: &str) -> Result<Prediction, Box<dyn Error>> {
    Ok(match name {
        "epsilon" => Prediction::Epsilon,
        "v_prediction" => Prediction::Velocity,
        "sample" => Prediction::Sample,
        other => {
            return Err(format!("--prediction: expected epsilon, v_prediction or sample, got {other}").into());
        }
    })
}

/// Parses `FILE` or `FILE:SCALE`. Text after the last colon that is not a number is part of the file's name.
pub(crate) fn lora(choice: &str) -> LoraChoice {
    let scaled = choice.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse().ok()?)));
    let (path, scale) = scaled.unwrap_or((choice, 1.0));
    LoraChoice { path: path.into(), scale }
}

/// Creates the output folder and checks that these files can be written to it. Called before generation, so that no
/// result is lost.
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

/// Saves one of the images as PNG, together with how it was made, and prints its path.
pub(crate) fn save_image(
    made: &Generation,
    request: &Request,
    index: usize,
    path: &Path,
) -> Result<(), Box<dyn Error>> {
    made.images[index].save_with_metadata(path, &made.metadata(request, index)?)?;
    println!("{}", path.display());
    Ok(())
}

/// Saves a contact sheet. An error is only printed, because the images themselves are saved already.
pub(crate) fn save_sheet(sheet: Result<Image, ImageError>, path: &Path) {
    match sheet.and_then(|sheet| sheet.save(path)) {
        Ok(()) => println!("{}", path.display()),
        Err(error) => println!("no sheet {}: {error}", path.display()),
    }
}

/// Returns a progress bar that counts steps.
pub(crate) fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("step {pos}/{len} {bar:40} {elapsed} left {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Prints times, the use of references, and notes of a run.
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
    for (index, attention) in report.attention.iter().enumerate() {
        let side = if index < liked { "liked" } else { "disliked" };
        println!("reference {} ({side}) got {:.1} % of the attention", index + 1, attention.mean * 100.0);
    }
    for (index, effect) in report.image_prompts.iter().enumerate() {
        println!(
            "image prompt {} ({}) contributed {:.1} % of the cross-attention where it acted",
            index + 1,
            printable_value(effect),
            effect.mean * 100.0
        );
    }
    if let Some(error) = &report.spill_error {
        println!("{}", printable_value(error));
    }
    for note in &report.notes {
        println!("{}", printable_value(note));
    }
    for rest in &report.truncated {
        println!("the prompt is too long, this was left out: {}", printable_value(rest));
    }
}

/// Prints an error with its causes.
pub(crate) fn report(result: Result<(), Box<dyn Error>>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("{}", error_text(&*error));
    ExitCode::FAILURE
}

/// Describes an error with its causes, without characters from files that a terminal would execute or hide. The lines
/// of a message are indented, so that a text from a file cannot pass for another message.
pub(crate) fn error_text(error: &dyn Error) -> String {
    let mut text = format!("error: {}", printable_lines(&error.to_string()).replace('\n', "\n  "));
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  because: {}", printable_value(error)));
        cause = error.source();
    }
    text
}
