//! Steps that are recorded and replayed are the steps themselves, and what comes before the first one leaves no trace.

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use fabric::core::attention::NoProcessor;
use fabric::core::fabric::{CallWeights, FabricSettings, Lender, LentRows, ReferencePass};
use fabric::core::models::{NoisePredictor, Record, UNetInput};
use fabric::core::picture::Picture;
use fabric::core::pipeline::{Request, Settings};
use fabric::default_device;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::{GraphedUNet, UNet};
use fabric::models::{ModelError, ModelOptions, StableDiffusion, load_model};

const CONTEXT: usize = 7;

fn options() -> ModelOptions {
    ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

struct Bench {
    network: UNet,
    width: usize,
    device: Device,
}

impl Bench {
    fn new() -> Self {
        let device = default_device().expect("a device");
        let network = StableDiffusion::from_folder(folder(), &device, &options()).expect("a model").0.unet;
        let width = network.cross_attentions()[0].context;
        Self { network, width, device }
    }

    fn input(&self, rows: usize, timesteps: &'static [f64]) -> UNetInput<'static> {
        let context = random([rows, CONTEXT, self.width], &self.device);
        UNetInput::new(random([rows, 4, 8, 8], &self.device), timesteps, context)
    }
}

/// Drawn on the CPU: a GPU's own generator may give infinite numbers.
fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let cpu = fabric::backends::cpu().expect("a CPU");
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &cpu).to_device(device)
}

/// Whether the tests run where steps are recorded.
fn records() -> bool {
    std::env::var("FABRIC_DEVICE").is_ok_and(|name| name.starts_with("wgpu") || name.starts_with("cuda"))
}

#[track_caller]
fn assert_same(found: Tensor<4>, wanted: Tensor<4>) {
    assert!(!wanted.clone().is_nan().any().into_scalar::<bool>(), "the network's own result is NaN");
    let scale: f64 = wanted.clone().abs().max().into_scalar();
    let error: f64 = (found - wanted).abs().max().into_scalar();
    assert!(error <= 1e-4 * scale, "error {error:.1e} of {scale:.1e}");
}

#[test]
fn each_pass_is_the_networks_own() {
    let bench = Bench::new();
    let graphed = GraphedUNet::new(bench.network.clone());
    let lent = |shallow: f64| {
        let weights = CallWeights { shallow, deep: 0.5 };
        let lender = |row: usize| Lender { to: row..row + 1, weights };
        LentRows { first: 2, lenders: vec![lender(0), lender(1)], merge: 0.0, levels: bench.network.levels() }
    };
    let (weak, strong) = (lent(0.3), lent(0.9));
    let plain = NoProcessor;
    // By turns, so that each graph has to keep what is its own; other numbers each time.
    for timestep in [&[999.0], &[500.0], &[500.0], &[3.0], &[250.0_f64]] {
        let passes = [
            bench.input(2, timestep),
            UNetInput { processor: &plain, ..bench.input(1, timestep) },
            UNetInput { processor: &weak, lending_rows: 2, ..bench.input(4, timestep) },
            UNetInput { processor: &strong, lending_rows: 2, ..bench.input(4, timestep) },
        ];
        for input in passes {
            let wanted = bench.network.forward(input.clone()).sample.expect("a prediction");
            let found = graphed.forward(input).sample.expect("a prediction");
            assert_same(found, wanted);
        }
    }
    assert_eq!(graphed.graphs(), 4);
    assert_eq!(graphed.recorded(), if records() { 4 } else { 0 }, "{graphed:?}");
}

#[test]
fn a_fifth_kind_of_pass_runs_as_ever() {
    let bench = Bench::new();
    let graphed = GraphedUNet::new(bench.network.clone());
    for rows in [1, 2, 3, 4, 5, 1] {
        for _ in 0..4 {
            let input = bench.input(rows, &[77.0]);
            let wanted = bench.network.forward(input.clone()).sample.expect("a prediction");
            assert_same(graphed.forward(input).sample.expect("a prediction"), wanted);
        }
    }
    // Where steps are recorded, some recordings are refused.
    assert!(graphed.graphs() == 4 || records(), "{graphed:?}");
}

#[test]
fn passes_that_bring_or_leave_something_are_never_graphs() {
    let bench = Bench::new();
    let graphed = GraphedUNet::new(bench.network.clone());
    let merging = LentRows { first: 1, lenders: vec![], merge: 0.5, levels: bench.network.levels() };
    for _ in 0..5 {
        let recording = UNetInput { record: Record::SelfAttentionOnly, ..bench.input(1, &[9.0]) };
        assert!(!graphed.forward(recording).recorded.is_empty());
        graphed.forward(UNetInput { processor: &merging, ..bench.input(1, &[9.0]) });
    }
    assert_eq!(graphed.graphs(), 0);
}

#[test]
fn pictures_are_those_of_the_pipeline_without_graphs() {
    let device = default_device().expect("a device");
    let load = |graphs| load_model(folder(), &device, &ModelOptions { graphs, ..options() }).expect("a model").0;
    let settings = Settings { width: Some(64), height: Some(64), steps: 8, ..Settings::default() };
    let liked = Picture::filled(64, 64, [200, 30, 60]).expect("a picture");
    let request = Request::new("a cat").with_seeds([3]).with_settings(settings).with_liked(liked);
    let [found, wanted] = [true, false].map(|graphs| load(graphs).generate(&request).expect("pictures"));
    assert_same(found.latents, wanted.latents);
}

#[test]
fn graphs_and_offloading_exclude_each_other() {
    let options = ModelOptions { graphs: true, offload: true, ..options() };
    let error = load_model(folder(), &default_device().expect("a device"), &options).expect_err("both");
    assert!(
        matches!(&error, ModelError::Pipeline(_)) && error.to_string().contains("leave one of them out"),
        "{error}"
    );
}

#[test]
fn warming_up_leaves_no_trace() {
    let device = default_device().expect("a device");
    let load = || load_model(folder(), &device, &options()).expect("a model").0;
    let pass = ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: false };
    let fabric = FabricSettings { pass, start: 0.5, ..FabricSettings::default() };
    let settings = Settings { width: Some(64), height: Some(64), steps: 4, fabric, ..Settings::default() };
    let liked = Picture::filled(64, 64, [200, 30, 60]).expect("a picture");
    let mut request = Request::new("a cat").with_seeds([3]).with_settings(settings).with_liked(liked);
    let warm = load();
    assert!(!warm.warm_up(&request).expect("a warm-up").is_zero());
    let kept = warm.cache_stats();
    assert_eq!((kept.bytes, kept.misses), (0, 0));
    let [found, wanted] = [warm, load()].map(|pipeline| pipeline.generate(&request).expect("pictures"));
    assert_eq!(found.report.calls, wanted.report.calls);
    assert_same(found.latents, wanted.latents);
    // A request that no run can carry out warms nothing up.
    request.settings.width = Some(63);
    assert!(load().warm_up(&request).is_err());
}
