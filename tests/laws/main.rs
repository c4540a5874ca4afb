//! Properties that hold for any weights, tested on the tiny networks of `tests/golden/models` and random images.

mod cached;
#[path = "../common/mod.rs"]
mod common;
mod dislikes;
mod diversity;
mod per_image;
mod runs;
mod scopes;
mod text;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{DType, Tensor};
use common::{assert_again, on_cpu};
use fabric::core::Error;
use fabric::core::fabric::{BlockWeights, FabricExecution, FabricSettings, KeepPolicy, ReferencePass};
use fabric::core::image::{Fit, Image};
use fabric::core::noise::{Draw, RunNoise, SeededNoise};
use fabric::core::pipeline::{Generation, Observer, Phase, PhaseEvent, Pipeline, Request, Settings, StepEvent};
use fabric::core::samplers::{Sampler, SamplerRun};
use fabric::core::schedule::{SamplerKind, SigmaCurve};
use fabric::models::load::LoadDtype;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelOptions, load_model};

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(fresh_pipeline)
}

fn fresh_pipeline() -> Pipeline {
    let device = fabric::default_device().expect("a device");
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    load_model(folder, &device, &options).expect("a pipeline").0
}

/// Smooth image that differs for each seed.
fn image(seed: usize, side: usize) -> Image {
    let wave = |x: usize, y: usize, c: usize| {
        let phase = (seed * 37 + c * 11) as f64;
        ((x as f64 * 0.09 + phase).sin() * (y as f64 * 0.07 + phase * 0.3).cos() * 127.0 + 128.0) as u8
    };
    let pixels = (0..side * side * 3).map(|i| wave(i / 3 % side, i / 3 / side, i % 3)).collect();
    Image::from_rgb(side, side, pixels).expect("an image")
}

fn settings(fabric: FabricSettings) -> Settings {
    Settings { width: Some(64), height: Some(64), steps: 3, guidance_scale: 5.0, fabric, ..Settings::default() }
}

/// FABRIC settings with a nonzero weight in every step.
fn everywhere() -> FabricSettings {
    FabricSettings { start: 0.0, end: 1.0, max_weight: 0.7, ..FabricSettings::default() }
}

fn request(fabric: FabricSettings) -> Request {
    Request::new("a photo of a cat").with_negative_prompt("blurry").with_settings(settings(fabric))
}

fn both(fabric: FabricSettings) -> Request {
    request(fabric).with_liked(image(1, 64)).with_liked(image(2, 64)).with_disliked(image(3, 64))
}

fn make(request: &Request) -> Generation {
    pipeline().generate(request).expect("a generation")
}

fn values(x: &Tensor<4>) -> Vec<f32> {
    x.clone().into_data().convert::<f32>().try_to_vec().expect("f32 data")
}

fn distance(a: &Generation, b: &Generation) -> f32 {
    let (a, b) = (values(&a.latents), values(&b.latents));
    let scale = a.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    common::distance(&a, &b) / scale
}

#[track_caller]
fn assert_same(a: &Generation, b: &Generation) {
    // Allows for different summation orders over three guided steps.
    let error = distance(a, b);
    assert!(error < 2e-5, "differ by {error:.1e}");
}

#[track_caller]
fn assert_differ(a: &Generation, b: &Generation) {
    let error = distance(a, b);
    assert!(error > 1e-3, "differ by {error:.1e} only: this would prove nothing");
}

#[test]
fn references_change_the_image() {
    let plain = make(&request(everywhere()));
    let liked = make(&request(everywhere()).with_liked(image(1, 64)));
    let disliked = make(&request(everywhere()).with_disliked(image(1, 64)));
    assert_differ(&plain, &liked);
    assert_differ(&plain, &disliked);
    assert_differ(&liked, &disliked);
}

#[test]
fn zero_weight_is_no_feedback() {
    let off = FabricSettings { min_weight: 0.0, max_weight: 0.0, ..everywhere() };
    let plain = make(&request(off.clone()));
    let fed = make(&both(off));
    assert_again(&values(&plain.latents), &values(&fed.latents), "latents");
    assert_eq!(fed.report.reference_passes, 0, "and no reference passes through the network");
}

