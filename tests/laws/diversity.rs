//! Options against the loss of diversity under guidance: a window, CADS and adaptive projected guidance.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use fabric::core::denoise::ModelCall;
use fabric::core::guidance::{Apg, Guidance};
use fabric::core::models::{Residuals, UNetInput};
use fabric::core::pipeline::{BatchLayout, Cads, Conditioning, PreparedConditioning, RunContext, Window};

use super::*;

/// Conditioning that changes nothing, notes the rows of images in each pass, and may require four branches.
#[derive(Debug, Clone, Default)]
struct Rows {
    seen: Arc<Mutex<Vec<usize>>>,
    needs_four_branches: bool,
}

impl Rows {
    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
    }
}

impl Conditioning for Rows {
    fn prepare(&self, _: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn guidance(&self, scale: f64) -> Option<Guidance> {
        self.needs_four_branches.then(|| Guidance::instructed(scale, 4.0, 2.0))
    }
}

impl PreparedConditioning for Rows {
    fn residuals(
        &self,
        _: &ModelCall,
        input: &UNetInput<'_>,
        layout: &BatchLayout,
    ) -> Result<Option<Residuals>, Error> {
        assert_eq!(input.sample.dims()[0], layout.image_rows());
        assert_eq!(input.context.dims()[0], layout.image_rows());
        self.seen.lock().expect("no panic").push(layout.image_rows());
        Ok(None)
    }
}

/// Observer that notes the rows of images that the U-Net predicts in each evaluation.
#[derive(Default)]
struct Predicted(Vec<usize>);

impl Observer for Predicted {
    fn predictions(&mut self, _: &ModelCall, predictions: &Tensor<4>) {
        self.0.push(predictions.dims()[0]);
    }
}

fn window(start: f64, end: f64) -> Window {
    Window::new(start, end).expect("a window")
}

fn in_window(mut request: Request, start: f64, end: f64) -> Request {
    request.settings.guidance_window = window(start, end);
    request
}

fn annealed(mut request: Request, cads: Cads) -> Request {
    request.settings.cads = Some(cads);
    request
}

fn projected(mut request: Request, apg: Apg) -> Request {
    request.settings.apg = Some(apg);
    request
}

/// Settings with which it is classifier-free guidance.
const PLAIN: Apg = Apg { momentum: 0.0, rescale: 0.0, parallel: 1.0 };

/// Replaces the prompt by noise at every evaluation.
const NOISE_ALONE: Cads = Cads { noise_scale: 1.0, prompt_only_below: 0.0, noise_only_above: 0.0, mixing: 1.0 };

#[track_caller]
fn assert_each_alone(request: &Request) {
    let request = request.clone().with_seeds([4, 7, 11]);
    let together = make(&request);
    let mut parts = request.clone();
    parts.settings.batch = Some(2);
    assert_same(&together, &make(&parts));
    let alone = make(&Request { seeds: vec![7], ..request });
    assert_same(&Generation { latents: together.latents.clone().slice_dim(0, 1..2), ..together }, &alone);
}

#[test]
fn an_empty_guidance_window_is_a_guidance_of_one() {
    let mut one = request(everywhere()).with_liked(image(1, 64));
    let never = make(&in_window(one.clone(), 0.0, 0.0));
    one.settings.guidance_scale = 1.0;
    assert_again(&values(&never.latents), &values(&make(&one).latents), "latents");
    assert!(never.report.notes.iter().any(|note| note.contains("`guidance_window`")), "{:?}", never.report.notes);
    // At a scale of 1 the window is not the reason.
    let off = projected(in_window(one, 0.0, 0.0), Apg::default());
    assert_eq!(make(&off).report.notes, ["`apg` has no effect: only one branch runs at a guidance scale of 1"]);
}

#[test]
fn outside_of_the_guidance_window_only_the_conditional_branch_runs() {
    for (needs_four_branches, branches) in [(false, 2), (true, 4)] {
        let rows = Rows { needs_four_branches, ..Rows::default() };
        let whole = request(everywhere()).with_seeds([1, 2]).with(rows.clone());
        for (start, end, expected) in [
            (0.0, 1.0, [2 * branches, 2 * branches, 2 * branches]),
            (0.0, 0.5, [2 * branches, 2, 2]),
            (0.3, 0.7, [2, 2 * branches, 2]),
            (0.6, 1.0, [2, 2, 2 * branches]),
            (0.0, 0.0, [2, 2, 2]),
        ] {
            let mut predicted = Predicted::default();
            let request = in_window(whole.clone(), start, end);
            pipeline().generate_observed(&request, &mut predicted).expect("images");
            assert_eq!(predicted.0, expected, "{start} to {end} of {branches} branches");
            assert_eq!(rows.take(), expected, "{start} to {end} of {branches} branches");
        }
    }
}

#[test]
fn a_guidance_window_changes_the_image_and_not_with_its_batch() {
    let whole = make(&both(everywhere()));
    let early = make(&in_window(both(everywhere()), 0.0, 0.5));
    let late = make(&in_window(both(everywhere()), 0.6, 1.0));
    assert_differ(&whole, &early);
    assert_differ(&whole, &late);
    assert_differ(&early, &late);
    assert_each_alone(&in_window(both(everywhere()), 0.0, 0.5));
}

#[test]
fn disliked_images_act_inside_the_guidance_window_in_every_pass() {
    let way =
        |pass| fresh_pipeline().generate(&in_window(both(everywhere().with_pass(pass)), 0.3, 0.7)).expect("images");
    let interleaved = way(ReferencePass::Interleaved);
    // Two liked images in three evaluations, and a disliked one in the middle.
    assert_eq!((interleaved.report.reference_passes, interleaved.report.calls_with_references), (7, 3));
    for pass in
        [ReferencePass::TwoPasses { chunk: 2 }, ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }]
    {
        let other = way(pass);
        assert_same(&interleaved, &other);
        assert_eq!(other.report.reference_passes, 7);
    }
    // Here the weights of references are 0 in the only evaluation with guidance.
    let late = FabricSettings { start: 0.5, min_weight: 0.0, ..everywhere() };
    let apart = make(&in_window(both(late), 0.0, 0.4));
    assert_eq!(apart.report.references_without_effect, 1);
    assert!(apart.report.notes.iter().any(|note| note.contains("`guidance_window`")), "{:?}", apart.report.notes);
}

