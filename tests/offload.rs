//! Offloaded networks make the same images as networks that stay on the device.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::models::load::{LoadDtype, LoadError};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelError, ModelOptions, load_model};
use fabric::{DeviceKind, default_device, device};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn pipeline(device: &Device, offload: bool) -> Pipeline {
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), offload, ..ModelOptions::default() };
    load_model(golden(), device, &options).expect("a model").0
}

#[test]
fn weights_that_the_device_cannot_compute_with_are_refused_though_the_cpu_can() {
    // The CPU backend that holds offloaded weights supports f16 and bf16; ndarray does not.
    let Ok(device) = device(DeviceKind::NdArray) else { return };
    for dtype in [LoadDtype::F16, LoadDtype::BF16] {
        let tokenizer = Some(ClipTokenizer::openai());
        let options = ModelOptions { tokenizer, offload: true, dtype, ..ModelOptions::default() };
        let error = load_model(golden(), &device, &options).map(|_| ()).expect_err("no halves");
        assert!(matches!(error, ModelError::Load(LoadError::UnsupportedType { .. })), "{error}");
        assert!(error.to_string().contains("choose another device"), "{error}");
    }
}

fn pixels(pipeline: &Pipeline) -> Vec<Vec<u8>> {
    let fabric =
        FabricSettings { execution: ReferencePass::TwoPasses { chunk: 1 }.into(), ..FabricSettings::default() };
    let settings = Settings { width: Some(64), height: Some(64), steps: 3, fabric, ..Settings::default() };
    let liked = Image::filled(64, 64, [200, 30, 60]).expect("an image");
    let request = Request::new("a cat").with_seeds([3, 4]).with_settings(settings).with_liked(liked);
    let images = pipeline.generate(&request).expect("images").images;
    images.iter().map(|image| image.rgb().to_vec()).collect()
}

/// Returns a device other than the CPU backend that holds offloaded weights, if this build has one.
fn elsewhere() -> Device {
    match default_device().expect("a device") {
        here if here == fabric::backends::cpu().expect("a CPU") => device(DeviceKind::NdArray).unwrap_or(here),
        elsewhere => elsewhere,
    }
}

#[test]
fn images_are_those_of_networks_that_live_there() {
    let device = elsewhere();
    let offloaded = pipeline(&device, true);
    assert_eq!(offloaded.device(), device);
    let expected = pixels(&pipeline(&device, false));
    // In the second run, the VAE of the first run is still on the device.
    for _ in 0..2 {
        assert_eq!(pixels(&offloaded), expected);
    }
}
