//! The golden folder's networks, loaded through the public API.

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};
use fabric::core::pipeline::Pipeline;
use fabric::models::load::{LoadDtype, LoadOptions, SafetensorsFile, TensorSource, load_into};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::{UNet, UNetConfig};
use fabric::models::vae::{Vae, VaeConfig};
use fabric::models::{ModelOptions, load_model};

use super::harness::{device, folder};

/// The U-Net alone.
pub(crate) fn unet() -> UNet {
    unet_in(&folder())
}

/// The U-Net of this golden folder.
pub(crate) fn unet_in(folder: &Path) -> UNet {
    let path = folder.join("models/unet");
    let text = std::fs::read_to_string(path.join("config.json")).expect("config.json");
    let config = UNetConfig::from_json(&text).expect("a configuration");
    let file = SafetensorsFile::open(path.join("diffusion_pytorch_model.safetensors")).expect("weights");
    let options = LoadOptions::default().with_dtype(LoadDtype::F32);
    load_into(config.init(&device()).expect("a U-Net"), &file, &options).expect("a loaded U-Net").0
}

/// One tensor of the U-Net's file.
pub(crate) fn unet_weight<const D: usize>(name: &str, device: &Device) -> Tensor<D> {
    let file =
        SafetensorsFile::open(folder().join("models/unet/diffusion_pytorch_model.safetensors")).expect("weights");
    let tensor = file.read(name).unwrap_or_else(|e| panic!("{e}"));
    let values: Vec<f32> = tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Tensor::from_data(TensorData::new(values, tensor.info.shape.clone()), device)
}

/// The VAE alone.
pub(crate) fn vae() -> &'static Vae {
    static VAE: OnceLock<Vae> = OnceLock::new();
    VAE.get_or_init(|| vae_in(&folder()))
}

/// The VAE of this golden folder.
pub(crate) fn vae_in(folder: &Path) -> Vae {
    let path = folder.join("models/vae");
    let text = std::fs::read_to_string(path.join("config.json")).expect("config.json");
    let config = VaeConfig::from_json(&text).expect("a configuration");
    let file = SafetensorsFile::open(path.join("diffusion_pytorch_model.safetensors")).expect("weights");
    load_into(config.init(&device()).expect("a VAE"), &file, &LoadOptions::default()).expect("a loaded VAE").0
}

/// The whole folder as a pipeline. The folder has no vocabulary, so Stable Diffusion's is used.
pub(crate) fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
        load_model(folder().join("models"), &device(), &options).expect("a pipeline").0
    })
}