#[test]
fn notes_on_the_guidance_scale_are_about_the_window() {
    let mut request = in_window(request(everywhere()), 0.0, 0.5);
    request.settings.guidance_scale = 0.0;
    let notes = make(&request).report.notes;
    assert!(
        notes.iter().any(|note| note.starts_with("inside `guidance_window`, the prompt has no effect")),
        "{notes:?}"
    );
}

#[test]
fn a_warm_up_runs_inside_and_outside_of_the_guidance_window() {
    let rows = Rows::default();
    let request = request(everywhere()).with_seeds([1, 2]).with(rows.clone());
    let pipeline = fresh_pipeline();
    for (scale, start, end, expected) in [
        (5.0, 0.0, 1.0, vec![4]),
        (5.0, 0.3, 0.7, vec![4, 2]),
        // No evaluation lies inside.
        (5.0, 0.0, 0.0, vec![2]),
        // Outside of the window is as inside.
        (1.0, 0.3, 0.7, vec![2]),
    ] {
        let mut request = in_window(request.clone(), start, end);
        request.settings.guidance_scale = scale;
        pipeline.warm_up(&request).expect("a warm-up");
        assert_eq!(rows.take(), expected, "{start} to {end} at a scale of {scale}");
    }
}

#[test]
fn a_warm_up_has_the_batches_of_the_run() {
    let rows = Rows::default();
    let mut request = in_window(request(everywhere()), 0.0, 0.5).with_seeds(0..64).with(rows.clone());
    (request.settings.width, request.settings.height) = (Some(32), Some(32));
    let pipeline = fresh_pipeline();
    let fits = |limit: &u64| {
        let settings = Settings { memory_limit: Some(*limit), ..request.settings.clone() };
        pipeline.generate(&Request { seeds: vec![0], settings, ..request.clone() }).is_ok()
    };
    request.settings.memory_limit = (10..40).map(|power| 1 << power).find(fits);
    rows.take();
    let sizes = || rows.take().into_iter().collect::<BTreeSet<usize>>();
    pipeline.generate(&request).expect("images");
    let run = sizes();
    assert!(run.last().is_some_and(|most| *most < 128), "{run:?} in one batch: this would prove nothing");
    pipeline.warm_up(&request).expect("a warm-up");
    assert_eq!(sizes(), run);
}

