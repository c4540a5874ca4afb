//! Conversion of whole models.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fabric::models::load::SaveDtype;
use fabric::models::{ConvertOptions, ModelConversion};

use super::report::{OutputFile, Report};
use super::{Dtype, common, target};

/// Options for converting a model.
#[derive(Args)]
pub(super) struct Arguments {
    /// Single checkpoint file, or model folder in the diffusers layout.
    input: PathBuf,
    /// Folder to write. Nothing may exist at this path.
    output: PathBuf,
    /// Number type of the weights. Default: that in which they are stored; 8-bit and f64 weights become f32.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// LoRA file to merge into the weights, as FILE or <FILE:SCALE>. Repeat the option for several LoRAs.
    #[arg(long)]
    lora: Vec<String>,
    /// VAE to use instead of the model's own: a file of weights or a folder.
    #[arg(long)]
    vae: Option<PathBuf>,
    /// Prediction type: epsilon, `v_prediction` or sample. Default: read from the model's files.
    #[arg(long)]
    prediction: Option<String>,
}

/// Converts a model.
pub(super) fn run(arguments: &Arguments, dry_run: bool) -> Result<Report, Box<dyn Error>> {
    target::check_free(&arguments.output)?;
    let options = ConvertOptions {
        dtype: arguments.dtype.map_or(SaveDtype::Keep, SaveDtype::from),
        loras: arguments.lora.iter().map(|choice| common::lora(choice)).collect(),
        vae: arguments.vae.clone(),
        prediction: arguments.prediction.as_deref().map(common::prediction).transpose()?,
    };
    // Networks are larger than the memory of many GPUs, and a CPU is fast enough for this.
    let device = fabric::backends::cpu().or_else(|_| fabric::default_device())?;
    let conversion = ModelConversion::open(&arguments.input, &device, &options)?;
    let family = conversion.family();
    let networks = conversion.networks().iter();
    let networks = networks.map(|network| format!("{} of {family}: {}", network.component, network.place));
    let files = conversion.files().iter().map(|file| OutputFile {
        path: arguments.output.join(&file.path),
        tensors: file.tensors,
        bytes: file.bytes,
    });
    let report = Report {
        written: false,
        read: networks.chain(conversion.loras().iter().map(ToString::to_string)).collect(),
        files: files.collect(),
        unused: conversion.unused().to_vec(),
        bytes_before: conversion.bytes_before(),
    };
    if dry_run {
        return Ok(report);
    }
    conversion.write(&arguments.output)?;
    report.after_writing()
}
