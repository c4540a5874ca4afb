//! Random requests on the tiny networks of `tests/golden/models`: for any combination of settings, all reference passes
//! (interleaved, two passes, recorded, from the cache) give the same images, and an image does not depend on its batch.
//!
//! `FABRIC_REQUESTS=100..400 cargo test --release --test random_requests` tests other requests than the default ones.

mod common;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use burn::tensor::{Tensor, TensorData};
use common::{assert_again, distance};
use fabric::core::fabric::{
    FabricExecution, FabricSettings, LikedPerImage, ReferencePass, ReferencePosterior, TimeCurve, WindowRule,
};
use fabric::core::guidance::Apg;
use fabric::core::image::Image;
use fabric::core::models::{TextOptions, WeightNormalisation};
use fabric::core::pipeline::{Cads, FeedbackImage, Generation, Pipeline, Request, Settings, Window};
use fabric::core::schedule::SchedulerConfig;
use fabric::ipadapter::{
    FeatureKind, Features, ImagePrompt, InstructGuidance, Instruction, IpAdapter, LayerScales, Mask,
};
use fabric::models::control::{Control, ControlNet};
use fabric::models::load::{LoadOptions, SafetensorsFile, load_into};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::unet::UNetConfig;
use fabric::models::vae::{Vae, VaeConfig};
use fabric::models::{ModelOptions, load_model};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Default requests: enough to combine each setting with most others, in less than a minute.
const REQUESTS: Range<u64> = 0..24;

/// Largest allowed difference relative to the largest latent. Different summation orders differ by 1e-6 in one
/// evaluation; a few guided steps with extrapolating samplers increase that about tenfold.
const ROUNDING: f32 = 1e-4;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
        load_model(models(), &device, &options).expect("a pipeline").0
    })
}

/// The golden pipeline with a random inpainting U-Net.
fn inpainting() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        let text = |name: &str| std::fs::read_to_string(models().join(name)).expect("settings");
        let unet = UNetConfig::from_json(&text("unet/config.json")).expect("a configuration");
        let unet = UNetConfig { in_channels: 9, ..unet }.init(&device).expect("a network");
        let vae = VaeConfig::from_json(&text("vae/config.json")).expect("a configuration");
        let file = SafetensorsFile::open(models().join("vae/diffusion_pytorch_model.safetensors")).expect("a file");
        let vae: Vae =
            load_into(vae.init(&device).expect("a network"), &file, &LoadOptions::default()).expect("a VAE").0;
        let scheduler = text("scheduler/scheduler_config.json");
        let scheduler = SchedulerConfig::from_json(&scheduler).expect("a schedule");
        let text = pipeline().shared_text_encoder();
        Pipeline::new(Arc::new(unet), Arc::new(vae), text, scheduler, 64).expect("a pipeline")
    })
}

fn adapter(kind: &str) -> IpAdapter {
    let path = models().join("ip_adapter").join(format!("{kind}.safetensors"));
    IpAdapter::open(path, &fabric::default_device().expect("a device")).expect("an adapter")
}

fn network() -> Arc<ControlNet> {
    static NETWORK: OnceLock<Arc<ControlNet>> = OnceLock::new();
    let open = || {
        let device = fabric::default_device().expect("a device");
        Arc::new(ControlNet::open(models().join("controlnet"), &device).expect("a ControlNet"))
    };
    NETWORK.get_or_init(open).clone()
}

/// Random choices for requests.
struct Draws(ChaCha12Rng);

impl Draws {
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.0.random_range(0..of.len())].clone()
    }

    fn yes(&mut self, share: f64) -> bool {
        self.0.random_range(0.0..1.0) < share
    }

    fn number(&mut self, from: f64, to: f64) -> f64 {
        self.0.random_range(from..to)
    }

    /// Returns a random smooth image of a random size.
    fn image(&mut self) -> Image {
        let (width, height) = (self.one(&[40, 64, 90]), self.one(&[48, 64]));
        let phase = self.number(0.0, 100.0);
        let wave = |x: usize, y: usize, c: usize| {
            let phase = phase + (c * 11) as f64;
            ((x as f64 * 0.09 + phase).sin() * (y as f64 * 0.07 + phase * 0.3).cos() * 127.0 + 128.0) as u8
        };
        let rgb = (0..width * height * 3).map(|i| wave(i / 3 % width, i / 3 / width, i % 3)).collect();
        Image::from_rgb(width, height, rgb).expect("an image")
    }

    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.number(-1.0, 1.0) as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &fabric::default_device().expect("a device"))
    }

    fn window(&mut self) -> Window {
        if self.yes(0.5) { Window::default() } else { Window::new(0.0, self.number(0.3, 1.0)).expect("a window") }
    }
}

