//! Tests with the names, shapes and sizes of every published file.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Device;
use fabric_core::attention::{AttnKind, AttnSite, Block};
use fabric_core::models::{CrossAttention, UNetModel};
use fabric_models::load::{Dtype, HostTensor, LoadError, TensorInfo, TensorSource, parameters};
use fabric_models::unet::UNetConfig;

use super::*;
use crate::AdapterError;
use crate::projection::ResamplerConfig;

/// Tensor source with names and shapes; all values are 0.
#[derive(Debug)]
struct Listing(BTreeMap<String, TensorInfo>);

impl TensorSource for Listing {
    fn place(&self) -> String {
        "listing.safetensors".to_owned()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.0
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let info = self.0[name].clone();
        Ok(HostTensor { bytes: vec![0; info.bytes()], info })
    }
}

impl Listing {
    fn of(config: &AdapterConfig) -> Self {
        let listed = parameters(&config.init(&device())).into_iter();
        Self(listed.map(|one| (one.name, TensorInfo { dtype: Dtype::F16, shape: one.shape })).collect())
    }
}

fn device() -> Device {
    fabric_backends::default_device().expect("a device")
}

fn sd15(projection: ProjectionConfig) -> AdapterConfig {
    let widths = [[320; 2].as_slice(), &[640; 2], &[1280; 2], &[1280; 3], &[640; 3], &[320; 3], &[1280]].concat();
    AdapterConfig { projection, widths, context: 768, lora_rank: None }
}

fn sdxl(projection: ProjectionConfig) -> AdapterConfig {
    let widths = [[640; 4].as_slice(), &[1280; 20], &[1280; 30], &[640; 6], &[1280; 10]].concat();
    AdapterConfig { projection, widths, context: 2048, lora_rank: None }
}

fn resampler(features: usize, channels: usize, context: usize) -> ResamplerConfig {
    ResamplerConfig { features, channels, heads: channels / 64, depth: 4, factor: 4, tokens: 16, context }
}

fn face_resampler() -> ProjectionConfig {
    ProjectionConfig::FaceResampler { identity: 512, features: 1280, tokens: 4, version: FaceVersion::V1 }
}

/// Expected configuration of each published file.
fn published() -> Vec<(&'static str, AdapterConfig)> {
    use ProjectionConfig::{Face, Instruct, Pooled, Resampler, Tokens};
    let pooled = |features| Pooled { features, tokens: 4 };
    let face = |tokens| Face { identity: 512, tokens };
    let [plus, large_plus] = [resampler(1280, 768, 768), resampler(1280, 1280, 2048)];
    let with_lora = |config| AdapterConfig { lora_rank: Some(128), ..config };
    vec![
        ("ip-adapter_sd15", sd15(pooled(1024))),
        ("ip-adapter_sd15_light", sd15(pooled(1024))),
        ("ip-adapter_sd15_light_v11", sd15(pooled(1024))),
        ("ip-adapter_sd15_vit-G", sd15(pooled(1280))),
        ("ip-adapter-plus_sd15", sd15(Resampler(plus))),
        ("ip-adapter-plus-face_sd15", sd15(Resampler(plus))),
        ("ip_plus_composition_sd15", sd15(Resampler(plus))),
        ("ip-adapter-full-face_sd15", sd15(Tokens { features: 1280 })),
        ("ip-adapter_sdxl", sdxl(pooled(1280))),
        ("ip-adapter_sdxl_vit-h", sdxl(pooled(1024))),
        ("ip-adapter-plus_sdxl_vit-h", sdxl(Resampler(large_plus))),
        ("ip-adapter-plus-face_sdxl_vit-h", sdxl(Resampler(large_plus))),
        ("ip-adapter-faceid_sd15", with_lora(sd15(face(4)))),
        ("ip-adapter-faceid-plus_sd15", with_lora(sd15(face_resampler()))),
        ("ip-adapter-faceid-plusv2_sd15", with_lora(sd15(face_resampler()))),
        ("ip-adapter-faceid_sdxl", with_lora(sdxl(face(4)))),
        ("ip-adapter-faceid-plusv2_sdxl", with_lora(sdxl(face_resampler()))),
        ("ip-adapter-faceid-portrait_sd15", sd15(face(16))),
        ("ip-adapter-faceid-portrait-v11_sd15", sd15(face(16))),
        ("ip-adapter-faceid-portrait_sdxl", sdxl(face(16))),
        ("ip-adapter-faceid-portrait_sdxl_unnorm", sdxl(Resampler(resampler(512, 1280, 2048)))),
        ("ip-adapter-instruct-sd15", sd15(Instruct { resampler: plus, text: 768 })),
        ("ip-adapter-instruct-sdxl", sdxl(Instruct { resampler: large_plus, text: 768 })),
    ]
}

/// Names and shapes of the published files, extracted with the authors' own code
/// (`tests/fixtures/make_published.py`). Each file has several parts.
#[derive(serde::Deserialize)]
struct Published {
    files: BTreeMap<String, Vec<String>>,
    parts: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
}

