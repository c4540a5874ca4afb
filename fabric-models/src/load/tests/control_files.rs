//! ControlNets in one file, opened as a user opens them.

use super::*;
use crate::config::OneOrMany;
use crate::control::{ControlNet, ControlNetConfig, ControlNetFile};
use crate::load::compvis::KeyTable;
use crate::load::compvis::unet::UNetShape;
use crate::load::{LoadDtype, open_weights, save_weights};
use crate::unet::{Depths, DownBlockType, UNetConfig};

type Tensors = BTreeMap<String, HostTensor>;

/// The published networks of each family in small: fewer channels and levels, the same names.
fn small() -> [ControlNetConfig; 3] {
    let plain = DownBlockType::DownBlock2D;
    let attending = DownBlockType::CrossAttnDownBlock2D;
    let of = |network: UNetConfig, levels: &[DownBlockType], heads: &[usize]| ControlNetConfig {
        conditioning_embedding_out_channels: vec![4, 6, 8],
        network: UNetConfig {
            block_out_channels: vec![64; levels.len()],
            down_block_types: levels.to_vec(),
            cross_attention_dim: OneOrMany::One(24),
            attention_head_dim: if heads.len() == 1 {
                OneOrMany::One(heads[0])
            } else {
                OneOrMany::Many(heads.to_vec())
            },
            ..network
        },
        ..ControlNetConfig::default()
    };
    let xl = UNetConfig {
        transformer_layers_per_block: Depths::PerLevel(vec![OneOrMany::One(1), OneOrMany::One(2)]),
        projection_class_embeddings_input_dim: Some(40),
        ..UNetConfig::sdxl()
    };
    [
        of(UNetConfig::sd15(), &[attending, attending, plain], &[8]),
        of(UNetConfig::sd21(), &[attending, plain], &[1, 1]),
        of(xl, &[plain, attending], &[1, 1]),
    ]
}

/// Writes a network of random weights and gives its tensors back.
fn written(config: &ControlNetConfig, path: &Path) -> Tensors {
    save_weights(&config.init(&cpu()).expect("a network"), path, LoadDtype::Keep).expect("a written file");
    read_all(&open_weights(path).expect("weights"))
}

/// The names of the original releases.
fn to_original(tensors: &Tensors) -> Tensors {
    let mut shape = UNetShape::of_diffusers(tensors.keys().map(String::as_str));
    shape.up_attention = vec![false; shape.down_attention.len()];
    let mut pairs = shape.pairs();
    let of = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let last = tensors.keys().filter(|name| name.starts_with("controlnet_cond_embedding.blocks.")).count() / 2;
    pairs.push(of("controlnet_cond_embedding.conv_in", "input_hint_block.0"));
    let blocks = (0..last)
        .map(|at| (format!("controlnet_cond_embedding.blocks.{at}"), format!("input_hint_block.{}", 2 * at + 2)));
    pairs.extend(blocks);
    pairs.push(("controlnet_cond_embedding.conv_out".to_owned(), format!("input_hint_block.{}", 2 * last + 2)));
    pairs.extend((0..20).map(|at| (format!("controlnet_down_blocks.{at}"), format!("zero_convs.{at}.0"))));
    pairs.push(of("controlnet_mid_block", "middle_block_out.0"));
    let table = KeyTable::to_compvis(pairs);
    let renamed = tensors.iter().map(|(name, tensor)| {
        (table.translate(name).unwrap_or_else(|| panic!("{name} has no other name")), tensor.clone())
    });
    renamed.collect()
}

fn prefixed(tensors: &Tensors, prefix: &str) -> Tensors {
    tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
}

#[test]
fn a_control_network_in_one_file_has_its_settings_and_weights_under_either_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for config in small() {
        let tensors = written(&config, &path("diffusers.safetensors"));
        let original = to_original(&tensors);
        write(&path("bare.safetensors"), &original);
        write(&path("original.safetensors"), &prefixed(&original, "control_model."));
        for name in ["diffusers.safetensors", "original.safetensors", "bare.safetensors"] {
            let got = ControlNetFile::open(path(name)).expect("a file").config().expect("settings");
            assert_eq!(got.network.attention_head_dim, config.network.attention_head_dim, "{name}");
            assert_eq!(got.network.upcast_attention, config.network.upcast_attention, "{name}");
            let network = ControlNet::open(path(name), &cpu()).expect("a network");
            assert_eq!((network.context(), network.downscale(), network.inputs()), (24, 4, 3), "{name}");
            save_weights(&network, path("again.safetensors"), LoadDtype::Keep).expect("a written file");
            assert_eq!(read_all(&open_weights(path("again.safetensors")).expect("weights")), tensors, "{name}");
        }
    }
}

#[test]
fn files_that_hold_a_control_network_in_part_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let [config, ..] = small();
    let tensors = written(&config, &path);
    let original = prefixed(&to_original(&tensors), "control_model.");
    let cases: [(&Tensors, &str, &[&str]); 5] = [
        (&original, "difference", &["difference of a ControlNet", "whole ControlNet"]),
        (&original, "control_model.difference", &["difference of a ControlNet"]),
        (&tensors, "difference", &["difference of a ControlNet"]),
        (&original, "lora_controlnet", &["Control-LoRA"]),
        (&tensors, "task_embedding", &["union of several ControlNets"]),
    ];
    for (tensors, mark, says) in cases {
        let mut tensors = tensors.clone();
        tensors.insert(mark.to_owned(), floats(&[1], &[1.0]));
        write(&path, &tensors);
        assert_says(ControlNetFile::open(&path), says);
    }
}