/// A random request and its test parameters.
struct Case {
    number: u64,
    request: Request,
    pipeline: &'static Pipeline,
    /// References per recording pass.
    chunk: usize,
    /// Byte budget of the KV cache.
    budget: u64,
    /// Images computed at once.
    batch: usize,
}

impl Case {
    fn is_inpainting(&self) -> bool {
        self.request.init_image.as_ref().is_some_and(|start| start.mask.is_some())
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Request { prompt, seeds, init_image, feedback, conditioning, settings, .. } = &self.request;
        let feedback: Vec<f64> = feedback.iter().map(|one| one.strength).collect();
        let init_image = init_image.as_ref().map(|init_image| init_image.strength);
        write!(f, "request {}: {:?}", self.number, prompt.chars().take(30).collect::<String>())?;
        write!(f, ", seeds {seeds:?}, start {init_image:?}, mask {}, feedback {feedback:?}", self.is_inpainting())?;
        write!(f, ", conditioning {}, chunk {}, budget {}", conditioning.len(), self.chunk, self.budget)?;
        write!(f, ", batch {}, {settings:?}", self.batch)
    }
}

const SAMPLERS: [&str; 19] = [
    "ddpm",
    "ddim",
    "pndm",
    "lms",
    "lms_karras",
    "euler",
    "euler_exponential",
    "euler_a",
    "heun",
    "heun_karras",
    "kdpm2",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "dpmpp_sde",
    "unipc",
    "unipc_beta",
    "lcm",
    "tcd",
];

const WEIGHTED: &str = "a (red:1.4) star [on] blue, ((very)) (small:0.6)";

fn case(number: u64) -> Case {
    let mut draws = Draws(ChaCha12Rng::seed_from_u64(number));
    let pipeline = if draws.yes(0.15) { inpainting() } else { pipeline() };
    let own_unet = std::ptr::eq(pipeline, self::pipeline());
    let text = TextOptions {
        clip_skip: draws.one(&[None, Some(1)]),
        long_prompts: draws.yes(0.3),
        weights: draws.yes(0.4),
        weight_normalisation: draws.one(&[
            WeightNormalisation::None,
            WeightNormalisation::Mean,
            WeightNormalisation::Comfy,
        ]),
    };
    let pass = ReferencePass::Interleaved;
    let fabric = FabricSettings {
        start: 0.0,
        end: draws.one(&[0.5, 0.8, 1.0]),
        window: draws.one(&[WindowRule::Official, WindowRule::Timestep, WindowRule::HalfOpen]),
        curve: draws.one(&[TimeCurve::Constant, TimeCurve::Falling, TimeCurve::Rising]),
        min_weight: draws.one(&[0.0, 0.2]),
        max_weight: draws.number(0.3, 1.0),
        negative_scale: draws.one(&[0.5, 1.0]),
        liked_bottleneck_scale: draws.one(&[1.0, 0.5]),
        normalise: draws.yes(0.3),
        liked_per_image: draws.yes(0.3).then(|| LikedPerImage::new(1)),
        posterior: draws.one(&[ReferencePosterior::Sample, ReferencePosterior::Mean]),
        execution: FabricExecution { pass, token_merge_ratio: draws.one(&[0.0, 0.0, 0.5]) },
        ..FabricSettings::default()
    };
    let settings = Settings {
        width: Some(draws.one(&[64, 48])),
        height: Some(draws.one(&[64, 72])),
        steps: draws.one(&[3, 4, 5]),
        sampler: Some(draws.one(&SAMPLERS).parse().expect("a sampler")),
        guidance_scale: draws.one(&[0.0, 1.0, 5.0, 5.0]),
        guidance_rescale: draws.one(&[0.0, 0.0, 0.7]),
        text,
        prompt_dropout: draws.one(&[0.0, 0.4]),
        fabric,
        ..Settings::default()
    };
    let mut prompt = if draws.yes(0.5) { WEIGHTED } else { "a photo of a cat, a plain star" }.to_owned();
    if text.long_prompts && draws.yes(0.7) {
        prompt = vec![prompt; 9].join(", ");
    }
    let mut request = Request::new(prompt).with_seeds((0..draws.one(&[2, 3])).map(|seed| number * 10 + seed));
    request.settings = settings;
    if draws.yes(0.6) {
        request = request.with_negative_prompt("a (blurry:1.3) thing");
    }
    for _ in 0..draws.one(&[0, 1, 2, 3]) {
        let strength = draws.one(&[1.0, 0.5, -0.7, -1.0]);
        let feedback = FeedbackImage::new(draws.image(), strength);
        let some = draws.yes(0.3).then(|| draws.one(&[0, 1]));
        request.feedback.push(match some {
            Some(image) => feedback.only_for([image]),
            None => feedback,
        });
    }
    if draws.yes(0.4) {
        let (image, strength) = (draws.image(), draws.one(&[0.5, 0.7, 1.0]));
        request = if draws.yes(0.5) {
            request.with_inpainting(image, draws.image(), strength)
        } else {
            request.with_init_image(image, strength)
        };
    }
    if draws.yes(0.4) {
        request = request.with(image_prompt(&mut draws));
    }
    if draws.yes(0.25) {
        request = request.with(instructed(&mut draws));
    }
    if own_unet && draws.yes(0.3) {
        let scale = draws.number(0.3, 1.0);
        let control = Control::new(network(), draws.image()).with_scale(scale);
        request = request.with(control.with_guess(draws.yes(0.3)).with_window(draws.window()));
    }
    let (chunk, budget) = (draws.one(&[1, 2, 8]), draws.one(&[0, 200_000, 1 << 30]));
    let batch = draws.one(&[1, 2]);
    diversify(&mut request, &mut draws);
    Case { number, request, pipeline, chunk, budget, batch }
}