impl Published {
    fn read() -> Self {
        serde_json::from_str(include_str!("published.json")).expect("names and shapes")
    }

    fn file(&self, name: &str) -> Listing {
        let tensors = self.files[name].iter().flat_map(|part| &self.parts[part]);
        let info = |shape: &Vec<usize>| TensorInfo { dtype: Dtype::F16, shape: shape.clone() };
        Listing(tensors.map(|(name, shape)| (name.clone(), info(shape))).collect())
    }
}

#[test]
fn every_name_and_shape_of_every_published_file_is_read() {
    let listed = Published::read();
    let configs = published();
    assert_eq!(configs.len(), listed.files.len());
    for (name, config) in configs {
        let all = listed.file(name);
        let file = AdapterFile::new(Arc::new(listed.file(name))).expect("names");
        assert_eq!(file.config().unwrap_or_else(|error| panic!("{name}: {error}")), config, "{name}");
        let own = Listing::of(&config).0;
        assert_eq!(*file.weights().tensors(), own, "{name}");
        assert!(all.0.keys().all(|got| own.contains_key(got) || got.contains("_lora.")), "{name}");
    }
}

#[test]
fn counts_are_those_of_the_downloads() {
    // From the sizes of the files and the counts that users report.
    let counts = [
        ("ip-adapter_sd15", 36, 22_319_616),
        ("ip-adapter_sd15_vit-G", 36, 23_106_048),
        ("ip-adapter-plus_sd15", 83, 49_087_488),
        ("ip-adapter-full-face_sd15", 38, 21_794_304),
        ("ip-adapter_sdxl", 144, 351_285_248),
        ("ip-adapter_sdxl_vit-h", 144, 349_188_096),
        ("ip-adapter-plus_sdxl_vit-h", 191, 423_748_864),
        ("ip-adapter-faceid_sd15", 294, 48_354_816),
        ("ip-adapter-faceid-plusv2_sd15", 344, 78_260_736),
        ("ip-adapter-faceid_sdxl", 1266, 535_507_968),
        ("ip-adapter-faceid-plusv2_sdxl", 1316, 743_707_648),
        ("ip-adapter-faceid-portrait_sd15", 38, 32_291_328),
        ("ip-adapter-faceid-portrait_sdxl", 146, 374_903_808),
        ("ip-adapter-faceid-portrait_sdxl_unnorm", 191, 422_765_824),
        ("ip-adapter-instruct-sd15", 175, 88_054_272),
        ("ip-adapter-instruct-sdxl", 283, 530_636_544),
    ];
    let listed = Published::read();
    for (name, tensors, numbers) in counts {
        let file = listed.file(name).0;
        let sum: usize = file.values().map(|info| info.shape.iter().product::<usize>()).sum();
        assert_eq!((file.len(), sum), (tensors, numbers), "{name}");
    }
}

#[test]
fn the_lora_of_faceid_has_a_place_for_each_of_its_matrices() {
    let listed = Published::read();
    let unet = UNetConfig::sd15().init(&device()).expect("a network");
    let file = AdapterFile::new(Arc::new(listed.file("ip-adapter-faceid_sd15"))).expect("names");
    let lora = file.lora(&unet.cross_attentions()).expect("matrices").expect("a LoRA");
    let shapes: BTreeMap<String, Vec<usize>> =
        parameters(&unet).into_iter().map(|parameter| (parameter.name, parameter.shape)).collect();
    // Queries, keys, values and outputs of two attentions in each of 16 layers.
    assert_eq!(lora.changes().len(), 128);
    for (target, shape) in lora.changes() {
        assert_eq!(shapes[&format!("{target}.weight")], shape, "{target}");
    }
}

#[test]
fn a_projection_for_other_layers_is_refused() {
    for projection in [
        ProjectionConfig::Resampler(resampler(1280, 768, 2048)),
        ProjectionConfig::Instruct { resampler: resampler(1280, 768, 2048), text: 768 },
    ] {
        let message = AdapterConfig::detect(&Listing::of(&sd15(projection))).expect_err("2048 are not 768").to_string();
        assert!(
            message.contains("`image_proj.proj_out.weight`: expected 768,") && message.contains("got 2048;"),
            "{message}"
        );
    }
}

