//! Properties that hold for any weights, tested on the tiny networks of `tests/golden/models` and random images.

#[path = "../common/mod.rs"]
mod common;
mod runs;

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

#[test]
fn kept_tokens_serve_their_own_noise_level_only() {
    let cached = everywhere().with_pass(ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false });
    let with = |fabric: &FabricSettings, sampler: &str, steps| {
        let mut request = request(fabric.clone()).with_liked(image(1, 64));
        (request.settings.sampler, request.settings.steps) = (Some(sampler.parse().expect("a sampler")), steps);
        request
    };
    // With 50 Karras levels, the last rounded timesteps are equal, but the noise levels are not.
    let pipeline = fresh_pipeline();
    let many = pipeline.generate(&with(&cached, "dpmpp_2m_karras", 50)).expect("a generation");
    assert_same(&make(&with(&everywhere(), "dpmpp_2m_karras", 50)), &many);
    // Equal timesteps with another training schedule.
    let mut other = pipeline.scheduler().clone();
    other.rescale_betas_zero_snr = true;
    let other = pipeline.clone().with_scheduler(other);
    let first = pipeline.generate(&with(&cached, "ddim", 3)).expect("a generation");
    let second = other.generate(&with(&cached, "ddim", 3)).expect("a generation");
    assert_differ(&first, &second);
    assert_same(&other.generate(&with(&everywhere(), "ddim", 3)).expect("a generation"), &second);
}

/// Whether the device supports f16. If not, asserts that the request fails before any computation.
fn has_halves() -> bool {
    let has = fabric::default_device().expect("a device").supports_dtype(DType::F16);
    if !has {
        let pass = ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: true };
        let message = pipeline().generate(&both(everywhere().with_pass(pass))).unwrap_err().to_string();
        assert!(
            message.starts_with("fabric.execution.pass.half: expected") && message.contains("got true"),
            "{message}"
        );
    }
    has
}

#[test]
fn tokens_kept_in_half_precision_take_half_the_bytes() {
    if !has_halves() {
        return;
    }
    let pipeline = fresh_pipeline();
    let request = |half| both(everywhere().with_pass(ReferencePass::Cached { chunk: 4, budget: 1 << 30, half }));
    let exact = pipeline.generate(&request(false)).expect("a generation");
    // Keys and values cached in full precision are not used for a request in half precision: otherwise an image would
    // depend on earlier requests.
    let first = pipeline.generate(&request(true)).expect("a generation");
    assert_eq!((first.report.reference_passes, exact.report.reference_passes), (9, 9));
    assert_eq!(first.report.cache.bytes, exact.report.cache.bytes * 3 / 2, "both are kept");
    let second = pipeline.generate(&request(true)).expect("a generation");
    assert_eq!(second.report.reference_passes, 0);
    assert_again(&values(&first.latents), &values(&second.latents), "latents");
    let (exact, rounded) = (values(&exact.latents), values(&first.latents));
    let largest = exact.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
    let apart = exact.iter().zip(&rounded).fold(0.0_f32, |top, (a, b)| top.max((a - b).abs()));
    assert!(apart > 0.0 && apart < 5e-3 * largest, "{apart} of {largest}");
}

/// Returns the files that a pipeline spilled to this folder.
fn spilled(place: &Path) -> Vec<std::path::PathBuf> {
    let own = std::fs::read_dir(place).expect("the folder").map(|own| own.expect("its entry").path());
    own.flat_map(|own| std::fs::read_dir(own).expect("a pipeline's folder"))
        .map(|file| file.expect("its entry").path())
        .collect()
}

#[test]
fn what_was_spilled_to_disk_makes_the_same_images() {
    // Budgets that fit nothing or some; in full precision, in half precision, and with merged tokens.
    for (budget, half, merge) in [(0, false, 0.0), (200_000, false, 0.0), (0, true, 0.0), (0, false, 0.5)] {
        if half && !has_halves() {
            continue;
        }
        let pass = ReferencePass::Cached { chunk: 2, budget, half };
        let request =
            both(FabricSettings { execution: FabricExecution { pass, token_merge_ratio: merge }, ..everywhere() });
        let unspilled = make(&request);
        let place = tempfile::tempdir().expect("a folder");
        let pipeline = fresh_pipeline().with_spill(place.path(), 1 << 30).expect("room to spill");
        let first = pipeline.generate(&request).expect("a generation");
        let second = pipeline.generate(&request).expect("a generation");
        assert_again(&values(&unspilled.latents), &values(&first.latents), "latents");
        assert_again(&values(&unspilled.latents), &values(&second.latents), "latents");
        assert_eq!((first.report.reference_passes, second.report.reference_passes), (9, 0));
        let cache = second.report.cache;
        assert_eq!((cache.hits + cache.disk_hits, cache.misses, cache.disk_failures), (9, 9, 0), "{cache:?}");
        assert!(cache.bytes <= budget && cache.disk_hits > 0 && cache.disk_bytes > 0, "{cache:?}");
        assert_eq!(spilled(place.path()).len() as u64, cache.disk_hits);
        assert_eq!(second.report.spill_error, None);
        let copy = pipeline.clone();
        drop(pipeline);
        assert_eq!(copy.generate(&request).expect("a generation").report.reference_passes, 0);
        drop(copy);
        assert_eq!(std::fs::read_dir(place.path()).expect("the folder").count(), 0, "nothing stays behind");
    }
}

