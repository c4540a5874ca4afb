//! Models and adapters with 8-bit weights: they load, generate, and compute with the values in their files.

mod common;

use std::error::Error;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use common::{assert_again, distance};
use fabric::core::models::ImageEncoder;
use fabric::core::pipeline::{Request, Settings};
use fabric::ipadapter::{AdapterConfig, AdapterFile, IpAdapter, ProjectionConfig};
use fabric::models::clip::{ClipTextConfig, ClipVision, ClipVisionConfig};
use fabric::models::load::{
    Component, FolderWriter, LoadDtype, LoadOptions, ModelFolder, SafetensorsFile, SaveDtype, SaveOptions,
    TensorSource, load_into, save_component,
};
use fabric::models::unet::{UNet, UNetConfig};
use fabric::models::vae::VaeConfig;
use fabric::models::{ModelOptions, load_model};
use serde_json::{Value, json};

const F32: SaveOptions = SaveOptions { dtype: SaveDtype::F32, max_shard_bytes: None };
const INT8: SaveOptions = SaveOptions { dtype: SaveDtype::Int8, max_shard_bytes: None };

fn unet_config() -> UNetConfig {
    UNetConfig {
        block_out_channels: vec![32, 64, 64, 64],
        cross_attention_dim: 64.into(),
        sample_size: Some(8.into()),
        ..UNetConfig::sd15()
    }
}

/// `config.json` of the U-Net.
fn unet_json() -> Value {
    let mut config = serde_json::to_value(unet_config()).expect("a configuration");
    config["_class_name"] = "UNet2DConditionModel".into();
    config
}

