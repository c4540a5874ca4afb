//! A copy of the model that ships, with adapters of random weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fabric::ipadapter::{AdapterConfig, IpAdapter, ProjectionConfig, ResamplerConfig, numbered_layers};
use fabric::models::load::LoadDtype;
use fabric::models::{ModelOptions, demo_folder, load_model};
use serde_json::Value;
use tempfile::TempDir;

mod folders;

pub(crate) use folders::{assert_same_files, files};

/// A temporary folder with a copy of the model that ships, which has adapters of random weights.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self::without_adapters();
        write_adapters(&place.model());
        place
    }

    pub(crate) fn without_adapters() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        copy_folder(&demo_folder().expect("the model ships"), &place.model());
        let adapters = place.model().join("ip_adapter");
        if adapters.is_dir() {
            fs::remove_dir_all(adapters).expect("removed");
        }
        place
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.path("model")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program on the model, and returns whether it succeeded, what it printed and its errors.
    pub(crate) fn program(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabric-experiments"));
        command.args(arguments).arg("--model").arg(self.model()).arg("--out").arg(self.path("out"));
        command.args(["--limit", "1", "--images", "1", "--steps", "2"]);
        let output = command.output().expect("the program");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, into: &Path) {
    fs::create_dir_all(into).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let copy = into.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("a copy");
        }
    }
}

/// Writes both adapters for the U-Net, text encoder and image encoder of a model, with random weights.
pub(crate) fn write_adapters(model: &Path) {
    let device = fabric::default_device().expect("a device");
    device.seed(0);
    let (pipeline, _) = load_model(model, &device, &ModelOptions::default()).expect("a model");
    let layers = numbered_layers(&pipeline.cross_attentions());
    let width = |part: &str| {
        let text = fs::read_to_string(model.join(part).join("config.json")).expect("a configuration");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        config["hidden_size"].as_u64().expect("a number") as usize
    };
    let (features, text, context) = (width("image_encoder"), width("text_encoder"), layers[0].context);
    let resampler = ResamplerConfig { features, channels: 64, heads: 1, depth: 1, factor: 2, tokens: 4, context };
    fs::create_dir(model.join("ip_adapter")).expect("a folder");
    for (name, projection) in
        [("plus", ProjectionConfig::Resampler(resampler)), ("instruct", ProjectionConfig::Instruct { resampler, text })]
    {
        let widths = layers.iter().map(|layer| layer.channels).collect();
        let config = AdapterConfig { projection, widths, context, lora_rank: None };
        let adapter = IpAdapter::new(config.clone(), config.init(&device)).expect("an adapter");
        let path = model.join(format!("ip_adapter/{name}.safetensors"));
        adapter.save(path, LoadDtype::F32).expect("a written adapter");
    }
}
