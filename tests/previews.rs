//! Previews by a tiny decoder, beside those of the VAE.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor};
use fabric::core::image::Image;
use fabric::core::models::LatentDecoder;
use fabric::core::pipeline::{Generation, Pipeline, Request, Settings, StepEvent};
use fabric::models::load::{LoadError, ProgressCallback, SaveOptions, save_component};
use fabric::models::tiny_vae::TinyAutoencoderConfig;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelError, ModelOptions, ModelReport, load_model};
use tempfile::TempDir;

#[path = "common/copies.rs"]
mod copies;

use copies::copy_all;

fn device() -> Device {
    fabric::default_device().expect("a device")
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn options() -> ModelOptions {
    ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() }
}

fn plain() -> Pipeline {
    load_model(golden(), &device(), &options()).expect("a model").0
}

/// Decoder that makes every pixel white.
struct White {
    latent_channels: usize,
    scale_factor: usize,
}

impl LatentDecoder for White {
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let [images, _, height, width] = latents.dims();
        Tensor::ones([images, 3, height * self.scale_factor, width * self.scale_factor], &latents.device())
    }

    fn scale_factor(&self) -> usize {
        self.scale_factor
    }

    fn latent_channels(&self) -> usize {
        self.latent_channels
    }
}

/// Previews of a run: with the preview decoder if there is one, and with the VAE.
struct Previews {
    made: Generation,
    decoded: Vec<Image>,
    by_vae: Vec<Image>,
}

fn previews(pipeline: &Pipeline) -> Previews {
    let settings = Settings { width: Some(64), height: Some(48), steps: 2, ..Settings::default() };
    let request = Request::new("a cat").with_seeds([3, 4]).with_settings(settings);
    let (mut decoded, mut by_vae) = (Vec::new(), Vec::new());
    let mut watch = |event: &StepEvent<'_>| {
        assert_eq!(event.preview_decoder(), pipeline.preview_decoder());
        decoded.extend(event.preview().expect("previews"));
        by_vae.extend(event.preview_with_vae().expect("previews"));
        ControlFlow::Continue(())
    };
    let made = pipeline.generate_observed(&request, &mut watch).expect("images");
    assert_eq!(made.report.preview_decoder.as_deref(), pipeline.preview_decoder());
    Previews { made, decoded, by_vae }
}

/// A copy of the golden model with a tiny autoencoder of this configuration.
fn with_tiny_vae(config: &TinyAutoencoderConfig) -> TempDir {
    let place = tempfile::tempdir().expect("a folder");
    copy_all(&golden(), place.path());
    write_tiny_vae(config, &place.path().join("tiny_vae"));
    place
}

fn write_tiny_vae(config: &TinyAutoencoderConfig, folder: &Path) {
    let network = config.init(&device()).expect("a network");
    let mut json = serde_json::to_value(config).expect("a configuration");
    json["_class_name"] = "AutoencoderTiny".into();
    save_component(&network, folder, &json, &SaveOptions::default()).expect("a saved network");
}

fn small() -> TinyAutoencoderConfig {
    TinyAutoencoderConfig {
        encoder_block_out_channels: vec![4; 4],
        decoder_block_out_channels: vec![4; 4],
        ..TinyAutoencoderConfig::taesd()
    }
}

fn load(folder: &Path, options: &ModelOptions) -> Result<(Pipeline, ModelReport), ModelError> {
    load_model(folder, &device(), options)
}

#[test]
fn a_preview_decoder_decodes_previews_and_the_vae_the_images() {
    let white = Arc::new(White { latent_channels: 4, scale_factor: 8 });
    let plain = previews(&plain());
    let quick = previews(&self::plain().with_preview_decoder("white", white).expect("a decoder that fits"));
    assert_eq!(plain.made.report.preview_decoder, None);
    assert_eq!(quick.made.report.preview_decoder.as_deref(), Some("white"));
    assert_eq!(plain.decoded, plain.by_vae);
    assert_eq!(quick.by_vae, plain.by_vae);
    assert_eq!(quick.made.images, plain.made.images);
    assert_eq!(quick.decoded, vec![Image::filled(64, 48, [255; 3]).expect("an image"); 4]);
}

