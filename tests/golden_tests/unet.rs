//! Golden file `unet`: single evaluations, the output of every block, the time embedding.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use fabric::core::models::{UNetInput, UNetModel};
use fabric::models::load::{LoadOptions, SafetensorsFile, load_into};
use fabric::models::unet::{UNet, UNetConfig, timestep_embedding};

use super::harness::{Golden, device, folder};

/// Loads the U-Net in a folder of the golden models, strictly.
pub(crate) fn load(path: &str, device: &Device) -> (UNetConfig, UNet) {
    let folder = folder().join("models").join(path);
    let text = std::fs::read_to_string(folder.join("config.json")).expect("config.json");
    let config = UNetConfig::from_json(&text).expect("a good configuration");
    let file = SafetensorsFile::open(folder.join("diffusion_pytorch_model.safetensors")).expect("weights");
    let (unet, _) = load_into(config.init(device).expect("a network"), &file, &LoadOptions::default()).expect("loads");
    (config, unet)
}

/// Evaluates the U-Net once and compares every block that the golden file has under `prefix`.
pub(crate) fn compare_blocks(golden: &Golden, prefix: &str, unet: &UNet, input: UNetInput<'_>) -> Tensor<4> {
    let mut blocks = BTreeMap::new();
    let output = unet.forward_traced(input, &mut |name, x| {
        blocks.insert(name.to_owned(), x.clone());
    });
    for key in golden.keys() {
        let Some(name) = key.strip_prefix(prefix) else { continue };
        let got = blocks.remove(name).unwrap_or_else(|| panic!("{key}: the U-Net shows no `{name}`"));
        match golden.shape(&key)[..] {
            [rows, channels] => golden.compare(&key, got.reshape([rows, channels])),
            _ => golden.compare(&key, got),
        }
    }
    output.sample.expect("a prediction")
}

#[test]
fn unet_passes_equal_the_reference() {
    let device = device();
    let (config, unet) = load("unet", &device);
    let golden = Golden::open("unet");
    for case in golden.cases() {
        if case == "time_proj" {
            let timesteps = golden.values("time_proj/t");
            let dim = golden.shape("time_proj/out")[1];
            let got = timestep_embedding(&timesteps, dim, config.flip_sin_to_cos, config.freq_shift, &device);
            golden.compare("time_proj/out", got);
            continue;
        }
        let key = |name: &str| format!("{case}/{name}");
        let timesteps = golden.values(&key("timestep"));
        let sample = golden.tensor(&key("sample"), &device);
        let context = golden.tensor(&key("context"), &device);
        let input = || UNetInput::new(sample.clone(), &timesteps, context.clone());
        golden.compare(&key("out"), unet.forward(input()).sample.expect("a prediction"));
        compare_blocks(&golden, &key("block/"), &unet, input());
    }
    golden.finish();
}
