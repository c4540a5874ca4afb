//! Converts models, files of weights, trained adapters and tokenizers:
//! `cargo run --release --features pickle --example convert -- model v1-5-pruned.ckpt out/sd15 --dtype f16`.
//!
//! | command | from | to |
//! |---|---|---|
//! | `model` | checkpoint file, or model folder | model folder in the diffusers layout, with LoRAs merged |
//! | `weights` | file of any network, LoRA or adapter | one `.safetensors` file |
//! | `adapter` | checkpoint of `train_adapter` | adapter in the published layout |
//! | `tokenizer` | `tokenizer.json` | folder with `vocab.json` and `merges.txt` |
//!
//! Nothing is ever overwritten. `--dry-run` checks the input and lists the files that would be written. PyTorch's files
//! (`.ckpt`, `.bin`, `.pt`) need the feature `pickle`, checkpoints of a training run the feature `train`.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use fabric::models::load::SaveDtype;

mod adapter;
#[path = "../common/mod.rs"]
pub(crate) mod common;
mod model;
mod report;
mod target;
mod tokenizer;
mod weights;

pub(crate) use report::Report;

/// Converts models, files of weights, trained adapters and tokenizers.
#[derive(Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Check the input and list the files that would be written, without writing anything.
    #[arg(long, global = true)]
    dry_run: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Convert a model to a folder in the diffusers layout.
    Model(model::Arguments),
    /// Convert a file of weights to safetensors.
    Weights(weights::Arguments),
    /// Convert a checkpoint of an adapter's training run to an adapter file in the published layout.
    Adapter(adapter::Arguments),
    /// Convert a tokenizer.json to the vocabulary files of CLIP's tokenizer.
    Tokenizer(tokenizer::Arguments),
}

/// Type of the weights in the new files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers for large weights, 16-bit floats for all others.
    Int8,
}

impl From<Dtype> for SaveDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
            Dtype::Int8 => Self::Int8,
        }
    }
}

fn main() -> ExitCode {
    common::report(run(&Arguments::parse()).map(|report| println!("{report}")))
}

/// Converts, or only checks and lists with `--dry-run`.
pub(crate) fn run(arguments: &Arguments) -> Result<Report, Box<dyn Error>> {
    let dry_run = arguments.dry_run;
    match &arguments.command {
        Command::Model(arguments) => model::run(arguments, dry_run),
        Command::Weights(arguments) => weights::run(arguments, dry_run),
        Command::Adapter(arguments) => adapter::run(arguments, dry_run),
        Command::Tokenizer(arguments) => tokenizer::run(arguments, dry_run),
    }
}