#[test]
fn what_is_no_adapter_is_refused_with_a_reason() {
    let whole = || Listing::of(&sd15(ProjectionConfig::Pooled { features: 1024, tokens: 4 })).0;
    type Damage = fn(&mut BTreeMap<String, TensorInfo>);
    let damages: [(&str, Damage); 6] = [
        ("names of tensors: expected .. got none", |tensors| tensors.clear()),
        ("numbers of layers: expected number 1: .. got number 3", |tensors| {
            tensors.retain(|name, _| !name.starts_with("ip_adapter.1."));
        }),
        ("tensor `ip_adapter.5.to_v_ip.weight`: expected .. got none", |tensors| {
            tensors.remove("ip_adapter.5.to_v_ip.weight");
        }),
        ("shape of tensor `ip_adapter.5.to_v_ip.weight`: expected [640, 768], got [768, 640]", |tensors| {
            tensors.get_mut("ip_adapter.5.to_v_ip.weight").expect("a layer").shape.reverse();
        }),
        ("the projection: expected .. got image_proj.norm.bias", |tensors| {
            tensors.retain(|name, _| !name.contains("proj.proj") && !name.contains("norm.weight"));
        }),
        ("outputs of the projection: expected a multiple of 768, .. got 3071", |tensors| {
            tensors.get_mut("image_proj.proj.weight").expect("a projection").shape[0] = 3071;
        }),
    ];
    for (reason, damage) in damages {
        let mut tensors = whole();
        damage(&mut tensors);
        let error = AdapterConfig::detect(&Listing(tensors)).expect_err(reason);
        assert!(matches!(error, AdapterError::NotAnAdapter { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.starts_with("listing.safetensors: ") && reason.split(" .. ").all(|part| message.contains(part)),
            "{message}"
        );
    }
}

#[test]
fn names_of_training_checkpoints_become_the_published_ones() {
    let published = Listing::of(&sd15(ProjectionConfig::Pooled { features: 1024, tokens: 4 })).0;
    let trained =
        |name: &str| name.replace("image_proj.", "image_proj_model.").replace("ip_adapter.", "adapter_modules.");
    let mut checkpoint: BTreeMap<_, _> = published.iter().map(|(name, info)| (trained(name), info.clone())).collect();
    checkpoint.insert("unet.conv_in.weight".to_owned(), TensorInfo { dtype: Dtype::F32, shape: vec![320, 4, 3, 3] });
    let checkpoint = Arc::new(Listing(checkpoint));
    assert!(AdapterFile::recognizes(&checkpoint) && AdapterFile::recognizes(&Listing(published.clone())));
    let file = AdapterFile::new(checkpoint).expect("names");
    assert_eq!(*file.weights().tensors(), published);
    assert_eq!(*file.tensors().tensors(), published);
    assert_eq!(file.ignored(), ["unet.conv_in.weight"]);
    assert!(file.lora(&[]).expect("none").is_none());
    let unet = BTreeMap::from([("unet.conv_in.weight".to_owned(), TensorInfo { dtype: Dtype::F32, shape: vec![1] })]);
    assert!(!AdapterFile::recognizes(&Listing(unet)));
}

#[test]
fn layers_that_a_checkpoint_has_within_its_u_net_are_numbered() {
    // Shared tensors are saved only once, here within the U-Net.
    let layer = |path: &str, width: usize| {
        let name = format!("unet.{path}.attentions.0.transformer_blocks.0.attn2.processor");
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![width, 768] };
        ["to_k_ip", "to_v_ip"].map(|half| (format!("{name}.{half}.weight"), info.clone()))
    };
    let mut tensors: BTreeMap<String, TensorInfo> =
        [layer("mid_block", 1280), layer("up_blocks.10", 640), layer("up_blocks.2", 960), layer("down_blocks.0", 320)]
            .into_iter()
            .flatten()
            .collect();
    let projection = Listing::of(&sd15(ProjectionConfig::Pooled { features: 1024, tokens: 4 })).0;
    for (name, info) in projection.into_iter().filter(|(name, _)| name.starts_with("image_proj.")) {
        tensors.insert(name.replace("image_proj.", "image_proj_model."), info);
    }
    tensors.insert("unet.conv_in.weight".to_owned(), TensorInfo { dtype: Dtype::F32, shape: vec![320, 4, 3, 3] });
    let config = AdapterFile::new(Arc::new(Listing(tensors))).expect("names").config().expect("an adapter");
    assert_eq!(config.widths, [320, 960, 640, 1280]);
}

#[test]
fn the_lora_of_faceid_belongs_to_the_u_net() {
    let mut tensors = Listing::of(&sd15(ProjectionConfig::Face { identity: 512, tokens: 4 })).0;
    let own = tensors.clone();
    for (number, part, shape) in [(0, "down", [128, 320]), (0, "up", [320, 128])] {
        let name = format!("ip_adapter.{number}.to_q_lora.{part}.weight");
        tensors.insert(name, TensorInfo { dtype: Dtype::F16, shape: shape.to_vec() });
    }
    let file = AdapterFile::new(Arc::new(Listing(tensors.clone()))).expect("names");
    assert_eq!(file.config().expect("an adapter").lora_rank, Some(128));
    assert_eq!(*file.weights().tensors(), own);
    assert_eq!(*file.tensors().tensors(), tensors);
    let layer = |block| {
        let site = AttnSite { block, attention: 0, layer: 0, kind: AttnKind::CrossAttention };
        CrossAttention { site, channels: 320, context: 768 }
    };
    let lora = file.lora(&[layer(Block::Mid), layer(Block::Down(0))]).expect("matrices").expect("a LoRA");
    let targets: Vec<&str> = lora.changes().map(|(target, _)| target).collect();
    assert_eq!(targets, ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"]);
    let message = file.lora(&[]).expect_err("no layers").to_string();
    assert!(message.contains("ip_adapter.0.to_q_lora"), "{message}");
}
