//! Latent consistency models that read their guidance scale: one branch runs, and the scale is an input of the network.

use std::path::Path;

use burn::tensor::Tensor;
use fabric::core::denoise::ModelCall;
use fabric::core::fabric::{FabricExecution, FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{Generation, Observer, Pipeline, Request, Settings};
use fabric::core::schedule::SamplerKind;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNetConfig;
use fabric::models::{ModelOptions, StableDiffusion};

/// Returns the pipeline of the golden model with an untrained U-Net that reads its guidance scale.
fn pipeline() -> Pipeline {
    let device = fabric::default_device().expect("a device");
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    let (model, _) = StableDiffusion::open(&folder, &device, &options).expect("a model");
    let config = std::fs::read_to_string(folder.join("unet/config.json")).expect("a configuration");
    let config = UNetConfig::from_json(&config).expect("a configuration");
    device.seed(5);
    let unet = UNetConfig { time_cond_proj_dim: Some(16), ..config }.init(&device).expect("a U-Net");
    StableDiffusion { unet, ..model }.into_pipeline().expect("a pipeline")
}

fn request(guidance_scale: f64) -> Request {
    let pass = ReferencePass::Cached { chunk: 4, budget: 1 << 28, half: false };
    let fabric = FabricSettings {
        start: 0.0,
        end: 1.0,
        max_weight: 0.8,
        execution: FabricExecution { pass, ..FabricExecution::default() },
        ..FabricSettings::default()
    };
    let sampler = Some(SamplerKind::Lcm);
    let settings = Settings {
        width: Some(64),
        height: Some(64),
        steps: 2,
        guidance_scale,
        sampler,
        fabric,
        ..Settings::default()
    };
    Request::new("a cat").with_seeds([1, 2]).with_settings(settings)
}

fn with_liked(request: Request) -> Request {
    request.with_liked(Image::filled(64, 64, [200, 40, 40]).expect("an image"))
}

/// Numbers of rows that the network predicted.
#[derive(Default)]
struct Rows(Vec<usize>);

impl Observer for Rows {
    fn predictions(&mut self, _call: &ModelCall, predictions: &Tensor<4>) {
        self.0.push(predictions.dims()[0]);
    }
}

fn pixels(made: &Generation) -> Vec<&[u8]> {
    made.images.iter().map(Image::rgb).collect()
}

#[test]
fn one_branch_runs_and_the_scale_changes_the_image() {
    let pipeline = pipeline();
    let mut rows = Rows::default();
    let low = pipeline.generate_observed(&request(2.0), &mut rows).expect("images");
    assert_eq!(rows.0, [2, 2], "a row for each image, in two steps");
    let high = pipeline.generate(&request(8.0)).expect("images");
    assert_ne!(pixels(&low), pixels(&high));
    let again = pipeline.generate(&request(2.0)).expect("images");
    assert_eq!(pixels(&low), pixels(&again));
    assert!(low.report.notes.is_empty(), "{:?}", low.report.notes);
}

#[test]
fn recorded_references_belong_to_their_scale() {
    let expected = pipeline().generate(&with_liked(request(8.0))).expect("images");
    let used = pipeline();
    let other = used.generate(&with_liked(request(2.0))).expect("images");
    let got = used.generate(&with_liked(request(8.0))).expect("images");
    assert_eq!(pixels(&got), pixels(&expected));
    assert_ne!(pixels(&got), pixels(&other));
}

#[test]
fn dislikes_have_no_effect_and_the_report_says_so() {
    let disliked = Image::filled(64, 64, [20, 40, 200]).expect("an image");
    let made = pipeline().generate(&request(8.0).with_disliked(disliked)).expect("images");
    assert_eq!(made.report.references_without_effect, 1);
    let notes = made.report.notes.join("\n");
    assert!(notes.contains("fabric.dislikes_without_guidance"), "{notes}");
}
