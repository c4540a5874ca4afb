//! Fixture `tiny_autoencoder` (`tests/fixtures/make_tiny_autoencoder.py`): tiny autoencoders of diffusers and of TAESD's
//! author, each from files in its own layout.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use fabric::core::models::{Autoencoder, Posterior};
use fabric::models::load::{Dtype, HostTensor, LoadOptions, TensorInfo, write_safetensors};
use fabric::models::tiny_vae::{TinyAutoencoder, TinyAutoencoderFiles};

use super::harness::{Golden, device, fixtures};

/// Writes the fixture's tensors under a prefix to a file of weights.
fn write(golden: &Golden, prefix: &str, path: &Path) {
    let mut tensors: Vec<(String, TensorInfo)> = Vec::new();
    let mut values: BTreeMap<String, HostTensor> = BTreeMap::new();
    for key in golden.keys() {
        let Some(name) = key.strip_prefix(prefix) else { continue };
        let info = TensorInfo { dtype: Dtype::F32, shape: golden.shape(&key) };
        let bytes = golden.values(&key).into_iter().flat_map(|value| (value as f32).to_le_bytes()).collect();
        tensors.push((name.to_owned(), info.clone()));
        values.insert(name.to_owned(), HostTensor { info, bytes });
    }
    write_safetensors(path, &BTreeMap::new(), &tensors, |name| Ok(values[name].clone())).expect("a written file");
}

fn compare(golden: &Golden, name: &str, network: &TinyAutoencoder, device: &Device) {
    let key = |part: &str| format!("{name}/{part}");
    let encoded = network.encode(golden.tensor(&key("pixels"), device), Posterior::Mean);
    golden.compare(&key("encoded"), encoded);
    golden.compare(&key("decoded"), network.decode(golden.tensor(&key("latents"), device)));
}

#[test]
fn tiny_autoencoders_equal_the_published_code() {
    let (golden, device) = (Golden::fixture("tiny_autoencoder"), device());
    let place = tempfile::tempdir().expect("a folder");
    let load = |path: &Path| {
        let files = TinyAutoencoderFiles::open(path).unwrap_or_else(|error| panic!("{error}"));
        files.load(&device, &LoadOptions::default()).unwrap_or_else(|error| panic!("{error}")).0
    };
    let text = std::fs::read_to_string(fixtures().join("tiny_autoencoder.json")).expect("settings");
    let configs: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (name, config) in configs.as_object().expect("configurations") {
        let folder = place.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("config.json"), config.to_string()).expect("a configuration");
        write(&golden, &format!("{name}/weights/"), &folder.join("diffusion_pytorch_model.safetensors"));
        compare(&golden, name, &load(&folder), &device);
    }
    for part in ["encoder", "decoder"] {
        let path = place.path().join(format!("taesd_{part}.safetensors"));
        write(&golden, &format!("author/{part}/"), &path);
    }
    compare(&golden, "author", &load(&place.path().join("taesd_decoder.safetensors")), &device);
    golden.finish();
}
