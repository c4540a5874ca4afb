//! Laws of picture prompts, on the tiny networks of `tests/golden/models` and random features.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::{Tensor, TensorData};
use fabric::core::fabric::FabricSettings;
use fabric::core::picture::Picture;
use fabric::core::pipeline::{Generation, Pipeline, Request, Settings};
use fabric::ipadapter::{FeatureKind, Features, IpAdapter, LayerScales, Mask, PicturePrompt};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelOptions, load_folder};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
        load_folder(folder(), &device, &options).expect("a pipeline").0
    })
}

fn adapter(kind: &str) -> IpAdapter {
    let path = folder().join("ip_adapter").join(format!("{kind}.safetensors"));
    IpAdapter::open(path, &fabric::default_device().expect("a device")).expect("an adapter")
}

/// Random features of so many pictures; a seed of 0 is no picture.
fn features(adapter: &IpAdapter, images: usize, seed: usize) -> Features {
    let device = fabric::default_device().expect("a device");
    let values = |count: usize| -> Vec<f32> {
        (0..count).map(|at| if seed == 0 { 0.0 } else { ((at * 7 + seed * 31) as f32 * 0.37).sin() }).collect()
    };
    match adapter.config().reads() {
        FeatureKind::Pooled(channels) => {
            Features::Pooled(Tensor::from_data(TensorData::new(values(images * channels), [images, channels]), &device))
        }
        FeatureKind::Tokens(channels) => {
            let data = TensorData::new(values(images * 5 * channels), [images, 5, channels]);
            Features::Tokens(Tensor::from_data(data, &device))
        }
        other => panic!("not in these tests: {other}"),
    }
}

fn prompt(adapter: &IpAdapter, pictures: &Features) -> PicturePrompt {
    PicturePrompt::new(adapter, &pipeline().cross_attentions(), pictures, &features(adapter, 1, 0)).expect("a prompt")
}

fn request() -> Request {
    let settings = Settings { width: Some(64), height: Some(64), steps: 3, guidance_scale: 5.0, ..Settings::default() };
    Request::new("a red star").with_seeds([3, 4]).with_settings(settings)
}

fn make(request: &Request) -> Vec<f32> {
    latents(&pipeline().generate(request).expect("pictures"))
}

fn latents(made: &Generation) -> Vec<f32> {
    made.latents.clone().into_data().convert::<f32>().try_to_vec().expect("f32")
}

/// Largest difference, of values around 1.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

const ROUNDING: f32 = 1e-4;

#[test]
fn an_adapter_of_scale_zero_is_none() {
    let plain = make(&request());
    for kind in ["base", "plus", "full-face"] {
        let adapter = adapter(kind);
        let prompt = prompt(&adapter, &features(&adapter, 1, 1));
        assert_eq!(make(&request().with_steering(prompt.clone().with_scale(0.0))), plain, "{kind}");
        assert!(distance(&make(&request().with_steering(prompt)), &plain) > 1e-3, "{kind}");
    }
}

#[test]
fn a_mask_of_ones_is_no_mask() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let mask = |value| Mask::new(5, 3, vec![value; 15]).expect("a mask");
    let masked = |value| {
        let prompt = prompt.clone().with_masks(&[(mask(value), LayerScales::same(1.0))]).expect("masks");
        make(&request().with_steering(prompt))
    };
    assert!(distance(&masked(1.0), &make(&request().with_steering(prompt.clone()))) < ROUNDING);
    assert!(distance(&masked(0.0), &make(&request())) < ROUNDING);
}

#[test]
fn one_picture_several_times_is_that_picture() {
    let adapter = adapter("base");
    let one = features(&adapter, 1, 1);
    let Features::Pooled(pooled) = one.clone() else { panic!("base reads pooled features") };
    let three = Features::Pooled(pooled.repeat_dim(0, 3));
    let [one, three] = [one, three].map(|pictures| make(&request().with_steering(prompt(&adapter, &pictures))));
    assert!(distance(&one, &three) < ROUNDING);
}

#[test]
fn order_of_adapters_is_nothing() {
    let (base, plus) = (adapter("base"), adapter("plus"));
    let prompts = [prompt(&base, &features(&base, 1, 1)), prompt(&plus, &features(&plus, 2, 2))];
    let [first, second] = prompts;
    let one = make(&request().with_steering(first.clone()).with_steering(second.clone()));
    let other = make(&request().with_steering(second).with_steering(first));
    assert!(distance(&one, &other) < ROUNDING);
}

#[test]
fn a_picture_is_the_same_alone_and_in_a_batch() {
    let adapter = adapter("plus");
    let request = request().with_steering(prompt(&adapter, &features(&adapter, 1, 1)));
    let both = make(&request);
    for (seed, part) in [3, 4].into_iter().zip(both.chunks_exact(both.len() / 2)) {
        assert!(distance(&make(&request.clone().with_seeds([seed])), part) < ROUNDING);
    }
}

#[test]
fn together_with_feedback_either_can_be_switched_off() {
    let adapter = adapter("plus");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let picture =
        Picture::from_rgb(64, 64, (0..64 * 64 * 3).map(|at| (at * 5 % 251) as u8).collect()).expect("a picture");
    let mut liked = request().with_liked(picture);
    liked.settings.fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::paper_target() };
    let mut unweighted = liked.clone();
    unweighted.settings.fabric = FabricSettings { min_weight: 0.0, max_weight: 0.0, ..liked.settings.fabric.clone() };
    let [plain, with_liked] = [request(), liked.clone()].map(|request| make(&request));
    let with_prompt = make(&request().with_steering(prompt.clone()));
    assert_eq!(make(&liked.clone().with_steering(prompt.clone().with_scale(0.0))), with_liked);
    assert_eq!(make(&unweighted.with_steering(prompt.clone())), with_prompt);
    let together = make(&liked.with_steering(prompt));
    for other in [&plain, &with_liked, &with_prompt] {
        assert!(distance(&together, other) > 1e-3);
    }
}

#[test]
fn a_window_says_when() {
    let adapter = adapter("base");
    let prompt = prompt(&adapter, &features(&adapter, 1, 1));
    let windowed =
        |start, end| make(&request().with_steering(prompt.clone().with_window(start, end).expect("a window")));
    assert_eq!(windowed(0.0, 1.0), make(&request().with_steering(prompt.clone())));
    // No step of three lies within a tenth.
    assert_eq!(windowed(0.0, 0.1), make(&request()));
    assert_ne!(windowed(0.0, 0.5), windowed(0.5, 1.0));
    let message = prompt.with_window(0.7, 0.2).expect_err("no window").to_string();
    assert!(message.starts_with("window of an adapter: found 0.7 to 0.2"), "{message}");
}

#[test]
fn features_of_another_encoder_are_refused_by_name() {
    let adapter = adapter("plus");
    let device = fabric::default_device().expect("a device");
    for wrong in
        [Features::Pooled(Tensor::zeros([1, 24], &device)), Features::Tokens(Tensor::zeros([1, 17, 99], &device))]
    {
        let message = adapter.tokens(&wrong).expect_err("another encoder").to_string();
        assert!(message.contains("a plus adapter (16 tokens)") && message.contains("wanted tokens of"), "{message}");
    }
}
