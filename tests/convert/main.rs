//! The example program `convert`: what it writes and reports, and what it refuses without leaving anything behind.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use fabric::core::image::Image;
use fabric::core::pipeline::{Request, Settings};
use fabric::models::load::{
    Dtype, HostTensor, LoadDtype, LoadError, SafetensorsFile, TensorInfo, TensorSource, open_weights, write_safetensors,
};
use fabric::models::{ModelOptions, load_model};

#[cfg(feature = "train")]
mod checkpoints;
#[path = "../../examples/convert/main.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod convert;
#[path = "../common/copies.rs"]
mod copies;
mod files;
mod models;
mod refusals;

use convert::Report;
use copies::copy_all;

/// Tiny networks with random weights.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/models");

/// Adapter of these networks.
const ADAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/models/ip_adapter/base.safetensors");

/// Tokenizer in one file.
const TOKENIZER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer-json/tokenizer.json");

/// Runs the program.
fn call(words: &[&str]) -> Result<Report, Box<dyn Error>> {
    convert::run(&convert::Arguments::try_parse_from(["convert"].iter().chain(words))?)
}

/// A temporary folder.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// Path in the folder, as an argument.
    fn named(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Names of everything in the folder, sorted.
    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// An image of 64x64 pixels that a model makes.
fn image(model: &str, options: &ModelOptions) -> Image {
    let device = fabric::default_device().expect("a device");
    let (pipeline, _) = load_model(model, &device, options).expect("a model");
    let settings = Settings { width: Some(64), height: Some(64), steps: 2, ..Settings::default() };
    let request = Request::new("a red star").with_seeds([3]).with_settings(settings);
    pipeline.generate(&request).expect("an image").images.remove(0)
}

/// Every tensor of a file.
fn tensors(path: impl AsRef<Path>) -> BTreeMap<String, HostTensor> {
    let source = open_weights(path).expect("weights");
    source.tensors().keys().map(|name| (name.clone(), source.read(name).expect("a tensor"))).collect()
}

/// Writes a file of weights with these metadata.
fn write(path: &str, metadata: &[(&str, &str)], tensors: &BTreeMap<String, HostTensor>) {
    let infos: Vec<(String, TensorInfo)> = tensors.iter().map(|(name, one)| (name.clone(), one.info.clone())).collect();
    let metadata = metadata.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    write_safetensors(path, &metadata, &infos, |name| Ok(tensors[name].clone())).expect("a written file");
}
