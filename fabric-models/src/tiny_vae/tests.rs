//! Sizes, names and layouts of tiny autoencoders, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use fabric_backends::{DeviceKind, device};
use fabric_core::models::{Autoencoder, LatentDecoder, Posterior};

use super::names::{DECODER, ENCODER, blocks_of, from_author};
use super::*;
use crate::layers::{ParameterCount, count_parameters};
use crate::load::{
    Dtype, LoadOptions, SafetensorsFile, SaveDtype, SaveOptions, TensorInfo, TensorSource, parameters, save_component,
    write_safetensors,
};

fn cpu() -> Device {
    device(DeviceKind::Flex).expect("the CPU")
}

fn small() -> TinyAutoencoderConfig {
    TinyAutoencoderConfig {
        encoder_block_out_channels: vec![6; 3],
        decoder_block_out_channels: vec![8; 3],
        num_encoder_blocks: vec![1, 0, 2],
        num_decoder_blocks: vec![2, 1, 0],
        ..TinyAutoencoderConfig::default()
    }
}

fn random(shape: [usize; 4]) -> Tensor<4> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &cpu())
}

fn difference(a: Tensor<4>, b: Tensor<4>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).abs().max().into_scalar()
}

/// Returns the names and shapes of a network's tensors.
fn tensors(network: &TinyAutoencoder) -> BTreeMap<String, TensorInfo> {
    let with_shape = |parameter: crate::load::ParameterInfo| {
        (parameter.name, TensorInfo { dtype: Dtype::F32, shape: parameter.shape })
    };
    parameters(network).into_iter().map(with_shape).collect()
}

/// Writes tensors of a file to another one, under the names that `rename` returns.
fn rewrite(from: &dyn TensorSource, to: &Path, rename: impl Fn(&str) -> Option<String>) {
    let names: BTreeMap<String, &String> =
        from.tensors().keys().filter_map(|name| Some((rename(name)?, name))).collect();
    let infos: Vec<_> = names.iter().map(|(new, old)| (new.clone(), from.tensors()[*old].clone())).collect();
    write_safetensors(to, &BTreeMap::new(), &infos, |name| from.read(names[name])).expect("a written file");
}

#[test]
fn parameter_count_is_the_published_one() {
    let network = TinyAutoencoderConfig::taesd().init(&cpu()).expect("a network");
    assert_eq!(count_parameters(&network), ParameterCount { parameters: 2_445_063, tensors: 134 });
}

#[test]
fn names_are_those_of_the_published_files() {
    let network = TinyAutoencoderConfig::taesd().init(&cpu()).expect("a network");
    let tensors = tensors(&network);
    let shape = |name: &str| tensors.get(name).map(|info| info.shape.clone());
    // From the listings of madebyollin/taesd and madebyollin/taesdxl.
    for (name, expected) in [
        ("encoder.layers.0.weight", Some(vec![64, 3, 3, 3])),
        ("encoder.layers.1.conv.4.bias", Some(vec![64])),
        ("encoder.layers.2.weight", Some(vec![64, 64, 3, 3])),
        ("encoder.layers.2.bias", None),
        ("encoder.layers.14.weight", Some(vec![4, 64, 3, 3])),
        ("decoder.layers.0.weight", Some(vec![64, 4, 3, 3])),
        ("decoder.layers.1.weight", None),
        ("decoder.layers.2.conv.0.weight", Some(vec![64, 64, 3, 3])),
        ("decoder.layers.6.weight", Some(vec![64, 64, 3, 3])),
        ("decoder.layers.6.bias", None),
        ("decoder.layers.17.conv.2.weight", Some(vec![64, 64, 3, 3])),
        ("decoder.layers.18.bias", Some(vec![3])),
    ] {
        assert_eq!(shape(name), expected, "{name}");
    }
    let author = |prefix: &str, names: [&str; 4]| {
        let stored = names.map(|name| (name.to_owned(), TensorInfo { dtype: Dtype::F32, shape: vec![1] }));
        from_author(&stored.into(), prefix).into_iter().map(|renamed| renamed.name).collect::<Vec<_>>()
    };
    let encoder = author(ENCODER, ["0.weight", "1.conv.0.bias", "14.weight", "2.weight"]);
    assert_eq!(encoder, ["0.weight", "1.conv.0.bias", "14.weight", "2.weight"].map(|name| format!("{ENCODER}{name}")));
    let decoder = author(DECODER, ["1.weight", "19.bias", "3.conv.4.weight", "7.weight"]);
    assert_eq!(decoder, ["0.weight", "18.bias", "2.conv.4.weight", "6.weight"].map(|name| format!("{DECODER}{name}")));
}

