//! Every published file: its names and shapes, told again from themselves, and its size.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Device;
use fabric_core::attention::{AttnKind, AttnSite, Block};
use fabric_core::models::CrossAttention;
use fabric_models::layers::count_parameters;
use fabric_models::load::{Dtype, HostTensor, LoadError, TensorInfo, TensorSource, parameters};

use super::*;
use crate::AdapterError;
use crate::projection::ResamplerConfig;

/// Names and shapes; all values are 0.
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

fn face_resampler(version: FaceVersion) -> ProjectionConfig {
    ProjectionConfig::FaceResampler { identity: 512, features: 1280, tokens: 4, version }
}

/// Published files with their tensors and parameters; FaceID without its LoRA.
fn published() -> Vec<(&'static str, AdapterConfig, usize, usize)> {
    use ProjectionConfig::{Face, Instruct, Pooled, Resampler, Tokens};
    let pooled = |features| Pooled { features, tokens: 4 };
    let face = |tokens| Face { identity: 512, tokens };
    vec![
        ("ip-adapter_sd15", sd15(pooled(1024)), 36, 22_319_616),
        ("ip-adapter_sd15_vit-G", sd15(pooled(1280)), 36, 23_106_048),
        ("ip-adapter-plus_sd15", sd15(Resampler(resampler(1280, 768, 768))), 83, 49_087_488),
        ("ip-adapter-full-face_sd15", sd15(Tokens { features: 1280 }), 38, 21_794_304),
        ("ip-adapter_sdxl", sdxl(pooled(1280)), 144, 351_285_248),
        ("ip-adapter_sdxl_vit-h", sdxl(pooled(1024)), 144, 349_188_096),
        ("ip-adapter-plus_sdxl_vit-h", sdxl(Resampler(resampler(1280, 1280, 2048))), 191, 423_748_864),
        ("ip-adapter-faceid_sd15", sd15(face(4)), 38, 48_354_816 - 25_509_888),
        ("ip-adapter-faceid-plus_sd15", sd15(face_resampler(FaceVersion::V1)), 88, 78_260_736 - 25_509_888),
        ("ip-adapter-faceid_sdxl", sdxl(face(4)), 146, 535_507_968 - 185_794_560),
        ("ip-adapter-faceid-plusv2_sdxl", sdxl(face_resampler(FaceVersion::V1)), 196, 743_707_648 - 185_794_560),
        ("ip-adapter-faceid-portrait_sd15", sd15(face(16)), 38, 32_291_328),
        ("ip-adapter-faceid-portrait_sdxl", sdxl(face(16)), 146, 374_903_808),
        ("ip-adapter-faceid-portrait_sdxl_unnorm", sdxl(Resampler(resampler(512, 1280, 2048))), 191, 422_765_824),
        (
            "ip-adapter-instruct-sd15",
            sd15(Instruct { resampler: resampler(1280, 768, 768), text: 768 }),
            175,
            88_054_272,
        ),
        (
            "ip-adapter-instruct-sdxl",
            sdxl(Instruct { resampler: resampler(1280, 1280, 2048), text: 768 }),
            283,
            530_636_544,
        ),
    ]
}

#[test]
fn published_files_have_their_sizes_and_tell_what_they_are() {
    for (name, config, tensors, numbers) in published() {
        let count = count_parameters(&config.init(&device()));
        assert_eq!((count.tensors, count.parameters), (tensors, numbers), "{name}");
        let found = AdapterConfig::detect(&Listing::of(&config)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found, config, "{name}");
    }
}

#[test]
fn names_are_those_of_the_files() {
    let names = |config| -> Vec<String> { Listing::of(&config).0.into_keys().collect() };
    let plus = names(sd15(ProjectionConfig::Resampler(resampler(1280, 768, 768))));
    for name in [
        "image_proj.latents",
        "image_proj.proj_in.weight",
        "image_proj.norm_out.bias",
        "image_proj.layers.3.0.norm1.weight",
        "image_proj.layers.3.0.to_kv.weight",
        "image_proj.layers.3.1.0.bias",
        "image_proj.layers.3.1.1.weight",
        "image_proj.layers.3.1.3.weight",
        "ip_adapter.31.to_k_ip.weight",
    ] {
        assert!(plus.iter().any(|found| found == name), "{name} is not among {plus:?}");
    }
    let face = names(sd15(face_resampler(FaceVersion::V1)));
    for name in ["image_proj.proj.0.weight", "image_proj.proj.2.bias", "image_proj.norm.weight"] {
        assert!(face.iter().any(|found| found == name), "{name} is not among {face:?}");
    }
    assert!(face.iter().any(|found| found == "image_proj.perceiver_resampler.layers.0.1.1.weight"), "{face:?}");
}

