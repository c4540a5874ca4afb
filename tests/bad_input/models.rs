//! The small models with which the cases begin.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::Device;
use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::{UNet, UNetConfig};
use fabric::models::{ModelOptions, load_model};

/// Path of a part of the small model.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

/// Path of a file that is kept for the tests of formats.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub(crate) fn device() -> Device {
    fabric::default_device().expect("a device")
}

/// Options with the tokenizer that the small model lacks.
pub(crate) fn options() -> ModelOptions {
    ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() }
}

/// The small model, loaded once.
pub(crate) fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| load_model(golden(""), &device(), &options()).expect("a pipeline").0)
}

/// A request for one small image in two steps.
pub(crate) fn request() -> Request {
    let settings = Settings { width: Some(32), height: Some(32), steps: 2, ..Settings::default() };
    Request::new("a small red star").with_settings(settings)
}

/// Text of a configuration of the small model.
pub(crate) fn config_text(part: &str) -> String {
    std::fs::read_to_string(golden(part).join("config.json")).expect("a configuration")
}

/// The small model's U-Net with random weights, which are made at their first use.
pub(crate) fn untrained_unet(part: &str) -> UNet {
    let config = UNetConfig::from_json(&config_text(part)).expect("a configuration");
    config.init(&device()).expect("a network")
}

/// An image in which all pixels differ.
pub(crate) fn image() -> Image {
    Image::from_rgb(6, 4, (0..6 * 4 * 3).map(|at| (at * 3) as u8).collect()).expect("an image")
}
