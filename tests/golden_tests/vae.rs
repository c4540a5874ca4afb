//! Golden file `vae`: encoder and decoder, and some of their parts.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use fabric::models::load::{LoadOptions, SafetensorsFile, load_into};
use fabric::models::vae::{Vae, VaeConfig};

use super::harness::{Golden, device, folder};

/// The VAE of the golden models.
pub(crate) fn load(device: &Device) -> Vae {
    let folder = folder().join("models/vae");
    let text = std::fs::read_to_string(folder.join("config.json")).expect("config.json");
    let config = VaeConfig::from_json(&text).expect("a good configuration");
    let file = SafetensorsFile::open(folder.join("diffusion_pytorch_model.safetensors")).expect("weights");
    load_into(config.init(device).expect("a network"), &file, &LoadOptions::default()).expect("loads").0
}

#[test]
fn vae_equals_the_reference() {
    let device = device();
    let vae = load(&device);
    let golden = Golden::open("vae");
    for case in golden.cases() {
        let key = |name: &str| format!("{case}/{name}");
        let mut parts: BTreeMap<String, Tensor<4>> = BTreeMap::new();
        let mut note = |name: &str, x: &Tensor<4>| {
            parts.insert(key(&name.replacen('.', "/", 1)), x.clone());
        };
        let encoded = vae.encode_traced(golden.tensor(&key("image"), &device), &mut note);
        golden.compare(&key("sample"), encoded.sample(golden.tensor(&key("noise"), &device)));
        golden.compare(&key("mean"), encoded.mean);
        golden.compare(&key("logvar"), encoded.logvar);
        let decoded = vae.decode_traced(golden.tensor(&key("z"), &device), &mut note);
        golden.compare(&key("decoded"), decoded);
        for part in golden.keys() {
            if part.starts_with(&key("encoder/")) || part.starts_with(&key("decoder/")) {
                let got = parts.remove(&part).unwrap_or_else(|| panic!("the VAE shows no {part}"));
                golden.compare(&part, got);
            }
        }
    }
    golden.finish();
}