/// Adds options against the loss of diversity under guidance.
fn diversify(request: &mut Request, draws: &mut Draws) {
    if draws.yes(0.5) {
        let start = draws.one(&[0.0, 0.3]);
        request.settings.guidance_window = Window::new(start, draws.number(0.4, 1.0)).expect("a window");
    }
    if draws.yes(0.5) {
        let prompt_only_below = draws.one(&[0.0, 0.3, 0.6]);
        request.settings.cads = Some(Cads {
            noise_scale: draws.one(&[0.1, 0.5]),
            prompt_only_below,
            noise_only_above: draws.number(prompt_only_below, 1.0),
            mixing: draws.one(&[0.5, 1.0]),
        });
    }
    // APG is refused with the four branches of an instruction.
    let branches = request.guidance().expect("guidance").branches().len();
    if branches <= 2 && draws.yes(0.5) {
        let [momentum, rescale, parallel] = [[-0.5, 0.0], [1.0, 0.0], [0.0, 1.0]].map(|of| draws.one(&of));
        request.settings.apg = Some(Apg { momentum, rescale, parallel });
    }
}

fn image_prompt(draws: &mut Draws) -> ImagePrompt {
    let adapter = adapter(draws.one(&["base", "plus", "full-face"]));
    let images = draws.one(&[1, 2]);
    let features = match adapter.config().reads() {
        FeatureKind::Pooled(channels) => Features::Pooled(draws.tensor([images, channels])),
        FeatureKind::Tokens(channels) => Features::Tokens(draws.tensor([images, 5, channels])),
        other => panic!("not in these tests: {other}"),
    };
    let none = match &features {
        Features::Pooled(features) => Features::Pooled(features.zeros_like()),
        Features::Tokens(features) => Features::Tokens(features.zeros_like()),
        other => panic!("not in these tests: {}", other.kind()),
    };
    let prompt = adapter.prompt_from_features(features, Some(none));
    let mut prompt = prompt.with_scale(draws.number(0.2, 1.0) as f32).with_window(draws.window());
    if draws.yes(0.3) {
        let values = (0..15).map(|_| draws.number(0.0, 1.0) as f32).collect();
        let mask = Mask::new(5, 3, values).expect("a mask");
        prompt = prompt.with_masks(vec![(mask, LayerScales::same(0.8)); images]);
    }
    if draws.yes(0.25) { prompt.visible_to_references() } else { prompt }
}

fn instructed(draws: &mut Draws) -> ImagePrompt {
    let adapter = adapter("instruct");
    let FeatureKind::Instructed(channels, _) = adapter.config().reads() else { panic!("no Instruct adapter") };
    let tokens = draws.tensor([1, 5, channels]);
    let guidance = draws.one(&[InstructGuidance::Simple, InstructGuidance::ThreeWay { instruction: 3.0, image: 1.0 }]);
    let none = Features::Tokens(tokens.zeros_like());
    let instruction = Instruction::new("use the pose").with_guidance(guidance);
    let prompt = adapter.prompt_from_features(Features::Tokens(tokens), Some(none)).with_instruction(instruction);
    prompt.with_window(draws.window())
}

fn values(made: &Generation) -> Vec<f32> {
    made.latents.clone().into_data().convert::<f32>().try_to_vec().expect("f32")
}