#[test]
fn a_projection_for_other_layers_is_refused() {
    for projection in [
        ProjectionConfig::Resampler(resampler(1280, 768, 2048)),
        ProjectionConfig::Instruct { resampler: resampler(1280, 768, 2048), text: 768 },
    ] {
        let message = AdapterConfig::detect(&Listing::of(&sd15(projection))).expect_err("2048 are not 768").to_string();
        assert!(message.contains("`image_proj.proj_out.weight`: found 2048, wanted 768"), "{message}");
    }
}

#[test]
fn what_is_no_adapter_is_refused_with_a_reason() {
    let whole = || Listing::of(&sd15(ProjectionConfig::Pooled { features: 1024, tokens: 4 })).0;
    type Damage = fn(&mut BTreeMap<String, TensorInfo>);
    let damages: [(&str, Damage); 6] = [
        ("names of tensors: found , wanted", |tensors| tensors.clear()),
        ("numbers of layers: found number 3, wanted number 1", |tensors| {
            tensors.retain(|name, _| !name.starts_with("ip_adapter.1."));
        }),
        ("tensor `ip_adapter.5.to_v_ip.weight`: found none", |tensors| {
            tensors.remove("ip_adapter.5.to_v_ip.weight");
        }),
        ("shape of tensor `ip_adapter.5.to_v_ip.weight`: found [768, 640], wanted [640, 768]", |tensors| {
            tensors.get_mut("ip_adapter.5.to_v_ip.weight").expect("a layer").shape.reverse();
        }),
        ("the projection: found image_proj.norm.bias", |tensors| {
            tensors.retain(|name, _| !name.contains("proj.proj") && !name.contains("norm.weight"));
        }),
        ("outputs of the projection: found 3071, wanted a multiple of 768", |tensors| {
            tensors.get_mut("image_proj.proj.weight").expect("a projection").shape[0] = 3071;
        }),
    ];
    for (reason, damage) in damages {
        let mut tensors = whole();
        damage(&mut tensors);
        let error = AdapterConfig::detect(&Listing(tensors)).expect_err(reason);
        assert!(matches!(error, AdapterError::NotAnAdapter { .. }), "{error}");
        let message = error.to_string();
        assert!(message.starts_with("listing.safetensors: ") && message.contains(reason), "{message}");
    }
}

#[test]
fn names_of_training_checkpoints_become_the_published_ones() {
    let published = Listing::of(&sd15(ProjectionConfig::Pooled { features: 1024, tokens: 4 })).0;
    let trained =
        |name: &str| name.replace("image_proj.", "image_proj_model.").replace("ip_adapter.", "adapter_modules.");
    let mut checkpoint: BTreeMap<_, _> = published.iter().map(|(name, info)| (trained(name), info.clone())).collect();
    checkpoint.insert("unet.conv_in.weight".to_owned(), TensorInfo { dtype: Dtype::F32, shape: vec![320, 4, 3, 3] });
    let file = AdapterFile::new(Arc::new(Listing(checkpoint))).expect("names");
    assert_eq!(*file.weights().tensors(), published);
    assert!(file.lora(&[]).expect("none").is_none());
}

#[test]
fn layers_that_a_checkpoint_has_within_its_u_net_are_numbered() {
    // Shared tensors are saved once, and here not with the adapter.
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
    let file = AdapterFile::new(Arc::new(Listing(tensors))).expect("names");
    assert_eq!(file.config().expect("an adapter").lora_rank, Some(128));
    assert_eq!(*file.weights().tensors(), own);
    let layer = |block| {
        let site = AttnSite { block, attention: 0, layer: 0, kind: AttnKind::CrossAttention };
        CrossAttention { site, channels: 320, context: 768 }
    };
    let lora = file.lora(&[layer(Block::Mid), layer(Block::Down(0))]).expect("matrices").expect("a LoRA");
    let targets: Vec<&str> = lora.targets().iter().map(|entry| entry.target()).collect();
    assert_eq!(targets, ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"]);
    let message = file.lora(&[]).expect_err("no layers").to_string();
    assert!(message.contains("ip_adapter.0.to_q_lora"), "{message}");
}
