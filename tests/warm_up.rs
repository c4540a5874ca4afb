//! A warm-up run does not change the results or the caches of later runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;
use fabric::core::Error;
use fabric::core::denoise::{ModelCall, NoiseLevel};
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::guidance::Branch;
use fabric::core::image::Image;
use fabric::core::models::{Residuals, UNetInput};
use fabric::core::pipeline::{
    BatchLayout, Conditioning, Pipeline, PreparedConditioning, Request, RunContext, Settings, Window,
};
use fabric::default_device;
use fabric::models::control::{Control, ControlNet};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelOptions, load_model};

fn load() -> Pipeline {
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    load_model(folder, &default_device().expect("a device"), &options).expect("a model").0
}

#[test]
fn warming_up_leaves_no_trace() {
    let pass = ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: false };
    let fabric = FabricSettings { execution: pass.into(), start: 0.5, ..FabricSettings::default() };
    let settings = Settings { width: Some(64), height: Some(64), steps: 4, fabric, ..Settings::default() };
    let liked = Image::filled(64, 64, [200, 30, 60]).expect("an image");
    let mut request = Request::new("a cat").with_seeds([3]).with_settings(settings).with_liked(liked);
    let warm = load();
    assert!(!warm.warm_up(&request).expect("a warm-up").is_zero());
    let kept = warm.cache_stats();
    assert_eq!((kept.bytes, kept.misses), (0, 0));
    let [got, expected] = [warm, load()].map(|pipeline| pipeline.generate(&request).expect("images"));
    assert_eq!(got.report.calls, expected.report.calls);
    assert_eq!(got.images, expected.images);
    // Warming up with an invalid request is an error.
    request.settings.width = Some(63);
    assert!(load().warm_up(&request).is_err());
}

/// Conditioning that is active in a window of the run and counts its evaluations.
#[derive(Debug, Clone)]
struct Counted {
    window: Window,
    acted: Arc<AtomicUsize>,
}

impl Conditioning for Counted {
    fn prepare(&self, run: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        Ok(Box::new(Self { window: run.window(self.window), ..self.clone() }))
    }
}

impl PreparedConditioning for Counted {
    fn residuals(&self, call: &ModelCall, _: &UNetInput<'_>, _: &BatchLayout) -> Result<Option<Residuals>, Error> {
        self.acted.fetch_add(usize::from(self.window.contains(call)), Ordering::SeqCst);
        Ok(None)
    }
}

#[test]
fn what_acts_in_a_part_of_a_run_is_warmed_up_too() {
    let settings = Settings { width: Some(64), height: Some(64), steps: 10, ..Settings::default() };
    let counted = Counted { window: Window::new(0.0, 0.5).expect("a window"), acted: Arc::default() };
    let request = Request::new("a cat").with_settings(settings).with(counted.clone());
    let pipeline = load();
    pipeline.warm_up(&request).expect("a warm-up");
    assert_eq!(counted.acted.swap(0, Ordering::SeqCst), 1, "one step is enough");
    pipeline.generate(&request).expect("images");
    assert_eq!(counted.acted.load(Ordering::SeqCst), 5, "the request still has its window");
}

#[test]
fn a_control_network_with_a_window_acts_at_every_evaluation_of_a_warm_up() {
    let device = default_device().expect("a device");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/controlnet");
    let network = Arc::new(ControlNet::open(folder, &device).expect("a ControlNet"));
    let edges = Image::filled(64, 64, [200, 30, 60]).expect("an image");
    let control = Control::new(network, edges).with_window(Window::new(0.5, 1.0).expect("a window"));
    let level = NoiseLevel { timestep: 500.0, alpha: 0.5, sigma: 0.5 };
    let call = ModelCall { index: 0, total: 4, level };
    let settings = Settings { width: Some(64), height: Some(64), ..Settings::default() };
    let (request, pipeline) = (Request::new("a cat").with_settings(settings), load());
    let acts = |is_warm_up: bool| {
        let run = pipeline.run_context(&request).expect("a size");
        let run = if is_warm_up { run.warming_up() } else { run };
        let prepared = control.prepare(&run).expect("a control");
        let input = UNetInput::new(Tensor::ones([1, 4, 8, 8], &device), &[500.0], Tensor::ones([1, 77, 32], &device));
        let layout = BatchLayout::new(vec![Branch::Conditional], 0..1);
        prepared.residuals(&call, &input, &layout).expect("residuals").is_some()
    };
    assert!(!acts(false));
    assert!(acts(true));
}
