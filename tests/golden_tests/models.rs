//! Golden models: reads every file of the folder completely, and checks that every tensor is loaded to its parameter.

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use fabric::models::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use fabric::models::load::{
    Component, ComponentFolder, HostTensor, LoadDtype, LoadError, LoadOptions, ModelFolder, PublishedNames,
    SafetensorsFile, SaveOptions, TensorSource, load_into, save_component,
};
use fabric::models::unet::{UNet, UNetConfig};
use fabric::models::vae::{Vae, VaeConfig};
use serde_json::Value;

use super::harness::{device, folder};

/// All files with this extension under `path`, sorted.
fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let mut got = Vec::new();
    for entry in std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            got.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            got.push(path);
        }
    }
    got.sort();
    got
}

/// Returns the bits of a tensor's values as f32.
fn values(tensor: HostTensor) -> Vec<u32> {
    let data = tensor.into_data(LoadDtype::F32, true, "", "").expect("finite floats");
    data.try_to_vec::<f32>().expect("f32").into_iter().map(f32::to_bits).collect()
}

/// Loads a network strictly, saves it again, and compares every tensor of both files bit by bit.
fn round_trip<M: Module + PublishedNames>(network: M, folder: &ComponentFolder) -> usize {
    let place = folder.path().display();
    let weights = folder.weights().expect("weights");
    let (network, report) = load_into(network, &weights, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.is_complete() && report.ignored.is_empty(), "{report}");
    assert_eq!(report.applied.len(), weights.tensors().len(), "{place}: tensors fed");

    let saved = tempfile::tempdir().expect("a folder");
    let config: Value = folder.config().expect("settings");
    save_component(&network, saved.path(), &config, &SaveOptions::default()).expect("saves");
    let again = ComponentFolder::open(saved.path(), None).expect("opens");
    assert_eq!(again.weights_path().file_name(), folder.weights_path().file_name(), "{place}");
    assert_eq!(again.config::<Value>().expect("settings"), config, "{place}");
    let again = again.weights().expect("weights");
    assert!(again.tensors().keys().eq(weights.tensors().keys()), "{place}: names");
    for name in weights.tensors().keys() {
        let (before, after) = (weights.read(name).expect("read"), again.read(name).expect("read"));
        assert_eq!(before.info.shape, after.info.shape, "{place}: {name}");
        assert!(values(before) == values(after), "{place}: {name} has other values");
    }
    report.applied.len()
}

/// Detects the network of a folder, makes the round trip, and returns the number of loaded tensors.
fn load_folder(path: &Path) -> Result<usize, LoadError> {
    let folder = ComponentFolder::open(path, None)?;
    let config: Value = folder.config()?;
    let class = config["_class_name"].as_str().or_else(|| config["architectures"][0].as_str()).expect("a class");
    let json = config.to_string();
    let device = device();
    Ok(match class {
        "UNet2DConditionModel" => {
            let unet: UNet = UNetConfig::from_json(&json).expect("settings").init(&device).expect("a U-Net");
            round_trip(unet, &folder)
        }
        "AutoencoderKL" => {
            let vae: Vae = VaeConfig::from_json(&json).expect("settings").init(&device).expect("a VAE");
            round_trip(vae, &folder)
        }
        "CLIPTextModel" | "CLIPTextModelWithProjection" => {
            let clip: ClipText = ClipTextConfig::from_json(&json).expect("settings").init(&device).expect("an encoder");
            round_trip(clip, &folder)
        }
        "CLIPVisionModelWithProjection" => {
            let clip: ClipVision =
                ClipVisionConfig::from_json(&json).expect("settings").init(&device).expect("an encoder");
            round_trip(clip, &folder)
        }
        other => {
            assert_eq!(other, "ControlNetModel", "{}: an unknown kind of network", path.display());
            read_whole(folder.weights_path())
        }
    })
}

/// Reads every tensor of a file whose network this library does not have.
fn read_whole(path: &Path) -> usize {
    let file = SafetensorsFile::open(path).unwrap_or_else(|e| panic!("{e}"));
    for name in file.tensors().keys() {
        values(file.read(name).expect("read"));
    }
    file.tensors().len()
}

#[test]
fn every_model_file_is_read_whole_and_every_tensor_is_fed() {
    let models = folder().join("models");
    let weights = files(&models, "safetensors");
    assert!(!weights.is_empty(), "{}: no weights", models.display());
    let mut tensors = 0;
    for path in &weights {
        let parent = path.parent().expect("a folder");
        let count = if parent.join("config.json").is_file() {
            let folder = ComponentFolder::open(parent, None).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(folder.weights_path(), path, "a folder with two files of weights");
            load_folder(parent).unwrap_or_else(|e| panic!("{e}"))
        } else {
            read_whole(path)
        };
        assert!(count > 0, "{}: no tensors", path.display());
        tensors += count;
    }
    let line = format!("golden models     {tensors:>4} tensors of {} files, equal to the bit\n", weights.len());
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[test]
fn the_golden_model_folder_opens_with_all_its_parts() {
    let model = ModelFolder::open(folder().join("models")).unwrap_or_else(|e| panic!("{e}"));
    for component in model.family().components() {
        assert!(!model.weights(*component).expect("weights").tensors().is_empty(), "{component}");
    }
    assert!(model.component(Component::UNet).is_some());
    let scheduler: Value = model.scheduler_config().expect("settings");
    assert!(scheduler["_class_name"].is_string());
}
