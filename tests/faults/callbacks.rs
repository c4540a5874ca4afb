//! Panics in the caller's own code: observers, samplers, sources of noise and conditionings. That of an observer at steps,
//! references and predictions is tested in `tests/pool.rs`.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use fabric::core::Error;
use fabric::core::attention::{AttnCall, AttnExtras, AttnProcessor};
use fabric::core::denoise::ModelCall;
use fabric::core::guidance::Guidance;
use fabric::core::image::Image;
use fabric::core::models::{Residuals, UNetInput};
use fabric::core::noise::{Draw, RunNoise, SeededNoise};
use fabric::core::pipeline::{
    BatchLayout, Conditioning, Observer, Phase, PhaseEvent, Pipeline, PreparedConditioning, Request, RunContext,
    StepEvent,
};
use fabric::core::samplers::{Sampler, SamplerRun};
use fabric::core::schedule::{SamplerKind, SigmaCurve};

use crate::images::{assert_same, request};
use crate::models::{device, pipeline};

const SAID: &str = "the window is closed";

/// Asserts that a run failed because this callback panicked, and that the next run of the pipeline is unharmed.
#[track_caller]
fn assert_callback(got: Result<impl Sized, Error>, named: &str, what: &str) {
    match got.err() {
        Some(Error::Callback { callback, message }) => assert!(callback == named && message.contains(SAID), "{what}"),
        other => panic!("{what}: expected a panic of the {named}, got {other:?}"),
    }
}

/// Observer that panics when a phase begins, or when an image is decoded.
struct Clumsy {
    phase: Option<Phase>,
    image: Option<usize>,
}

impl Observer for Clumsy {
    fn phase(&mut self, event: &PhaseEvent) -> ControlFlow<()> {
        assert_ne!(self.phase, Some(event.phase), "{SAID}");
        ControlFlow::Continue(())
    }

    fn image(&mut self, index: usize, _image: &Image) {
        assert_ne!(self.image, Some(index), "{SAID}");
    }
}

#[test]
fn a_panic_of_an_observer_in_any_phase_is_its_own_and_the_next_image_is_the_same() {
    let pipeline = pipeline();
    let expected = pipeline.generate(&request()).expect("images");
    let phases = [Phase::Conditioning, Phase::Text, Phase::Encoding, Phase::Denoising, Phase::Decoding];
    let clumsy = phases.map(|phase| Clumsy { phase: Some(phase), image: None });
    let at_images = [0, 1].map(|index| Clumsy { phase: None, image: Some(index) });
    for mut observer in clumsy.into_iter().chain(at_images) {
        let what = format!("{:?}, image {:?}", observer.phase, observer.image);
        pipeline.clear_caches();
        assert_callback(pipeline.generate_observed(&request(), &mut observer), "observer", &what);
        assert_same(&pipeline.generate(&request()).expect("images"), &expected, &what);
    }
}

/// Euler's method that panics in one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClumsySampler {
    Kind,
    First,
    AfterEvaluation(usize),
    AfterReport(usize),
    Last,
    Never,
}

impl ClumsySampler {
    fn reached(self, part: Self) {
        assert_ne!(self, part, "{SAID}");
    }
}

impl Sampler for ClumsySampler {
    fn kind(&self) -> SamplerKind {
        self.reached(Self::Kind);
        SamplerKind::Euler(SigmaCurve::Table)
    }

    fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
        self.reached(Self::First);
        for (at, step) in run.schedule().boundaries().windows(2).enumerate() {
            let denoised = run.denoise(&x)?;
            self.reached(Self::AfterEvaluation(at));
            x = x.clone() + (x - denoised) / step[0] * (step[1] - step[0]);
            x = run.report(x)?;
            self.reached(Self::AfterReport(at));
        }
        self.reached(Self::Last);
        Ok(x)
    }
}

#[test]
fn a_panic_of_a_sampler_of_ones_own_is_its_own_and_the_next_image_is_the_same() {
    let pipeline = pipeline();
    let with = |sampler| request().with_sampler(sampler);
    let expected = pipeline.generate(&with(ClumsySampler::Never)).expect("images");
    let parts = [ClumsySampler::Kind, ClumsySampler::First, ClumsySampler::Last];
    let evaluations = [0, 1].map(ClumsySampler::AfterEvaluation);
    for sampler in parts.into_iter().chain(evaluations).chain([0, 1].map(ClumsySampler::AfterReport)) {
        let what = format!("{sampler:?}");
        pipeline.clear_caches();
        assert_callback(pipeline.generate(&with(sampler)), "sampler", &what);
        assert_same(&pipeline.generate(&with(ClumsySampler::Never)).expect("images"), &expected, &what);
    }
}