#[test]
fn a_disk_that_fails_changes_no_image() {
    let pass = ReferencePass::Cached { chunk: 2, budget: 0, half: false };
    let request = both(everywhere().with_pass(pass));
    let unspilled = make(&request);
    let place = tempfile::tempdir().expect("a folder");
    let pipeline = fresh_pipeline().with_spill(place.path(), 1 << 30).expect("room to spill");
    let again = || pipeline.generate(&request).expect("a generation");
    let same = |a: &Generation, b: &Generation| assert_again(&values(&a.latents), &values(&b.latents), "latents");
    let first = again();
    same(&unspilled, &first);
    assert_eq!(first.report.reference_passes, 9);
    let files = spilled(place.path());
    std::fs::write(&files[0], "shortened").expect("a file");
    let length = std::fs::metadata(&files[1]).expect("a file").len();
    std::fs::write(&files[1], vec![7; length as usize]).expect("a file");
    std::fs::remove_file(&files[2]).expect("a file");
    // Damaged entries are recorded again in other batches, which changes the last bit on some processors.
    let mended = again();
    assert_same(&unspilled, &mended);
    let report = &mended.report;
    assert_eq!((report.reference_passes, report.cache.disk_failures), (3, 3), "what is damaged is made again");
    assert!(report.spill_error.as_ref().is_some_and(|error| error.contains("recorded again")));
    let kept = again();
    same(&mended, &kept);
    assert_eq!((kept.report.reference_passes, kept.report.spill_error), (0, None), "and spilled again");
    std::fs::remove_dir_all(files[0].parent().expect("the pipeline's folder")).expect("removed");
    for _ in 0..2 {
        let without = again();
        same(&unspilled, &without);
        assert_eq!(without.report.reference_passes, 9);
        assert!(without.report.spill_error.is_some_and(|error| error.contains("nothing more is spilled")));
    }
}

#[test]
fn merged_tokens_take_less_memory_and_change_little() {
    let pipeline = fresh_pipeline();
    let request = |merge, pass| {
        both(FabricSettings { execution: FabricExecution { pass, token_merge_ratio: merge }, ..everywhere() })
    };
    let make = |merge, pass| pipeline.generate(&request(merge, pass)).expect("a generation");
    let cached = ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: false };
    let whole = make(0.0, cached);
    let merged = make(0.5, cached);
    assert_eq!(
        (merged.report.cache.misses, merged.report.cache.hits),
        (18, 0),
        "what is whole does not serve for merged"
    );
    assert_eq!(merged.report.cache.bytes, whole.report.cache.bytes * 3 / 2, "both are kept");
    let again = make(0.5, cached);
    assert_eq!(again.report.reference_passes, 0);
    assert_again(&values(&merged.latents), &values(&again.latents), "latents");
    // The other passes give nearly the same image.
    let effect = distance(&whole, &merged);
    for pass in [ReferencePass::Interleaved, ReferencePass::TwoPasses { chunk: 2 }] {
        assert!(distance(&merged, &make(0.5, pass)) < effect / 10.0, "{pass:?}");
    }
    let plain = pipeline.generate(&self::request(everywhere())).expect("a generation");
    assert!(effect > 0.0 && effect < distance(&whole, &plain), "{effect}");
}

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
fn kept_tokens_serve_other_prompts_and_seeds() {
    let pipeline = fresh_pipeline();
    let fabric = everywhere().with_pass(ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: false });
    pipeline.generate(&both(fabric.clone())).expect("a generation");
    let mut other = both(fabric).with_seeds([5, 6]);
    other.prompt = "a drawing of a house".to_owned();
    let kept = pipeline.generate(&other).expect("a generation");
    assert_eq!(kept.report.reference_passes, 0);
    other.settings.fabric.execution.pass = ReferencePass::Interleaved;
    assert_same(&kept, &make(&other));
}

#[test]
fn other_text_settings_do_not_get_kept_tokens() {
    let pipeline = fresh_pipeline();
    let fabric = everywhere().with_pass(ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: false });
    pipeline.generate(&both(fabric.clone())).expect("a generation");
    let mut skipped = both(fabric);
    skipped.settings.text.clip_skip = Some(1);
    assert_eq!(pipeline.generate(&skipped).expect("a generation").report.reference_passes, 9);
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