#[test]
fn the_memory_that_a_run_needs_is_that_of_its_largest_evaluation() {
    // References act in the second evaluation only.
    let late = FabricSettings { start: 0.5, min_weight: 0.0, ..everywhere() }.with_pass(ReferencePass::Interleaved);
    let mut late = (0..100).fold(request(late), |request, at| request.with_liked(image(at, 8)));
    (late.settings.width, late.settings.height, late.settings.steps) = (Some(32), Some(32), 2);
    let fits = |request: &Request, limit| {
        let settings = Settings { memory_limit: Some(limit), ..request.settings.clone() };
        pipeline().generate(&Request { settings, ..request.clone() }).is_ok()
    };
    // The least limit for one branch with the references, to within a part in a thousand.
    let mut alone = late.clone();
    alone.settings.guidance_scale = 1.0;
    let mut enough = (10..40).map(|power| 1 << power).find(|&limit| fits(&alone, limit)).expect("a limit");
    let mut little = enough / 2;
    for _ in 0..10 {
        let middle = little.midpoint(enough);
        if fits(&alone, middle) {
            enough = middle;
        } else {
            little = middle;
        }
    }
    // Two branches run in the first evaluation only, without the references.
    assert!(fits(&in_window(late.clone(), 0.0, 0.5), enough));
    assert!(!fits(&late, enough), "two branches with the references need more");
}

#[test]
fn cached_references_are_those_of_any_guidance_window_and_cads() {
    let request = both(everywhere().with_pass(ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }));
    let pipeline = fresh_pipeline();
    // The disliked image acts in one evaluation of the first run, and in the two others of the second run.
    for (request, passes) in
        [(in_window(request.clone(), 0.3, 0.7), 7), (request.clone(), 2), (annealed(request, NOISE_ALONE), 0)]
    {
        let made = pipeline.generate(&request).expect("images");
        assert_same(&made, &fresh_pipeline().generate(&request).expect("images"));
        assert_eq!(made.report.reference_passes, passes);
    }
}

#[test]
fn disliked_images_act_on_the_other_branches_of_four_inside_the_window() {
    let rows = Rows { needs_four_branches: true, ..Rows::default() };
    let way = |pass, disliked: bool| {
        let fabric = everywhere().with_pass(pass);
        let request =
            if disliked { both(fabric) } else { request(fabric).with_liked(image(1, 64)).with_liked(image(2, 64)) };
        let mut predicted = Predicted::default();
        let request = in_window(request.with(rows.clone()), 0.3, 0.7);
        let made = fresh_pipeline().generate_observed(&request, &mut predicted).expect("images");
        assert_eq!(predicted.0, [1, 4, 1]);
        made
    };
    let interleaved = way(ReferencePass::Interleaved, true);
    assert_eq!(interleaved.report.reference_passes, 7);
    // The image acts in one of three evaluations; `assert_same` allows for 2e-5.
    let effect = distance(&interleaved, &way(ReferencePass::Interleaved, false));
    assert!(effect > 1e-4, "differ by {effect:.1e} only: this would prove nothing");
    for pass in
        [ReferencePass::TwoPasses { chunk: 2 }, ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false }]
    {
        assert_same(&interleaved, &way(pass, true));
    }
}

#[test]
fn measured_attention_does_not_depend_on_the_batch() {
    let mut request = in_window(both(everywhere()), 0.0, 0.5).with_seeds([4, 7, 11]);
    request.settings.measure_attention = true;
    let together = make(&request).report.attention;
    request.settings.batch = Some(1);
    let alone = make(&request).report.attention;
    assert_eq!((together.len(), alone.len()), (3, 3));
    for (together, alone) in together.iter().zip(&alone) {
        assert!((together.mean - alone.mean).abs() < 1e-4, "{} and {}", together.mean, alone.mean);
        assert_eq!(together.layers.len(), alone.layers.len());
        for (one, other) in together.layers.iter().zip(&alone.layers) {
            assert_eq!((&one.layer, one.shares.len()), (&other.layer, other.shares.len()));
            let near = one.shares.iter().zip(&other.shares).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(near, "{one:?} and {other:?}");
        }
        let [one, other] = [together, alone].map(|attention| attention.maps.concat().concat());
        assert_eq!(one.len(), 3 * 16 * 16);
        assert!(common::distance(&one, &other) < 1e-4);
    }
}

#[test]
fn cads_without_effect_changes_nothing() {
    let plain = make(&both(everywhere()));
    let cads = Cads { noise_scale: 0.0, prompt_only_below: 1.0, noise_only_above: 1.0, mixing: 0.0 };
    let with = make(&annealed(both(everywhere()), cads));
    assert_again(&values(&plain.latents), &values(&with.latents), "latents");
}