#[test]
fn blocks_are_counted_from_names() {
    for config in [TinyAutoencoderConfig::taesd(), small()] {
        let tensors = tensors(&config.init(&cpu()).expect("a network"));
        assert_eq!(blocks_of(&tensors, ENCODER), Some(config.num_encoder_blocks));
        assert_eq!(blocks_of(&tensors, DECODER), Some(config.num_decoder_blocks));
    }
    assert_eq!(blocks_of(&BTreeMap::new(), DECODER), None);
}

#[test]
fn every_layout_gives_the_same_network() {
    let place = tempfile::tempdir().expect("a folder");
    let whole = place.path().join("whole");
    let network = small().init(&cpu()).expect("a network");
    let options = SaveOptions { dtype: SaveDtype::F32, max_shard_bytes: None };
    let mut config = serde_json::to_value(small()).expect("a configuration");
    config["_class_name"] = "AutoencoderTiny".into();
    save_component(&network, &whole, &config, &options).expect("a saved network");
    let file = whole.join("diffusion_pytorch_model.safetensors");
    let saved = SafetensorsFile::open(&file).expect("the file");

    let [both, alone, bare] = ["both", "alone", "bare"].map(|name| place.path().join(name));
    for folder in [&both, &alone, &bare] {
        std::fs::create_dir(folder).expect("a folder");
    }
    rewrite(&saved, &both.join("my_encoder.safetensors"), |name| Some(name.strip_prefix(ENCODER)?.to_owned()));
    let decoder = |name: &str| {
        let (layer, rest) = name.strip_prefix(DECODER)?.split_once('.')?;
        Some(format!("{}.{rest}", layer.parse::<usize>().ok()? + 1))
    };
    rewrite(&saved, &both.join("my_decoder.safetensors"), decoder);
    rewrite(&saved, &alone.join("my_decoder.safetensors"), decoder);
    rewrite(&saved, &bare.join("network.safetensors"), |name| Some(name.to_owned()));

    let (latents, pixels) = (random([2, 4, 3, 5]), random([1, 3, 12, 20]));
    let expected = network.decode(latents.clone());
    assert_eq!(expected.dims(), [2, 3, 12, 20]);
    let encoded = network.encode(pixels.clone(), Posterior::Mean);
    assert_eq!(encoded.dims(), [1, 4, 3, 5]);
    let load = LoadOptions::default();
    for (path, has_encoder) in [
        (whole, true),
        (file, true),
        (both.clone(), true),
        (both.join("my_encoder.safetensors"), true),
        (alone, false),
        (bare.join("network.safetensors"), true),
    ] {
        let shown = path.display();
        let files = TinyAutoencoderFiles::open(&path).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(files.config().num_decoder_blocks, small().num_decoder_blocks, "{shown}");
        let (decoder, _) = files.load_decoder(&cpu(), &load).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!((decoder.scale_factor(), decoder.latent_channels()), (4, 4));
        assert_eq!(difference(decoder.decode(latents.clone()), expected.clone()), 0.0, "{shown}");
        match files.load(&cpu(), &load) {
            Ok((loaded, _)) => {
                assert!(has_encoder, "{shown}");
                let got = loaded.encode(pixels.clone(), Posterior::Mean);
                assert_eq!(difference(got, encoded.clone()), 0.0, "{shown}");
            }
            Err(error) => assert!(!has_encoder && error.to_string().contains("no encoder"), "{shown}: {error}"),
        }
    }
    std::fs::remove_file(both.join("my_decoder.safetensors")).expect("a removed file");
    let message = TinyAutoencoderFiles::open(both.join("my_encoder.safetensors")).expect_err("no decoder").to_string();
    assert!(message.contains("there is no decoder beside this file of an encoder"), "{message}");
}