/// Writes a small model, of which the U-Net and the image encoder have 8 bits.
fn write_model(folder: &Path, unet: &UNet, device: &Device) -> Result<(), Box<dyn Error>> {
    let text = ClipTextConfig {
        hidden_size: 64,
        intermediate_size: 128,
        projection_dim: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        ..ClipTextConfig::vit_l()
    };
    let vision = ClipVisionConfig {
        hidden_size: 64,
        intermediate_size: 128,
        projection_dim: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        image_size: 32,
        patch_size: 8,
        ..ClipVisionConfig::default()
    };
    let vae = VaeConfig { block_out_channels: vec![32; 4], ..VaeConfig::sd15() };
    let mut vae_json = serde_json::to_value(&vae)?;
    vae_json["_class_name"] = "AutoencoderKL".into();
    let mut writer = FolderWriter::create(folder, "StableDiffusionPipeline")?;
    writer.component(Component::TextEncoder, &text.init(device)?, &serde_json::to_value(&text)?, &F32)?;
    writer.component(Component::ImageEncoder, &vision.init(device)?, &serde_json::to_value(&vision)?, &INT8)?;
    writer.component(Component::Vae, &vae.init(device)?, &vae_json, &F32)?;
    writer.component(Component::UNet, unet, &unet_json(), &INT8)?;
    writer.scheduler(&json!({"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "timestep_spacing": "leading"}))?;
    Ok(writer.finish()?)
}

/// Generates an image with the model in a folder and returns its latents.
fn generate(folder: &Path, device: &Device) -> Vec<f32> {
    let (pipeline, _) = load_model(folder, device, &ModelOptions::default()).expect("a loaded model");
    // Guidance would multiply the differences of the random networks.
    let settings = Settings { width: Some(64), height: Some(64), steps: 2, guidance_scale: 1.0, ..Settings::default() };
    let made = pipeline.generate(&Request::new("a cat").with_seeds([1]).with_settings(settings)).expect("an image");
    made.latents.into_data().convert::<f32>().try_to_vec().expect("f32 data")
}

#[test]
fn a_model_with_8_bit_weights_generates_what_the_values_in_its_file_say() {
    let device = fabric::default_device().expect("a device");
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("model");
    let unet = unet_config().init(&device).expect("a U-Net");
    write_model(&folder, &unet, &device).expect("a written model");
    assert!(folder.join("unet/quanto_qmap.json").is_file() && folder.join("image_encoder/quanto_qmap.json").is_file());
    let file = folder.join("unet/diffusion_pytorch_model.safetensors");
    let bytes = || fs::metadata(&file).expect("a file").len();
    let int8_bytes = bytes();
    let int8 = generate(&folder, &device);
    assert!(int8.iter().all(|x| x.is_finite()));

    // The same U-Net as floats, first with its rounded weights, then with the original ones.
    let source = ModelFolder::open(&folder).expect("a model").weights(Component::UNet).expect("weights");
    let random = unet_config().init(&device).expect("a U-Net");
    let (rounded, report) = load_into(random, &*source, &LoadOptions::default()).expect("a loaded U-Net");
    assert!(report.is_complete() && report.ignored.is_empty(), "{report}");
    let replaced = |unet: &UNet| {
        save_component(unet, folder.join("unet"), &unet_json(), &F32).expect("saved");
        assert!(!folder.join("unet/quanto_qmap.json").exists(), "a map of 8-bit weights beside floats");
        generate(&folder, &device)
    };
    assert_again(&replaced(&rounded), &int8, "floats and integers of the same weights");
    assert!(int8_bytes * 5 < bytes() * 2, "{int8_bytes} bytes instead of {}", bytes());
    let exact = replaced(&unet);
    let largest = exact.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let apart = distance(&int8, &exact);
    assert!(apart > 0.0 && apart < 0.05 * largest, "{apart} of {largest}");
}

#[test]
fn an_image_encoder_with_8_bit_weights_encodes() {
    let device = fabric::default_device().expect("a device");
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("model");
    write_model(&folder, &unet_config().init(&device).expect("a U-Net"), &device).expect("a written model");
    let folder = folder.join("image_encoder");
    let stored = SafetensorsFile::open(folder.join("model.safetensors")).expect("a file");
    assert!(stored.tensors().contains_key("vision_model.embeddings.patch_embedding.weight._data"));
    let encoder = ClipVision::open(&folder, &device).expect("an image encoder");
    let embedded = encoder.embed(Tensor::ones([1, 3, 32, 32], &device));
    assert_eq!(embedded.dims(), [1, 32]);
    let values: Vec<f32> = embedded.into_data().convert::<f32>().try_to_vec().expect("f32 data");
    assert!(values.iter().all(|x| x.is_finite()));
}

#[test]
fn an_adapter_with_8_bit_weights_is_the_same_kind_with_rounded_weights() {
    let device = fabric::default_device().expect("a device");
    let place = tempfile::tempdir().expect("a folder");
    let projection = ProjectionConfig::Pooled { features: 64, tokens: 4 };
    let config = AdapterConfig { projection, widths: vec![32, 64], context: 64, lora_rank: None };
    let adapter = IpAdapter::new(config.clone(), config.init(&device)).expect("an adapter");
    let [exact, int8] = [("exact", SaveDtype::F32), ("int8", SaveDtype::Int8)].map(|(name, dtype)| {
        let path = place.path().join(format!("{name}.safetensors"));
        adapter.save(&path, dtype).expect("saved");
        path
    });
    let stored = SafetensorsFile::open(&int8).expect("a file");
    assert!(stored.tensors().contains_key("image_proj.proj.weight._scale"), "{:?}", stored.tensors().keys());
    let [exact, int8] = [exact, int8].map(|path| {
        IpAdapter::open(&path, &device).expect("an adapter");
        AdapterFile::open(path).expect("a file")
    });
    assert_eq!(int8.config().expect("an adapter"), config);
    assert!(int8.weights().tensors().keys().eq(exact.weights().tensors().keys()));
    for name in exact.weights().tensors().keys() {
        let [exact, int8] = [&exact, &int8].map(|file| {
            let data = file.weights().read(name).expect("a tensor").into_data(LoadDtype::F32, true, "", name);
            data.expect("finite floats").try_to_vec::<f32>().expect("f32")
        });
        // Half a level of the tensor's largest value; f16 is more exact.
        let most = exact.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())) / 254.0 * 1.001;
        assert!(distance(&exact, &int8) <= most, "{name}");
    }
}
