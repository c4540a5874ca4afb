//! Tests of the sizes of the published networks.

use fabric_backends::default_device;

use super::*;
use crate::layers::count_parameters;
use crate::load::parameters;

#[test]
fn published_control_networks_have_their_sizes() {
    let device = default_device().expect("a device");
    for (config, tensors, numbers) in
        [(ControlNetConfig::sd15(), 340, 361_279_120), (ControlNetConfig::sdxl(), 844, 1_251_014_160)]
    {
        let network = config.init(&device).expect("a network");
        let count = count_parameters(&network);
        assert_eq!((count.tensors, count.parameters), (tensors, numbers));
        assert_eq!(network.downscale(), 8);
        let names: Vec<String> = parameters(&network).into_iter().map(|one| one.name).collect();
        for name in [
            "controlnet_cond_embedding.blocks.5.weight",
            "controlnet_mid_block.bias",
            "down_blocks.1.resnets.0.norm1.weight",
        ] {
            assert!(names.iter().any(|got| got == name), "{name} is not among {names:?}");
        }
    }
    let (full, light) = (T2IAdapterKind::FullAdapter, T2IAdapterKind::LightAdapter);
    let shapes = [
        (full, vec![320, 640, 1280, 1280], 8, 2, 38, 77_369_280, 8),
        (T2IAdapterKind::FullAdapterXl, vec![320, 640, 1280, 1280], 16, 2, 38, 79_028_160, 8),
        (light, vec![320, 640, 1280], 8, 4, 80, 18_689_200, 8),
    ];
    for (adapter_type, channels, downscale_factor, num_res_blocks, tensors, numbers, downscale) in shapes {
        let config = T2IAdapterConfig {
            adapter_type,
            channels,
            num_res_blocks,
            downscale_factor,
            ..T2IAdapterConfig::default()
        };
        let network = config.init(&device).expect("a network");
        let count = count_parameters(&network);
        assert_eq!((count.tensors, count.parameters), (tensors, numbers), "{adapter_type:?}");
        assert_eq!((network.channels().len(), network.downscale()), (4, downscale), "{adapter_type:?}");
    }
}

#[test]
fn an_adapter_of_absurdly_many_blocks_is_refused_before_they_are_built() {
    let config = |num_res_blocks| T2IAdapterConfig { channels: vec![8; 15], num_res_blocks, ..Default::default() };
    let device = default_device().expect("a device");
    assert!(config(64).init(&device).is_ok());
    let message = config(65).init(&device).expect_err("16 times 65 blocks").to_string();
    assert!(message.contains("`num_res_blocks`: expected at most 1024 resnets"), "{message}");
    assert!(message.contains("got 1040 resnets"), "{message}");
}

#[test]
fn a_scale_that_only_breaks_images_is_refused() {
    for good in [0.0, 1.0, -1.0, 100.0, -100.0] {
        assert!(conditioning::check_scale(good).is_ok(), "{good}");
    }
    for bad in [100.5, -1e3, f64::MAX, f64::INFINITY, f64::NAN] {
        let message = conditioning::check_scale(bad).expect_err("an absurd scale").to_string();
        assert!(message.contains("scale of a control network: expected a number from -100 to 100"), "{message}");
    }
}