#[test]
fn folders_with_several_decoders_and_files_of_other_networks_are_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let network = small().init(&cpu()).expect("a network");
    let options = SaveOptions { dtype: SaveDtype::F32, max_shard_bytes: None };
    save_component(&network, place.path().join("source"), &serde_json::json!({}), &options).expect("a saved network");
    let saved = SafetensorsFile::open(place.path().join("source/model.safetensors")).expect("the file");
    let folder = place.path().join("several");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["taesd_decoder.safetensors", "taesdxl_decoder.safetensors"] {
        rewrite(&saved, &folder.join(name), |name| Some(name.to_owned()));
    }
    let refused = |path: &Path| TinyAutoencoderFiles::open(path).expect_err("refused").to_string();
    let message = refused(&folder);
    assert!(message.contains("expected one, got taesd_decoder, taesdxl_decoder"), "{message}");
    let other = place.path().join("other.safetensors");
    rewrite(&saved, &other, |name| Some(format!("up_blocks.{name}")));
    assert!(refused(&other).contains("the layers of a tiny autoencoder"), "{}", refused(&other));
    let empty = place.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    assert!(refused(&empty).contains("config.json"), "{}", refused(&empty));
}

#[test]
fn a_sample_is_the_mean_once_per_row_of_noise() {
    let network = small().init(&cpu()).expect("a network");
    let pixels = random([1, 3, 8, 8]);
    let mean = network.encode(pixels.clone(), Posterior::Mean);
    let samples = network.encode(pixels, Posterior::Sample(random([3, 4, 2, 2])));
    assert_eq!(difference(samples, mean.repeat_dim(0, 3)), 0.0);
}

#[test]
fn scaling_is_undone_by_decoding() {
    let network = small().init(&cpu()).expect("a network");
    let scaled = TinyAutoencoderConfig { scaling_factor: 0.5, shift_factor: Some(0.25), ..small() };
    let record = {
        let place = tempfile::tempdir().expect("a folder");
        let options = SaveOptions { dtype: SaveDtype::F32, max_shard_bytes: None };
        let config = serde_json::to_value(scaled).expect("a configuration");
        save_component(&network, place.path(), &config, &options).expect("a saved network");
        let files = TinyAutoencoderFiles::open(place.path()).expect("the network");
        files.load(&cpu(), &LoadOptions::default()).expect("the weights").0
    };
    let (pixels, latents) = (random([1, 3, 8, 8]), random([1, 4, 2, 2]));
    let plain = network.encode(pixels.clone(), Posterior::Mean);
    assert!(difference(record.encode(pixels, Posterior::Mean), (plain - 0.25) * 0.5) < 1e-6);
    assert!(difference(record.decode((latents.clone() - 0.25) * 0.5), network.decode(latents)) < 1e-5);
}

#[test]
fn configurations_that_cannot_be_built_are_refused() {
    let refused = |json: &str, part: &str| {
        let message = TinyAutoencoderConfig::from_json(json).expect_err(json).to_string();
        assert!(part.split(" .. ").all(|part| message.contains(part)), "{message}");
    };
    refused(r#"{"_class_name": "AutoencoderKL"}"#, "`_class_name`: expected .. got \"AutoencoderKL\"");
    refused(r#"{"num_decoder_blocks": [3, 3, 1]}"#, "`num_decoder_blocks`: expected 4 .. got 3 numbers");
    refused(r#"{"decoder_block_out_channels": []}"#, "`decoder_block_out_channels`: expected .. got 0");
    refused(r#"{"encoder_block_out_channels": [64, 64, 32, 32]}"#, "equal numbers .. [64, 64, 32, 32]");
    refused(r#"{"num_encoder_blocks": [1, 3, 3, 300]}"#, "`num_encoder_blocks`: expected .. got 300");
    refused(r#"{"upsampling_scaling_factor": 3}"#, "`upsampling_scaling_factor`: expected 8 .. got 3 in 3");
    refused(r#"{"upsample_fn": "bilinear"}"#, "`upsample_fn`: expected nearest .. got bilinear");
    refused(r#"{"out_channels": 4}"#, "`out_channels`: expected 3 .. got 4");
    refused(r#"{"latent_channels": 0}"#, "`latent_channels`: expected .. got 0");
    refused(r#"{"scaling_factor": 0}"#, "`scaling_factor`: expected .. got 0");
    refused(r#"{"shift_factor": 1e9}"#, "`shift_factor`: expected .. got 1000000000");
    refused(r#"{"act_fn": "mish"}"#, "`act_fn`: expected .. got \"mish\"");
}