#[test]
fn a_decoder_of_other_latents_is_refused() {
    for (latent_channels, scale_factor, said) in [
        (16, 8, "latent channels of the preview decoder `other`: expected 4, as the VAE has, got 16"),
        (4, 4, "pixels per latent of the preview decoder `other`: expected 8, as the VAE has, got 4"),
    ] {
        let decoder = Arc::new(White { latent_channels, scale_factor });
        let message = plain().with_preview_decoder("other", decoder).expect_err("other latents").to_string();
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_tiny_autoencoder_in_the_folder_of_a_model_decodes_previews() {
    let folder = with_tiny_vae(&small());
    let (pipeline, report) = load(folder.path(), &options()).expect("a model");
    assert_eq!(pipeline.preview_decoder(), Some("tiny_vae"));
    assert!(report.networks.iter().any(|(name, loaded)| name == "tiny_vae" && loaded.is_complete()));
    let (plain, quick) = (previews(&plain()), previews(&pipeline));
    assert_eq!(quick.made.images, plain.made.images);
    assert_eq!(quick.by_vae, plain.by_vae);
    assert!(quick.decoded.iter().zip(&plain.decoded).all(|(quick, plain)| quick != plain));

    let offload = ModelOptions { offload: true, ..options() };
    let offloaded = previews(&load(folder.path(), &offload).expect("a model").0);
    assert_eq!(offloaded.decoded, quick.decoded);

    // A path takes its place.
    let other = tempfile::tempdir().expect("a folder");
    write_tiny_vae(&small(), &other.path().join("mine"));
    let options = ModelOptions { preview_decoder: Some(other.path().join("mine")), ..options() };
    assert_eq!(load(folder.path(), &options).expect("a model").0.preview_decoder(), Some("mine"));
    assert_eq!(load(&golden(), &options).expect("a model").0.preview_decoder(), Some("mine"));
}

#[test]
fn a_tiny_autoencoder_of_another_family_is_refused_before_weights_are_read() {
    let read = Arc::new(AtomicUsize::new(0));
    let counted = read.clone();
    let progress = ProgressCallback::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let options = ModelOptions { progress: Some(progress), ..options() };
    let folder = with_tiny_vae(&TinyAutoencoderConfig { latent_channels: 16, ..small() });
    let error = load(folder.path(), &options).expect_err("16 channels");
    assert!(matches!(error, ModelError::Unfit { .. }), "{error}");
    assert!(error.to_string().contains("the preview decoder reads latents of 16 channels"), "{error}");

    let other = tempfile::tempdir().expect("a folder");
    let xl = other.path().join("taesdxl");
    write_tiny_vae(&small(), &xl);
    let by_name = ModelOptions { preview_decoder: Some(xl), ..options.clone() };
    let error = load(&golden(), &by_name).expect_err("a file for XL");
    assert!(matches!(error, ModelError::Load(LoadError::WrongFamily { .. })), "{error}");

    let vae = ModelOptions { preview_decoder: Some(golden().join("vae")), ..options.clone() };
    let error = load(&golden(), &vae).expect_err("a VAE").to_string();
    assert!(error.contains("`_class_name`: expected AutoencoderTiny, got \"AutoencoderKL\""), "{error}");

    let none = ModelOptions { preview_decoder: Some(other.path().join("nothing")), ..options };
    let error = load(&golden(), &none).expect_err("nothing there");
    assert!(matches!(error, ModelError::Load(LoadError::NotFound { .. })), "{error}");
    assert_eq!(read.load(Ordering::Relaxed), 0, "no weights were read");
}
