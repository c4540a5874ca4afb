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