#[test]
fn a_cancel_and_a_panic_of_an_observer_within_a_sampler_of_ones_own_keep_their_names() {
    let pipeline = pipeline();
    let request = request().with_sampler(ClumsySampler::Never);
    let cancelled = pipeline.generate_observed(&request, &mut |_: &StepEvent<'_>| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(Error::Cancelled { step: 1, .. })), "{cancelled:?}");
    let panicked = pipeline.generate_observed(&request, &mut |_: &StepEvent<'_>| panic!("{SAID}"));
    assert_callback(panicked, "observer", "a step");
}

/// Source of noise that panics at one of its draws.
struct ClumsyNoise {
    seeded: SeededNoise,
    left: usize,
}

impl RunNoise for ClumsyNoise {
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        assert_ne!(self.left, 0, "{SAID}");
        self.left -= 1;
        self.seeded.draw(what, shape)
    }
}

#[test]
fn a_panic_of_a_source_of_noise_is_its_own_and_the_next_image_is_the_same() {
    let pipeline = pipeline();
    let mut request = request();
    request.settings.sampler = Some("euler_a".parse().expect("a sampler"));
    let generate = |left| {
        let mut noise = ClumsyNoise { seeded: SeededNoise::new(&request.seeds, &device()), left };
        pipeline.generate_with(&request, &mut noise, &mut ())
    };
    let expected = generate(usize::MAX).expect("images");
    // The first latents, two posteriors, and for each of two steps the references and a step of the sampler.
    for left in 0..6 {
        assert_callback(generate(left), "noise source", &format!("draw {left}"));
        assert_same(&generate(usize::MAX).expect("images"), &expected, &format!("draw {left}"));
    }
}

/// Method of a [`ClumsyConditioning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Guidance,
    Prepare,
    VisibleToReferences,
    Notes,
    Attention,
    Extras,
    Residuals,
}

const METHODS: [Method; 7] = [
    Method::Guidance,
    Method::Prepare,
    Method::VisibleToReferences,
    Method::Notes,
    Method::Attention,
    Method::Extras,
    Method::Residuals,
];

/// Conditioning that changes nothing and panics in one of its methods.
#[derive(Debug, Clone, Copy)]
struct ClumsyConditioning(Option<Method>);

impl ClumsyConditioning {
    fn called(self, method: Method) {
        assert_ne!(self.0, Some(method), "{SAID}");
    }
}

impl Conditioning for ClumsyConditioning {
    fn prepare(&self, _run: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        self.called(Method::Prepare);
        Ok(Box::new(*self))
    }

    fn describe(&self) -> String {
        "a clumsy conditioning".to_owned()
    }

    fn guidance(&self, _scale: f64) -> Option<Guidance> {
        self.called(Method::Guidance);
        None
    }
}

impl PreparedConditioning for ClumsyConditioning {
    fn visible_to_references(&self) -> bool {
        self.called(Method::VisibleToReferences);
        false
    }

    fn notes(&self) -> Vec<String> {
        self.called(Method::Notes);
        Vec::new()
    }

    fn attention<'a>(&'a self, _call: &ModelCall, _layout: &BatchLayout) -> Box<dyn AttnProcessor + 'a> {
        self.called(Method::Attention);
        Box::new(*self)
    }

    fn residuals(
        &self,
        _call: &ModelCall,
        _input: &UNetInput<'_>,
        _layout: &BatchLayout,
    ) -> Result<Option<Residuals>, Error> {
        self.called(Method::Residuals);
        Ok(None)
    }
}

impl AttnProcessor for ClumsyConditioning {
    fn extras(&self, _call: &AttnCall<'_>) -> AttnExtras {
        self.called(Method::Extras);
        AttnExtras::default()
    }
}

#[test]
fn a_panic_of_a_conditioning_names_it_and_the_next_image_is_the_same() {
    let pipeline = pipeline();
    let expected = pipeline.generate(&request()).expect("images");
    let unharmed = pipeline.generate(&request().with(ClumsyConditioning(None))).expect("images");
    assert_same(&unharmed, &expected, "a conditioning that changes nothing");
    for method in METHODS {
        pipeline.clear_caches();
        let error = pipeline.generate(&request().with(ClumsyConditioning(Some(method)))).expect_err("a panic");
        let Error::Conditioning { name, message } = &error else { panic!("{method:?}: {error:?}") };
        assert!(name == "a clumsy conditioning" && message.contains(SAID), "{method:?}: {error}");
        assert!(error.to_string().contains("`a clumsy conditioning` panicked"), "{error}");
        assert_same(&pipeline.generate(&request()).expect("images"), &expected, &format!("{method:?}"));
    }
}

/// Conditioning that changes nothing and cannot be described.
#[derive(Debug)]
struct Indescribable;

impl Conditioning for Indescribable {
    fn prepare(&self, run: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        ClumsyConditioning(None).prepare(run)
    }

    fn describe(&self) -> String {
        panic!("{SAID}")
    }
}

#[test]
fn a_description_that_panics_costs_no_image_and_is_reported() {
    let pipeline = pipeline();
    let expected = pipeline.generate(&request()).expect("images");
    let request = request().with(Indescribable);
    let made = pipeline.generate(&request).expect("images");
    assert_same(&made, &expected, "a conditioning without a description");
    let said = |text: &String| text.contains("description panicked") && text.contains(SAID);
    assert!(made.report.origin.iter().any(said), "{:?}", made.report.origin);
    let metadata = made.metadata(&request, 0).expect("metadata");
    assert!(metadata.not_restored.iter().any(said), "{:?}", metadata.not_restored);
}

/// Panics in a callback of each kind in turn; for counts of memory.
pub(crate) fn panic_once(pipeline: &Pipeline, request: &Request, number: usize) {
    let request = request.clone();
    let got = match number % 3 {
        0 => pipeline.generate_observed(&request, &mut |_: &StepEvent<'_>| panic!("{SAID}")),
        1 => pipeline.generate(&request.with_sampler(ClumsySampler::AfterEvaluation(1))),
        _ => pipeline.generate(&request.with(ClumsyConditioning(Some(METHODS[number % METHODS.len()])))),
    };
    let error = got.expect_err("a panic");
    assert!(matches!(error, Error::Callback { .. } | Error::Conditioning { .. }), "{error:?}");
}