#[test]
fn zero_strength_is_no_feedback() {
    let plain = make(&request(everywhere()));
    let fed = make(&request(everywhere()).with_feedback(image(1, 64), 0.0));
    assert_again(&values(&plain.latents), &values(&fed.latents), "latents");
}

#[test]
fn zero_negative_scale_leaves_the_disliked_out() {
    let settings = FabricSettings { negative_scale: 0.0, ..everywhere() };
    let liked = make(&request(settings.clone()).with_liked(image(1, 64)));
    let with_disliked = make(&request(settings).with_liked(image(1, 64)).with_disliked(image(3, 64)));
    assert_again(&values(&liked.latents), &values(&with_disliked.latents), "latents");
    assert_eq!(liked.report.reference_passes, with_disliked.report.reference_passes);
}

#[test]
fn order_of_references_is_nothing() {
    let forward = make(&both(everywhere()));
    let mut request = both(everywhere());
    request.feedback.reverse();
    assert_same(&forward, &make(&request));
}

#[test]
fn a_reference_twice_is_double_weight() {
    let single = FabricSettings { max_weight: 0.6, ..everywhere() };
    let half = FabricSettings { max_weight: 0.3, ..everywhere() };
    let once = make(&request(single).with_liked(image(1, 64)));
    let twice = make(&request(half).with_liked(image(1, 64)).with_liked(image(1, 64)));
    assert_same(&once, &twice);
}

#[test]
fn half_the_strength_is_half_the_weight() {
    let full = FabricSettings { max_weight: 0.8, ..everywhere() };
    let half = FabricSettings { max_weight: 0.4, ..everywhere() };
    let weak = make(&request(full).with_feedback(image(1, 64), 0.5));
    assert_same(&weak, &make(&request(half).with_feedback(image(1, 64), 1.0)));
}

#[test]
fn normalised_weights_do_not_grow_with_the_number_of_references() {
    let settings = FabricSettings { normalise: true, ..everywhere() };
    let once = make(&request(settings.clone()).with_liked(image(1, 64)));
    let thrice = (0..3).fold(request(settings), |request, _| request.with_liked(image(1, 64)));
    assert_same(&once, &make(&thrice));
}

#[test]
fn interleaved_two_passes_and_cached_are_one() {
    let way = |pass| make(&both(everywhere().with_pass(pass)));
    let interleaved = way(ReferencePass::Interleaved);
    for chunk in [1, 2, 8] {
        assert_same(&interleaved, &way(ReferencePass::TwoPasses { chunk }));
    }
    // Budgets that fit nothing, some and all of the keys and values.
    for budget in [0, 200_000, 1 << 30] {
        let pipeline = fresh_pipeline();
        let request = both(everywhere().with_pass(ReferencePass::Cached { chunk: 2, budget, half: false }));
        let first = pipeline.generate(&request).expect("a generation");
        let second = pipeline.generate(&request).expect("a generation");
        assert_same(&interleaved, &first);
        assert_again(&values(&first.latents), &values(&second.latents), "latents");
        assert!(second.report.cache.bytes <= budget);
        match budget {
            0 => assert_eq!(second.report.reference_passes, 9),
            200_000 => assert!((1..9).contains(&second.report.reference_passes), "{:?}", second.report),
            _ => assert_eq!(second.report.reference_passes, 0),
        }
    }
}

