//! Models: other layouts and types, and LoRAs.

use burn::module::Module;
use fabric::models::LoraChoice;
use fabric::models::clip::ClipTextConfig;
use fabric::models::load::{ModelFolder, PublishedNames, save_weights};
use fabric::models::unet::UNetConfig;
use fabric::models::vae::VaeConfig;

use super::*;

/// The weights of a network by published name.
fn weights<M: Module + PublishedNames>(network: &M) -> BTreeMap<String, HostTensor> {
    let place = Place::new();
    let path = place.named("a.safetensors");
    save_weights(network, &path, LoadDtype::Keep).expect("a written file");
    tensors(path)
}

/// Writes a small checkpoint file of Stable Diffusion 1 with random weights.
///
/// Names that the original code does not have are read as they are. So only those of the U-Net's first layers, by which
/// a checkpoint is recognized, are original here.
fn write_checkpoint(path: &str) {
    let originals = [
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_in.", "input_blocks.0.0."),
        ("down_blocks.0.resnets.0.norm1.", "input_blocks.1.0.in_layers.0."),
        ("down_blocks.0.resnets.0.conv1.", "input_blocks.1.0.in_layers.2."),
        ("down_blocks.0.resnets.0.time_emb_proj.", "input_blocks.1.0.emb_layers.1."),
        ("down_blocks.0.resnets.0.norm2.", "input_blocks.1.0.out_layers.0."),
        ("down_blocks.0.resnets.0.conv2.", "input_blocks.1.0.out_layers.3."),
    ];
    let original = |name: &str| {
        let renamed = originals.iter().find_map(|(new, old)| Some(format!("{old}{}", name.strip_prefix(new)?)));
        renamed.unwrap_or_else(|| name.to_owned())
    };
    let device = fabric::default_device().expect("a device");
    let unet =
        UNetConfig { block_out_channels: vec![32, 64, 64, 64], cross_attention_dim: 64.into(), ..UNetConfig::sd15() };
    let vae = VaeConfig { block_out_channels: vec![32; 4], ..VaeConfig::sd15() };
    let text = ClipTextConfig {
        hidden_size: 64,
        intermediate_size: 128,
        projection_dim: 64,
        num_hidden_layers: 2,
        num_attention_heads: 1,
        ..ClipTextConfig::vit_l()
    };
    let unet = weights(&unet.init(&device).expect("a U-Net")).into_iter();
    let vae = weights(&vae.init(&device).expect("a VAE")).into_iter();
    let text = weights(&text.init(&device).expect("a text encoder")).into_iter();
    let unet = unet.map(|(name, tensor)| (format!("model.diffusion_model.{}", original(&name)), tensor));
    let vae = vae.map(|(name, tensor)| (format!("first_stage_model.{name}"), tensor));
    let text = text.map(|(name, tensor)| (format!("cond_stage_model.transformer.{name}"), tensor));
    let mut all: BTreeMap<String, HostTensor> = unet.chain(vae).chain(text).collect();
    let scalar = TensorInfo { dtype: Dtype::F32, shape: Vec::new() };
    all.insert("model_ema.decay".to_owned(), HostTensor { info: scalar, bytes: 1_f32.to_le_bytes().to_vec() });
    write(path, &[], &all);
}

#[test]
fn a_checkpoint_file_becomes_a_folder_that_makes_the_same_image() {
    let place = Place::new();
    let [file, out] = ["a.safetensors", "out"].map(|name| place.named(name));
    write_checkpoint(&file);
    let report = call(&["model", &file, &out]).expect("a folder");
    assert_eq!(report.unused, ["model_ema.decay"]);
    assert_eq!(report.bytes_before, fs::metadata(&file).expect("a file").len());
    let options = ModelOptions::default();
    assert!(image(&out, &options) == image(&file, &options), "another image");
    let said = report.to_string();
    assert!(said.contains("read unet of Stable Diffusion 1: ") && said.contains("model_ema.decay"), "{said}");
}

#[test]
fn a_model_in_another_type_has_the_weights_that_loading_in_that_type_gives() {
    let place = Place::new();
    let mut sizes = Vec::new();
    for (dtype, loaded) in [("f32", LoadDtype::F32), ("bf16", LoadDtype::BF16), ("f16", LoadDtype::F16)] {
        let out = place.named(dtype);
        let report = call(&["model", MODEL, &out, "--dtype", dtype]).expect("a folder");
        assert!(report.written && report.files.iter().all(|file| file.path.is_file()), "{dtype}");
        assert_eq!(report.unused, ["controlnet", "ip_adapter", "lora", "sdxl"]);
        let options = ModelOptions { dtype: loaded, ..ModelOptions::default() };
        assert!(image(&out, &options) == image(MODEL, &options), "{dtype}: another image");
        sizes.push(report.bytes_after());
    }
    let out = place.named("int8");
    sizes.push(call(&["model", MODEL, &out, "--dtype", "int8"]).expect("a folder").bytes_after());
    // The header of a file says `BF16` or `F16` for each tensor.
    assert!(sizes[0] > sizes[1] && sizes[1] >= sizes[2] && sizes[2] > sizes[3], "{sizes:?}");
    let eight = image(&out, &ModelOptions::default());
    // Without a type, the rounded weights become floats of the same values.
    let floats = place.named("floats");
    call(&["model", &out, &floats]).expect("a folder");
    assert!(image(&floats, &ModelOptions::default()) == eight, "other weights than those with 8 bits");
}

#[test]
fn loras_are_merged_at_their_scales() {
    let place = Place::new();
    let out = place.named("out");
    let path = format!("{MODEL}/lora/kohya.safetensors");
    let scaled = format!("{path}:0.8");
    let report = call(&["model", MODEL, &out, "--dtype", "f32", "--lora", &scaled]).expect("a folder");
    let said = report.to_string();
    assert!(said.contains("77 weights of the unet at scale 0.8"), "{said}");
    let loras = vec![LoraChoice { path: path.into(), scale: 0.8 }];
    let merged = image(MODEL, &ModelOptions { loras, ..ModelOptions::default() });
    assert!(image(&out, &ModelOptions::default()) == merged);
    assert!(image(MODEL, &ModelOptions::default()) != merged, "the LoRA has no effect");
}

#[test]
fn a_prediction_type_that_is_given_is_written() {
    let place = Place::new();
    let out = place.named("out");
    call(&["model", MODEL, &out, "--prediction", "v_prediction"]).expect("a folder");
    let scheduler: serde_json::Value = ModelFolder::open(&out).expect("a model").scheduler_config().expect("settings");
    assert_eq!(scheduler["prediction_type"], "v_prediction");
}