#[test]
fn a_long_prompt_is_cut_with_a_word_about_it_or_read_in_windows() {
    let mut request = request(everywhere());
    request.prompt = "a very long prompt about nothing at all ".repeat(20);
    let cut = make(&request);
    assert!(!cut.report.truncated.is_empty());
    request.settings.text.long_prompts = true;
    let whole = make(&request);
    assert!(whole.report.truncated.is_empty());
    assert_differ(&cut, &whole);
}

#[test]
fn prompt_weights_are_read_only_when_asked_for() {
    let prompt = |text: &str, weights| {
        let mut request = request(everywhere());
        request.prompt = text.to_owned();
        request.settings.text.weights = weights;
        make(&request)
    };
    assert_same(&prompt("a cat", false), &prompt("a cat", true));
    assert_differ(&prompt("a (cat:1.5)", false), &prompt("a (cat:1.5)", true));
    assert_differ(&prompt("a cat", true), &prompt("a (cat:1.5)", true));
}

/// Request with prompt dropout where some seeds keep more words than fit into a tokenizer window (75), and some fewer.
fn dropping_out(seeds: std::ops::Range<u64>) -> Request {
    let mut request = request(everywhere()).with_seeds(seeds);
    request.prompt = vec!["cat"; 108].join(" ");
    request.settings.prompt_dropout = 0.3;
    request
}

#[test]
fn an_image_of_a_long_prompt_with_dropout_does_not_depend_on_its_batch() {
    let mut request = dropping_out(0..6);
    let cut_off = |seed| !make(&Request { seeds: vec![seed], ..request.clone() }).report.truncated.is_empty();
    let two_windows: Vec<bool> = (0..6).map(cut_off).collect();
    assert!(two_windows.contains(&true) && two_windows.contains(&false), "else this proves nothing: {two_windows:?}");
    request.settings.text.long_prompts = true;
    let together = make(&request);
    for seed in 0..6 {
        let of_batch = together.latents.clone().slice_dim(0, seed..seed + 1);
        let alone = make(&Request { seeds: vec![seed as u64], ..request.clone() });
        assert_same(&Generation { latents: of_batch, ..together.clone() }, &alone);
    }
}

#[test]
fn a_report_says_what_each_batch_lost() {
    let mut request = dropping_out(0..6);
    let of_each = |seed| make(&Request { seeds: vec![seed], ..request.clone() }).report.truncated;
    let mut expected: Vec<String> = (0..6).flat_map(of_each).collect();
    request.settings.batch = Some(1);
    let mut got = make(&request).report.truncated;
    [&mut expected, &mut got].into_iter().for_each(|texts| texts.sort());
    expected.dedup();
    assert!(expected.len() > 1, "else this proves nothing: {expected:?}");
    assert_eq!(got, expected);
}

/// Noise source of a caller: halves the seeded noise of references.
struct Injected(SeededNoise);

impl RunNoise for Injected {
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        let noise = self.0.draw(what, shape)?;
        Ok(if matches!(what, Draw::Reference { .. }) { noise * 0.5 } else { noise })
    }
}

#[test]
fn keys_of_references_under_other_noise_are_neither_kept_nor_served() {
    let pass = ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false };
    let request = both(everywhere().with_pass(pass));
    let seeded = || SeededNoise::new(&request.seeds, &fabric::default_device().expect("a device"));
    let injected = || Box::new(Injected(seeded())) as Box<dyn RunNoise>;
    let fresh = || Box::new(seeded().with_fresh_references()) as Box<dyn RunNoise>;
    let expected = fresh_pipeline().generate(&request).expect("a generation");
    for other in [&injected as &dyn Fn() -> Box<dyn RunNoise>, &fresh] {
        let pipeline = fresh_pipeline();
        let with_other = || pipeline.generate_with(&request, &mut *other(), &mut ()).expect("a generation");
        let before = with_other();
        assert_differ(&before, &expected);
        assert_eq!((before.report.reference_passes, pipeline.cache_stats().bytes), (9, 0), "nothing is kept");
        let own = pipeline.generate(&request).expect("a generation");
        assert_again(&values(&own.latents), &values(&expected.latents), "a run with noise of its own");
        assert_eq!(own.report.reference_passes, 9);
        let after = with_other();
        assert_again(&values(&after.latents), &values(&before.latents), "a run that must not be served");
        assert_eq!(after.report.reference_passes, 9);
    }
    let pipeline = fresh_pipeline();
    pipeline.generate_with(&request, &mut seeded(), &mut ()).expect("a generation");
    assert_eq!(pipeline.generate(&request).expect("a generation").report.reference_passes, 0, "the same noise is");
}

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