/// Whether the device supports f16. If not, asserts that the request fails before any computation.
/// Returns the files that a pipeline spilled to this folder.
#[test]
fn weights_in_half_precision_change_little() {
    let device = fabric::default_device().expect("a device");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    let load = |dtype| {
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), dtype, ..ModelOptions::default() };
        load_model(&folder, &device, &options)
    };
    let exact = make(&both(everywhere()));
    // GPUs also compute in half precision, and round after every operation instead of once.
    let times = if on_cpu() { 1.0 } else { 4.0 };
    for (dtype, number, most) in [(LoadDtype::F16, DType::F16, 1e-2), (LoadDtype::BF16, DType::BF16, 1e-1)] {
        if !device.supports_dtype(number) {
            let message = load(dtype).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(&format!("{number:?}, which the device cannot compute with")), "{message}");
            continue;
        }
        let pipeline = load(dtype).expect("a pipeline").0;
        let half = pipeline.generate(&both(everywhere())).expect("a generation");
        assert_eq!(half.latents.dtype(), exact.latents.dtype());
        let error = distance(&exact, &half);
        assert!(error > 0.0 && error < times * most, "{dtype:?}: {error}");
    }
}

#[test]
fn an_image_is_the_same_alone_and_in_any_batch() {
    for sampler in [SamplerKind::EulerAncestral, SamplerKind::Ddim] {
        let mut request = both(everywhere()).with_seeds([4, 7, 11]);
        request.settings.sampler = Some(sampler);
        let together = make(&request);
        request.settings.batch = Some(2);
        assert_same(&together, &make(&request));
        let alone = make(&Request { seeds: vec![7], ..request });
        let middle = Generation { latents: together.latents.clone().slice_dim(0, 1..2), ..together };
        assert_same(&middle, &alone);
    }
}

#[test]
fn little_memory_means_smaller_batches_of_the_same_images() {
    let mut request = request(everywhere()).with_seeds(0..64);
    request.settings.width = Some(32);
    request.settings.height = Some(32);
    let whole = make(&request);
    let fits = |limit: &u64| {
        let settings = Settings { memory_limit: Some(*limit), ..request.settings.clone() };
        pipeline().generate(&Request { seeds: vec![0], settings, ..request.clone() }).is_ok()
    };
    request.settings.memory_limit = (10..40).map(|power| 1 << power).find(fits);
    let parts = make(&request);
    assert!(
        parts.report.step_seconds.len() > whole.report.step_seconds.len(),
        "in one batch: this would prove nothing"
    );
    assert_same(&whole, &parts);
}

#[test]
fn a_guidance_of_one_is_the_conditional_branch_alone() {
    let scaled = |scale| {
        let mut request = request(everywhere()).with_liked(image(1, 64));
        request.settings.guidance_scale = scale;
        make(&request)
    };
    assert_same(&scaled(1.0), &scaled(1.0 + 1e-9));
}

#[test]
fn every_sampler_runs_with_feedback_and_from_an_image() {
    for sampler in SamplerKind::ALL {
        let mut request = both(everywhere());
        request.settings.sampler = Some(sampler);
        request.settings.steps = 4;
        let made = make(&request);
        assert!(values(&made.latents).iter().all(|x| x.is_finite()), "{sampler}");
        assert!(made.report.calls_with_references > 0, "{sampler}");
        let from = make(&request.clone().with_init_image(image(9, 64), 0.5));
        assert!(values(&from.latents).iter().all(|x| x.is_finite()), "{sampler}, from an image");
        assert!(from.report.calls < made.report.calls, "{sampler}");
    }
}

#[test]
fn any_size_goes_and_references_are_fitted_to_it() {
    for (width, height) in [(64, 40), (72, 56), (8, 8)] {
        let mut request = request(everywhere()).with_liked(image(1, 50)).with_disliked(image(2, 33));
        request.settings.width = Some(width);
        request.settings.height = Some(height);
        let made = make(&request);
        assert_eq!((made.images[0].width(), made.images[0].height()), (width, height));
    }
}

#[test]
fn two_hundred_references_go_in_chunks() {
    let pass = ReferencePass::TwoPasses { chunk: 16 };
    let mut request = request(FabricSettings { execution: pass.into(), normalise: true, ..everywhere() });
    request.settings.steps = 1;
    request.settings.width = Some(32);
    request.settings.height = Some(32);
    for index in 0..200 {
        request = request.with_feedback(image(index, 8), if index % 2 == 0 { 1.0 } else { -1.0 });
    }
    let made = make(&request);
    assert_eq!(made.report.references, [100, 100]);
    assert!(values(&made.latents).iter().all(|x| x.is_finite()));
}