impl Case {
    fn make(&self, request: &Request) -> Result<Vec<f32>, String> {
        let made = self.pipeline.generate(request).map_err(|error| format!("{self:?}: {error}"))?;
        Ok(values(&made))
    }

    fn with_pass(&self, pass: ReferencePass) -> Request {
        let mut request = self.request.clone();
        request.settings.fabric.execution.pass = pass;
        request
    }

    /// Compares the images of all passes and batches; returns the first difference as an error.
    fn check(&self) -> Result<(), String> {
        let interleaved = self.make(&self.request)?;
        let largest = interleaved.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
        if !largest.is_finite() {
            return Err(format!("{self:?}: not finite"));
        }
        let same = |what: &str, got: &[f32], expected: &[f32]| {
            let error = distance(got, expected) / largest;
            if error < ROUNDING { Ok(()) } else { Err(format!("{self:?}\n{what}: differ by {error:.1e}")) }
        };
        let two_passes = self.make(&self.with_pass(ReferencePass::TwoPasses { chunk: self.chunk }))?;
        same("two passes", &two_passes, &interleaved)?;
        self.pipeline.clear_caches();
        let cached = self.with_pass(ReferencePass::Cached { chunk: self.chunk, budget: self.budget, half: false });
        let recorded = self.make(&cached)?;
        same("recorded", &recorded, &interleaved)?;
        let kept = self.make(&cached)?;
        same("kept", &kept, &interleaved)?;
        if self.budget != 200_000 {
            // If nothing or everything is cached, the operations are the same. A partial cache changes the recording
            // batches.
            assert_again(&kept, &recorded, &format!("{self:?}"));
        }
        let mut parts = self.request.clone();
        parts.settings.batch = Some(self.batch);
        same("in smaller batches", &self.make(&parts)?, &interleaved)?;
        let images = interleaved.chunks_exact(interleaved.len() / self.request.seeds.len());
        for (index, part) in images.enumerate() {
            let alone = self.make(&self.request.alone(index))?;
            same(&format!("seed {} alone", self.request.seeds[index]), &alone, part)?;
        }
        Ok(())
    }
}

fn requests() -> Range<u64> {
    let Ok(asked) = std::env::var("FABRIC_REQUESTS") else { return REQUESTS };
    let ends = asked.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    ends.unwrap_or_else(|| panic!("FABRIC_REQUESTS: expected two numbers, as in 100..400, got {asked:?}"))
}

#[test]
fn whatever_is_asked_for_together_all_passes_agree_and_images_do_not_depend_on_their_batch() {
    let wrong: Vec<String> = requests().filter_map(|number| case(number).check().err()).collect();
    assert!(wrong.is_empty(), "{} requests:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_requests_of_every_day_have_something_of_everything() {
    let cases: Vec<Case> = REQUESTS.map(case).collect();
    let any = |of: &dyn Fn(&Case) -> bool| cases.iter().any(of);
    let settings = |of: &dyn Fn(&Settings) -> bool| any(&|case| of(&case.request.settings));
    for guidance in [0.0, 1.0, 5.0] {
        assert!(settings(&|settings| settings.guidance_scale == guidance), "guidance {guidance}");
    }
    for window in [WindowRule::Official, WindowRule::Timestep, WindowRule::HalfOpen] {
        assert!(settings(&|settings| settings.fabric.window == window), "{window:?}");
    }
    assert!(settings(&|settings| settings.guidance_window != Window::default()));
    assert!(settings(&|settings| settings.apg.is_some()) && settings(&|settings| settings.cads.is_some()));
    assert!(settings(&|settings| settings.text.long_prompts) && settings(&|settings| settings.text.weights));
    for of in [|text: &TextOptions| text.long_prompts, |text: &TextOptions| text.weights] {
        assert!(settings(&|settings| settings.prompt_dropout > 0.0 && of(&settings.text)));
    }
    assert!(settings(&|settings| settings.fabric.execution.token_merge_ratio > 0.0));
    assert!(settings(&|settings| settings.fabric.posterior == ReferencePosterior::Mean));
    assert!(
        any(&|case| case.is_inpainting()) && any(&|case| case.request.init_image.is_some() && !case.is_inpainting())
    );
    assert!(any(&|case| case.request.conditioning.len() > 1) && any(&|case| case.request.feedback.len() > 1));
    let samplers: std::collections::BTreeSet<_> =
        cases.iter().filter_map(|case| case.request.settings.sampler).map(|sampler| sampler.to_string()).collect();
    assert!(samplers.len() >= 10, "{samplers:?}");
}
