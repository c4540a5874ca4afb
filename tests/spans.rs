//! Spans for `tracing`: they nest as `fabric::core::spans` describes, and are left whichever way a run ends.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fabric::core::Error;
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Request, Settings, StepEvent};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelOptions, load_model};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Fields of a span, as texts.
#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// A span that was entered: the names of the spans around it and its own, and its fields.
#[derive(Debug, Clone)]
struct Entered {
    path: String,
    fields: Fields,
}

impl Entered {
    fn field(&self, name: &str) -> &str {
        self.fields.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> f64 {
        self.field(name).parse().expect(name)
    }
}

#[derive(Default)]
struct Recorded {
    /// Name and fields of every span. The id of a span is its position, counted from 1.
    spans: Vec<(&'static str, Fields)>,
    /// The spans that are entered now, the outermost first.
    open: Vec<Id>,
    entered: Vec<Entered>,
    events: usize,
}

/// Subscriber that writes down the spans of this library as they are entered.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fabric")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut recorded = self.lock();
        recorded.spans.push((span.metadata().name(), fields));
        Id::from_u64(recorded.spans.len() as u64)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {
        self.lock().events += 1;
    }

    fn enter(&self, span: &Id) {
        let mut recorded = self.lock();
        recorded.open.push(span.clone());
        let of = |id: &Id| &recorded.spans[id.into_u64() as usize - 1];
        let names: Vec<&str> = recorded.open.iter().map(|id| of(id).0).collect();
        let entered = Entered { path: names.join("/"), fields: of(span).1.clone() };
        recorded.entered.push(entered);
    }

    fn exit(&self, span: &Id) {
        assert_eq!(self.lock().open.pop().as_ref(), Some(span), "the innermost span is left first");
    }
}

/// Runs `work`, and returns its result with the spans that it entered, in order.
fn recorded<T>(work: impl FnOnce() -> T) -> (T, Vec<Entered>) {
    let recorder = Recorder::default();
    let result = tracing::subscriber::with_default(recorder.clone(), work);
    let mut recorded = recorder.lock();
    assert!(recorded.open.is_empty(), "every span was left");
    assert_eq!(recorded.events, 0, "the library writes no events");
    (result, std::mem::take(&mut recorded.entered))
}

fn paths(entered: &[Entered]) -> Vec<&str> {
    entered.iter().map(|span| span.path.as_str()).collect()
}

/// The spans of this path.
fn at<'a>(entered: &'a [Entered], path: &str) -> Vec<&'a Entered> {
    entered.iter().filter(|span| span.path == path).collect()
}

fn load() -> Pipeline {
    let device = fabric::default_device().expect("a device");
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    load_model(folder, &device, &options).expect("a pipeline").0
}

/// Loads the pipeline under a subscriber, as all work of this file. `tracing` decides whether a span is on when it is
/// opened for the first time. While there is only one subscriber, it asks that of the current thread, so a thread
/// without one would turn the span off for the other tests.
fn pipeline() -> Pipeline {
    recorded(load).0
}

fn request(sampler: &str) -> Request {
    let sampler = Some(sampler.parse().expect("a sampler"));
    let settings = Settings { width: Some(64), height: Some(64), steps: 2, sampler, ..Settings::default() };
    Request::new("a cat").with_settings(settings)
}

#[test]
fn loading_has_a_span_with_one_for_each_network() {
    let (_, entered) = recorded(load);
    let component = "load_model/load_component";
    assert_eq!(paths(&entered), ["load_model", component, component, component]);
    assert_eq!(entered[0].field("model"), "\"models\"");
    let components: Vec<&str> = entered[1..].iter().map(|span| span.field("component")).collect();
    assert_eq!(components, ["\"text_encoder\"", "\"unet\"", "\"vae\""]);
}

#[test]
fn a_run_has_spans_for_its_phases_and_evaluations_in_each_batch() {
    let pipeline = pipeline();
    let mut request = request("ddim").with_seeds([1, 2]);
    request = request.with_liked(Image::filled(64, 64, [200, 40, 40]).expect("an image"));
    request.settings.batch = Some(1);
    let everywhere = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::default() };
    request.settings.fabric = everywhere.with_pass(ReferencePass::TwoPasses { chunk: 1 });
    let (made, entered) = recorded(|| pipeline.generate(&request));
    made.expect("images");

    let evaluation = "generate/denoising/evaluation";
    let reference_pass = "generate/denoising/evaluation/reference_pass";
    let denoising = ["generate/denoising", evaluation, reference_pass, evaluation, reference_pass];
    let batch = [&["generate/text", "generate/encoding"][..], &denoising[..], &["generate/decoding"][..]].concat();
    assert_eq!(paths(&entered), [&["generate", "generate/conditioning"][..], &batch[..], &batch[..]].concat());

    let fields = ["images", "steps", "width", "height"].map(|name| entered[0].field(name));
    assert_eq!(fields, ["2", "2", "64", "64"]);
    let evaluations = at(&entered, evaluation);
    let steps: Vec<&str> = evaluations.iter().map(|span| span.field("step")).collect();
    assert_eq!(steps, ["1", "2", "1", "2"]);
    for pair in evaluations.chunks(2) {
        for name in ["timestep", "sigma"] {
            assert!(pair[0].number(name) > pair[1].number(name), "{name} falls: {pair:?}");
        }
    }
    assert!(at(&entered, reference_pass).iter().all(|span| span.field("references") == "1"));
}

#[test]
fn both_evaluations_of_a_step_have_its_number() {
    let pipeline = pipeline();
    let (made, entered) = recorded(|| pipeline.generate(&request("heun")));
    made.expect("an image");
    let evaluations = at(&entered, "generate/denoising/evaluation");
    let steps: Vec<&str> = evaluations.iter().map(|span| span.field("step")).collect();
    assert_eq!(steps, ["1", "1", "2"]);
}

#[test]
fn a_cancelled_run_leaves_all_spans() {
    let pipeline = pipeline();
    let mut cancel = |_: &StepEvent<'_>| -> ControlFlow<()> { ControlFlow::Break(()) };
    let (made, entered) = recorded(|| pipeline.generate_observed(&request("ddim"), &mut cancel));
    assert!(matches!(made, Err(Error::Cancelled { step: 1, .. })), "{made:?}");
    assert_eq!(paths(&entered).last(), Some(&"generate/denoising/evaluation"));
}