#[test]
fn a_callback_sees_every_step_and_can_cancel() {
    let mut seen = Vec::new();
    let request = request(everywhere());
    let mut watch = |event: &fabric::core::pipeline::StepEvent<'_>| {
        seen.push((event.step, event.steps, event.preview().expect("a preview").len()));
        if event.step == 2 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
    };
    let stopped = pipeline().generate_observed(&request, &mut watch);
    assert!(matches!(stopped, Err(fabric::core::Error::Cancelled { step: 2, steps: 3, .. })), "{stopped:?}");
    assert_eq!(seen, [(1, 3, 1), (2, 3, 1)]);
}

#[test]
fn unusable_sizes_are_refused_before_any_work() {
    for (width, expected) in [(60, "multiple of 8"), (0, "pixels"), (1 << 20, "pixels")] {
        let mut request = request(everywhere());
        request.settings.width = Some(width);
        let message = pipeline().generate(&request).unwrap_err().to_string();
        assert!(message.contains("width") && message.contains(expected), "{message}");
    }
}

/// Request with prompt dropout where some seeds keep more words than fit into a tokenizer window (75), and some fewer.
#[test]
fn references_that_cannot_act_take_no_place_and_are_named() {
    // The liked image is the oldest, so the limit on references would drop it first.
    let liked = request(everywhere()).with_liked(image(1, 64));
    let all = liked.clone().with_disliked(image(2, 64)).with_disliked(image(3, 64));
    let disliked = Request { feedback: all.feedback[1..].to_vec(), ..all.clone() };
    let no_dislikes = FabricSettings { negative_scale: 0.0, ..everywhere() };
    for (scale, fabric, acting, without, word) in [
        (1.0, everywhere(), &liked, 2, "disliked images"),
        (5.0, no_dislikes, &liked, 2, "disliked images"),
        (0.0, everywhere(), &disliked, 1, "liked images"),
    ] {
        let make = |request: &Request, keep| {
            let mut request = request.clone();
            request.settings.guidance_scale = scale;
            request.settings.fabric = FabricSettings { keep, ..fabric.clone() };
            make(&request)
        };
        let (got, expected) = (make(&all, KeepPolicy::MostRecent(2)), make(acting, KeepPolicy::All));
        assert_again(&values(&got.latents), &values(&expected.latents), word);
        let report = &got.report;
        assert_eq!((report.references_without_effect, report.references_left_out), (without, 0), "{report:?}");
        assert_eq!(report.references, expected.report.references);
        assert_eq!(report.reference_passes, expected.report.reference_passes);
        assert!(report.notes.iter().any(|note| note.starts_with(word)), "{:?}", report.notes);
        assert!(report.references.iter().sum::<usize>() > 0);
        assert_eq!(expected.report.references_without_effect, 0);
    }
}

#[test]
fn guidance_that_does_not_follow_the_prompt_says_so() {
    let notes = |scale| {
        let mut request = request(everywhere());
        (request.settings.guidance_scale, request.settings.steps) = (scale, 1);
        make(&request).report.notes
    };
    for (scale, words) in [(0.0, "no effect"), (0.25, "negative prompt counts 0.75"), (-1.0, "away from the prompt")] {
        let notes = notes(scale);
        assert!(notes.iter().any(|note| note.contains(words) && note.contains("set it to 1")), "{scale}: {notes:?}");
    }
    for scale in [1.0, 1.5, 7.5] {
        assert_eq!(notes(scale), [""; 0], "{scale}");
    }
}

#[test]
fn noise_for_fewer_images_than_seeds_is_an_error_that_says_so() {
    let request = request(everywhere()).with_seeds([1, 2]);
    let mut noise = SeededNoise::new(&[1], &fabric::default_device().expect("a device"));
    let message = pipeline().generate_with(&request, &mut noise, &mut ()).unwrap_err().to_string();
    assert!(message.starts_with("seeds of the noise: expected 2, one per image, got 1"), "{message}");
}

