//! Tests of shapes, parameter counts, tiling and slicing.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Distribution;
use fabric_backends::{DeviceKind, device};

use super::*;
use crate::layers::{ParameterCount, count_parameters};

fn cpu() -> Device {
    device(DeviceKind::Flex).unwrap()
}

fn tiny() -> VaeConfig {
    VaeConfig {
        block_out_channels: vec![4, 8],
        down_block_types: vec![EncoderBlockType::DownEncoderBlock2D; 2],
        up_block_types: vec![DecoderBlockType::UpDecoderBlock2D; 2],
        layers_per_block: 1,
        norm_num_groups: 2,
        sample_size: OneOrMany::One(16),
        ..Default::default()
    }
}

fn random(shape: [usize; 4]) -> Tensor<4> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &cpu())
}

fn difference(a: Tensor<4>, b: Tensor<4>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).abs().max().into_scalar()
}

#[test]
fn parameter_count_is_the_published_one() {
    let vae = VaeConfig::sd15().init(&cpu()).unwrap();
    assert_eq!(count_parameters(&vae), ParameterCount { parameters: 83_653_863, tensors: 248 });
}

#[test]
fn one_image_at_a_time_is_the_batch() {
    let vae = tiny().init(&cpu()).unwrap();
    let sliced = vae.clone().with_options(VaeOptions { sliced: true, ..vae.options() });
    let latents = random([3, 4, 3, 5]);
    assert!(difference(sliced.decode(latents.clone()), vae.decode(latents)) < 1e-5);
    let pixels = random([3, 3, 6, 10]);
    let encoded = |vae: &Vae| vae.encode(pixels.clone(), Posterior::Mean);
    assert!(difference(encoded(&sliced), encoded(&vae)) < 1e-5);
}

#[test]
fn an_image_of_one_tile_is_not_cut() {
    let vae = tiny().init(&cpu()).unwrap();
    let tiled = |tile, overlap| {
        let tiling = Some(Tiling::new(tile, overlap).unwrap());
        vae.clone().with_options(VaeOptions { tiling, ..vae.options() })
    };
    let latents = random([2, 4, 5, 7]);
    let whole = vae.decode(latents.clone());
    assert_eq!(difference(tiled(7, 2).decode(latents.clone()), whole.clone()), 0.0);
    let cut = tiled(4, 2).decode(latents);
    assert!(difference(cut, whole) > 1e-4, "the norms of a tile are its own");
    let pixels = random([1, 3, 12, 20]);
    assert_eq!(tiled(4, 2).encode(pixels, Posterior::Mean).dims(), [1, 4, 6, 10]);
}

#[test]
fn scaling_is_undone_by_decoding() {
    let by_statistics = VaeConfig {
        latents_mean: Some(vec![1.0, -2.0, 0.5, 0.0]),
        latents_std: Some(vec![1.0, 2.0, 3.0, 4.0]),
        ..tiny()
    };
    let by_shift = VaeConfig { shift_factor: Some(0.3), ..tiny() };
    for config in [tiny(), by_shift, by_statistics] {
        let vae = config.init(&cpu()).unwrap();
        let pixels = random([1, 3, 8, 8]);
        let unscaled = vae.encode_distribution(pixels.clone()).mean;
        let scaled = vae.encode(pixels, Posterior::Mean);
        assert!(difference(scaled.clone(), unscaled.clone()) > 1e-3);
        assert!(difference(vae.decode(scaled), vae.decode_unscaled(unscaled)) < 1e-5);
    }
}

#[test]
fn a_sample_without_noise_is_the_mean() {
    let distribution = tiny().init(&cpu()).unwrap().encode_distribution(random([1, 3, 8, 8]));
    let zero = distribution.mean.zeros_like();
    assert_eq!(difference(distribution.sample(zero), distribution.mean), 0.0);
}

#[test]
fn half_precision_weights_are_computed_with_in_f32() {
    struct ToHalf;
    impl ModuleMapper for ToHalf {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| x.cast(DType::F16))
        }
    }
    struct Widen;
    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| x.cast(DType::F32))
        }
    }
    let half = tiny().init(&cpu()).unwrap().map(&mut ToHalf);
    let exact = half.clone().map(&mut Widen);
    let latents = random([1, 4, 4, 4]);
    let expected = exact.decode(latents.clone());
    assert_eq!(difference(half.decode(latents.clone()), expected.clone()), 0.0);
    let narrow = half.clone().with_options(VaeOptions { upcast: false, ..half.options() });
    // A CPU always computes in f32.
    assert_eq!(difference(narrow.decode(latents), expected), 0.0);
}

#[test]
fn configurations_that_cannot_be_built_are_refused() {
    let refused = |json: &str, part: &str| {
        let message = VaeConfig::from_json(json).unwrap_err().to_string();
        assert!(part.split(" .. ").all(|part| message.contains(part)), "{message}");
    };
    refused(r#"{"_class_name": "AutoencoderTiny"}"#, "`_class_name`: expected .. got \"AutoencoderTiny\"");
    refused(r#"{"down_block_types": ["AttnDownEncoderBlock2D"]}"#, "`down_block_types`");
    refused(r#"{"block_out_channels": []}"#, "`block_out_channels`: expected .. got 0");
    refused(r#"{"block_out_channels": [32, 48, 64, 100]}"#, "`norm_num_groups`: expected .. got 32");
    refused(r#"{"scaling_factor": 0}"#, "`scaling_factor`: expected .. got 0");
    refused(r#"{"latents_mean": [1, 2, 3, 4]}"#, "`latents_std`: expected .. got nothing");
    refused(r#"{"latents_mean": [1], "latents_std": [1, 1, 1, 1]}"#, "`latents_mean`");
    refused(r#"{"latent_channels": 0}"#, "`latent_channels`: expected .. got 0");
    refused(r#"{"layers_per_block": 256}"#, "`layers_per_block`: expected at most 1024 resnets .. got 2056 resnets");
}

#[test]
fn scales_of_latents_that_leave_nothing_of_them_are_refused() {
    let read = |fields: &str| VaeConfig::from_json(&format!("{{{fields}}}")).map_err(|error| error.to_string());
    for field in ["scaling_factor", "latents_std", "shift_factor", "latents_mean"] {
        let is_shift = matches!(field, "shift_factor" | "latents_mean");
        let with = |value: &str| match field {
            "latents_std" => read(&format!(r#""latents_mean": [0, 0, 0, 0], "latents_std": [1, 1, 1, {value}]"#)),
            "latents_mean" => read(&format!(r#""latents_mean": [0, 0, 0, {value}], "latents_std": [1, 1, 1, 1]"#)),
            _ => read(&format!(r#""{field}": {value}"#)),
        };
        for good in ["0.13025", "1e-6", "1000000.0"] {
            assert!(with(good).is_ok(), "{field} {good}");
        }
        for bad in ["1e-7", "-0.5", "1e7", "1e300"] {
            let is_fine = is_shift && matches!(bad, "1e-7" | "-0.5");
            match with(bad) {
                Ok(_) => assert!(is_fine, "{field} {bad}"),
                Err(message) => assert!(message.contains(&format!("`{field}`: expected")) && !is_fine, "{message}"),
            }
        }
    }
}