#[test]
fn cads_without_effect_says_so() {
    let notes = |scale, cads| {
        let mut request = annealed(request(everywhere()), cads);
        request.settings.guidance_scale = scale;
        make(&request).report.notes
    };
    let late = Cads { prompt_only_below: 1.0, noise_only_above: 1.0, ..NOISE_ALONE };
    let soft = Cads { noise_scale: 0.0, prompt_only_below: 0.0, noise_only_above: 1.0, mixing: 1.0 };
    for (scale, cads, reason) in [
        (5.0, late, "a time above `cads.prompt_only_below`"),
        (5.0, soft, "`cads.noise_scale` is 0"),
        (0.0, NOISE_ALONE, "the prompt's branch does not run"),
    ] {
        let notes = notes(scale, cads);
        let is_named = |note: &String| note.starts_with("`cads` has no effect") && note.contains(reason);
        assert!(notes.iter().any(is_named), "{reason}: {notes:?}");
    }
    assert_eq!(notes(5.0, NOISE_ALONE), [""; 0]);
    assert_eq!(notes(5.0, Cads { mixing: 0.5, ..soft }), [""; 0], "the prompt is weaker");
}

#[test]
fn cads_changes_the_image_and_not_with_its_batch() {
    let cads = Cads { noise_scale: 0.5, prompt_only_below: 0.1, noise_only_above: 0.9, mixing: 0.7 };
    assert_differ(&make(&both(everywhere())), &make(&annealed(both(everywhere()), cads)));
    assert_each_alone(&annealed(both(everywhere()), cads));
}

#[test]
fn cads_leaves_only_the_negative_prompt_to_the_unconditional_branch() {
    let cat = annealed(request(everywhere()), Cads { mixing: 0.0, ..NOISE_ALONE });
    let dog = Request { prompt: "a drawing of a dog".to_owned(), ..cat.clone() };
    // The prompt is gone, and the negative prompt is not.
    assert_same(&make(&cat), &make(&dog));
    assert_differ(&make(&cat), &make(&cat.clone().with_negative_prompt("a drawing of a dog")));
}

#[test]
fn apg_without_its_changes_is_classifier_free_guidance() {
    for sampler in ["euler", "ddim", "dpmpp_2m_karras"] {
        for rescale in [0.0, 0.7] {
            let mut request = both(everywhere());
            request.settings.sampler = Some(sampler.parse().expect("a sampler"));
            request.settings.guidance_rescale = rescale;
            assert_same(&make(&request), &make(&projected(request.clone(), PLAIN)));
        }
    }
}

#[test]
fn each_setting_of_apg_changes_the_image_and_not_with_its_batch() {
    let mut request = both(everywhere());
    request.settings.guidance_scale = 15.0;
    let plain = make(&request);
    for apg in [Apg { momentum: -0.5, ..PLAIN }, Apg { rescale: 1e-2, ..PLAIN }, Apg { parallel: 0.0, ..PLAIN }] {
        // The parallel component is small in the tiny network, but far above the rounding that `assert_same` allows.
        let error = distance(&plain, &make(&projected(request.clone(), apg)));
        assert!(error > 1e-4, "{apg:?}: differ by {error:.1e} only: this would prove nothing");
    }
    request.settings.guidance_scale = 5.0;
    for rescale in [0.0, 1e-2] {
        assert_each_alone(&projected(request.clone(), Apg { rescale, ..Apg::default() }));
    }
}

#[test]
fn apg_acts_inside_the_guidance_window() {
    let plain = in_window(both(everywhere()), 0.0, 0.5);
    assert_same(&make(&plain), &make(&projected(plain.clone(), PLAIN)));
    assert_differ(&make(&plain), &make(&projected(plain.clone(), Apg { rescale: 1e-2, ..PLAIN })));
}

#[test]
fn apg_with_one_branch_has_no_effect_and_says_so() {
    for scale in [0.0, 1.0] {
        let mut request = request(everywhere());
        request.settings.guidance_scale = scale;
        let made = make(&projected(request.clone(), Apg::default()));
        assert_again(&values(&make(&request).latents), &values(&made.latents), "latents");
        assert!(
            made.report.notes.iter().any(|note| note.starts_with("`apg` has no effect")),
            "{:?}",
            made.report.notes
        );
    }
}

#[test]
fn apg_with_four_branches_is_refused() {
    let request = request(everywhere()).with(Rows { needs_four_branches: true, ..Rows::default() });
    assert!(request.validate().is_ok());
    let message = pipeline().generate(&projected(request, Apg::default())).expect_err("four branches").to_string();
    assert!(message.starts_with("apg: expected classifier-free guidance"), "{message}");
}