#[test]
fn a_strength_of_zero_keeps_the_start_image() {
    for sampler in [SamplerKind::Ddim, SamplerKind::EulerAncestral] {
        let mut request = both(everywhere()).with_seeds([1, 2]).with_init_image(image(9, 50), 0.0);
        request.settings.sampler = Some(sampler);
        let made = make(&request);
        let kept = image(9, 50).fit(64, 64, Fit::SquashLanczos).expect("an image");
        assert_eq!((made.images, made.seeds), (vec![kept.clone(), kept], vec![1, 2]));
        assert_eq!((made.latents.dims()[0], made.report.calls, made.report.notes.len()), (2, 0, 1));
        // The result is the encoded init image, with one posterior sample per seed.
        let alone = make(&Request { seeds: vec![2], ..request.clone() });
        let of_two = Generation { latents: made.latents.slice_dim(0, 1..2), ..alone.clone() };
        assert_same(&of_two, &alone);
    }
}

#[test]
fn a_callback_counts_steps_as_errors_do_and_evaluations_beside_them() {
    let run = |sampler: &str, stop_at: usize| {
        let mut request = request(everywhere());
        request.settings.sampler = Some(sampler.parse().expect("a sampler"));
        let mut seen = Vec::new();
        let mut watch = |event: &StepEvent<'_>| {
            seen.push((event.step, event.steps, event.evaluation, event.evaluations));
            let stop = event.evaluation == stop_at;
            if stop { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
        };
        let made = pipeline().generate_observed(&request, &mut watch);
        (seen, made)
    };
    for sampler in ["heun", "dpmpp_sde"] {
        let (seen, made) = run(sampler, 0);
        let expected = [(1, 3, 1, 5), (1, 3, 2, 5), (2, 3, 3, 5), (2, 3, 4, 5), (3, 3, 5, 5)];
        assert_eq!(seen, expected, "{sampler}");
        assert_eq!(made.expect("a generation").report.calls, 5);
        for (stop_at, done) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 3)] {
            let (_, stopped) = run(sampler, stop_at);
            let is_done = |error| matches!(error, Error::Cancelled { step, steps: 3, .. } if step == done);
            assert!(stopped.is_err_and(is_done), "{sampler}, {stop_at}");
        }
    }
}

#[test]
fn references_count_in_the_memory_that_a_run_needs() {
    let with = |references: usize, pass, memory_limit| {
        let mut request = request(everywhere().with_pass(pass));
        (request.settings.width, request.settings.height, request.settings.steps) = (Some(32), Some(32), 1);
        request.settings.memory_limit = Some(memory_limit);
        pipeline().generate(&(0..references).fold(request, |request, at| request.with_liked(image(at, 8))))
    };
    let cached = ReferencePass::Cached { chunk: 4, budget: 0, half: false };
    for pass in [ReferencePass::Interleaved, ReferencePass::TwoPasses { chunk: 4 }, cached] {
        let enough = (10..40).map(|power| 1 << power).find(|&limit| with(0, pass, limit).is_ok()).expect("a limit");
        let message = with(100, pass, enough).unwrap_err().to_string();
        assert!(message.starts_with("memory for 1 images of 32x32 at once beside 100 references"), "{message}");
        let less = (10..40).map(|power| 1 << power).find(|&limit| with(100, pass, limit).is_ok());
        assert!(less.is_some_and(|limit| limit > enough && limit < 1 << 34), "{less:?}");
    }
    // More references need more memory: the batch becomes smaller, and the run succeeds.
    let mut many = both(everywhere()).with_seeds(0..8);
    let limit = (10..40).map(|power| 1 << power).find(|&limit| {
        let settings = Settings { memory_limit: Some(limit), ..many.settings.clone() };
        pipeline().generate(&Request { seeds: vec![0], settings, ..many.clone() }).is_ok()
    });
    many.settings.memory_limit = limit;
    let parts = make(&many);
    assert!(parts.report.calls > many.settings.steps, "in one batch: this would prove nothing");
    assert_eq!(parts.images.len(), 8);
}
