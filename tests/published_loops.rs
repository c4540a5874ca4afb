//! Sums and means that diffusers' scheduler tests assert (version 0.35.2, `tests/schedulers`) for whole sampling
//! loops with a one-line model.
//!
//! Two are left out: dynamic thresholding, which this library refuses, and `DPMSolverSDEScheduler`, whose noise comes
//! from torchsde's Brownian tree. Loops that diffusers repeats (on another device, with given timesteps) are tested
//! once.

use std::ops::ControlFlow;

use burn::tensor::{DType, Tensor, TensorData};
use fabric::core::Error;
use fabric::core::denoise::{Denoiser, ModelCall, NoiseLevel, NoiseSource};
use fabric::core::samplers;
use fabric::core::schedule::{Prediction, SamplerKind, Schedule, SchedulerConfig, SigmaCurve};
use serde_json::{Value, json};

const IMAGES: usize = 4;
const CHANNELS: usize = 3;

/// diffusers' test model `x * t / (t + 1)`, for all prediction types.
///
/// diffusers' test loops scale the *state* for the network, where pipelines scale a copy: samplers over sigma then
/// continue from the scaled state. Our samplers do not expose their state, so this model tracks the difference
/// between the loop's state and ours as `offset`. These samplers add multiples of slopes to the state, so the
/// difference persists from step to step.
struct Dummy {
    /// Evaluations per step for samplers over sigma; `None` for all others.
    rescales: Option<usize>,
    velocity: bool,
    offset: Tensor<4>,
}

impl Denoiser for Dummy {
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error> {
        let NoiseLevel { timestep, alpha, sigma } = call.level;
        let model = |x: Tensor<4>| x * timestep / (timestep + 1.0);
        let Some(evaluations) = self.rescales else { return Ok(model(latents)) };
        let state = latents / alpha;
        let scaled = (state.clone() + self.offset.clone()) * alpha;
        let offset = scaled.clone() - state;
        let predicted = model(scaled);
        // For epsilon, the slope is the prediction itself; for v-prediction it also depends on the state.
        let answer = if self.velocity { predicted + offset.clone() * sigma } else { predicted };
        // A second evaluation uses an intermediate state, from which the loop does not continue.
        if call.index.is_multiple_of(evaluations) {
            self.offset = offset;
        }
        Ok(answer)
    }
}

/// The noise that PyTorch draws on a CPU after `torch.manual_seed(0)`, for tensors whose size is a multiple of 16.
///
/// Uniform numbers are the lower 24 bits of a Mersenne Twister (Matsumoto and Nishimura 1998, MT19937). In each block
/// of 16, the Box-Muller transform pairs number `i` with number `i + 8`.
struct TorchNoise {
    state: [u32; 624],
    next: usize,
}

impl TorchNoise {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..state.len() {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: 624 }
    }

    fn bits(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (joined >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut bits = self.state[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    fn normal(&mut self, count: usize) -> Vec<f32> {
        assert!(count.is_multiple_of(16), "PyTorch draws other sizes in another way");
        let mut values: Vec<f32> = (0..count).map(|_| (self.bits() & 0x00ff_ffff) as f32 / 16_777_216.0).collect();
        for sixteen in values.as_chunks_mut::<16>().0 {
            let (first, second) = sixteen.split_at_mut(8);
            for (a, b) in first.iter_mut().zip(second) {
                let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
                let angle = std::f32::consts::TAU * *b;
                (*a, *b) = (radius * angle.cos(), radius * angle.sin());
            }
        }
        values
    }
}

impl NoiseSource for TorchNoise {
    fn draw(&mut self, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        Ok(tensor(self.normal(shape.iter().product()), shape))
    }
}

/// Returns an f64 tensor where supported, so that the test compares the samplers and not their rounding.
fn tensor(values: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
    let device = fabric::default_device().expect("a device to test on");
    let values = values.into_iter().map(f64::from).collect();
    Tensor::from_data(TensorData::new::<f64, _>(values, shape), (&device, DType::F64))
}

fn values(x: Tensor<4>) -> Vec<f64> {
    x.into_data().convert::<f64>().try_to_vec().expect("f64")
}

/// Whether the device supports f64, which some GPUs do not.
fn has_f64() -> bool {
    fabric::default_device().expect("a device to test on").supports_dtype(DType::F64)
}

/// diffusers' deterministic test tensor: `n / size` for `n` from 0, with the image as the fastest axis. Reversed, it
/// is the noise.
fn ramp(height: usize, reversed: bool) -> Tensor<4> {
    let size = IMAGES * CHANNELS * height * 8;
    let value = |n: usize| if reversed { size - 1 - n } else { n } as f32 / size as f32;
    let values = (0..size).map(value).collect();
    tensor(values, [CHANNELS, height, 8, IMAGES]).permute([3, 0, 1, 2])
}

/// One test loop of diffusers.
struct Loop {
    name: &'static str,
    class: &'static str,
    /// Settings in addition to those of all loops of the class.
    settings: Value,
    steps: usize,
    /// For loops that start from an image: the number of last steps that are run.
    last: Option<usize>,
    height: usize,
    /// Published sum of the result's absolute values, if there is one. `mean` is their published mean.
    sum: Option<f64>,
    mean: f64,
}

/// Tolerance of the sums in most of diffusers' tests.
const SUM: f64 = 1e-2;
/// Tolerance of the means in diffusers' tests.
const MEAN: f64 = 1e-3;

impl Loop {
    fn new(name: &'static str, class: &'static str, settings: Value, sum: f64, mean: f64) -> Self {
        Self { name, class, settings, steps: 10, last: None, height: 8, sum: Some(sum), mean }
    }

    /// A loop with a published mean only.
    fn mean(name: &'static str, class: &'static str, settings: Value, mean: f64) -> Self {
        Self { sum: None, ..Self::new(name, class, settings, 0.0, mean) }
    }

    fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    fn last(self, last: usize) -> Self {
        Self { last: Some(last), ..self }
    }

    /// Sets images with one row instead of eight (diffusers' tensors lack this axis).
    fn one_row(self) -> Self {
        Self { height: 1, ..self }
    }

    fn config(&self) -> SchedulerConfig {
        let mut file = json!({
            "_class_name": self.class,
            "num_train_timesteps": 1000,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "linear",
        });
        let more = match self.class {
            "DDPMScheduler" => json!({"variance_type": "fixed_small", "clip_sample": true}),
            "DDIMScheduler" => json!({"clip_sample": true}),
            "PNDMScheduler" => json!({}),
            "DPMSolverMultistepScheduler" => json!({
                "solver_order": 2,
                "algorithm_type": "dpmsolver++",
                "solver_type": "midpoint",
                "lower_order_final": false,
                "euler_at_final": false,
                "final_sigmas_type": "sigma_min",
            }),
            "UniPCMultistepScheduler" => {
                json!({"solver_order": 2, "solver_type": "bh2", "final_sigmas_type": "sigma_min"})
            }
            "LCMScheduler" => json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}),
            _ => json!({"num_train_timesteps": 1100}),
        };
        for settings in [more, self.settings.clone()] {
            for (key, value) in settings.as_object().expect("an object") {
                file[key] = value.clone();
            }
        }
        SchedulerConfig::from_json(&file.to_string()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Runs the loop; returns the sum and the mean of the result's absolute values.
    fn run(&self) -> [f64; 2] {
        run(&self.config(), self.steps, self.last, self.height)
    }

    /// Compares with the published values; returns a message if they differ.
    fn check(&self) -> Option<String> {
        let [sum, mean] = self.run();
        // diffusers has a tighter tolerance for LCM's sums, and a looser one for the largest of LMS.
        let allowed = match (self.class, self.sum) {
            ("LCMScheduler", _) => 1e-3,
            ("LMSDiscreteScheduler", Some(3812.9927)) => 2e-2,
            _ => SUM,
        };
        let sum_is_right = self.sum.is_none_or(|published| (sum - published).abs() < allowed);
        let is_right = sum_is_right && (mean - self.mean).abs() < MEAN;
        let (name, class) = (self.name, self.class);
        (!is_right).then(|| format!("{class}, {name}: {sum} and {mean}, published {:?} and {}", self.sum, self.mean))
    }
}

fn run(config: &SchedulerConfig, steps: usize, last: Option<usize>, height: usize) -> [f64; 2] {
    let schedule = Schedule::new(config, steps).expect("a schedule");
    let mut latents = ramp(height, false) * schedule.init_noise_sigma();
    let schedule = match last {
        Some(last) => schedule.from_strength((last as f64 + 0.5) / steps as f64).expect("a later start"),
        None => schedule,
    };
    if last.is_some() {
        latents = schedule.add_noise(latents, ramp(height, true));
    }
    let rescales = match config.kind {
        SamplerKind::Euler(_) | SamplerKind::EulerAncestral | SamplerKind::Lms(_) => Some(1),
        SamplerKind::Heun(_) | SamplerKind::Kdpm2(_) => Some(2),
        _ => None,
    };
    let velocity = config.prediction == Prediction::Velocity;
    let mut dummy = Dummy { rescales, velocity, offset: latents.zeros_like() };
    let mut go_on = |_: samplers::StepReport<'_>| ControlFlow::Continue(());
    let made = samplers::sample(&schedule, latents, &mut dummy, &mut TorchNoise::new(0), &mut go_on).expect("a sample");
    let made = values(made + dummy.offset);
    let sum = made.iter().map(|value| value.abs()).sum::<f64>();
    [sum, sum / made.len() as f64]
}

#[test]
fn noise_is_pytorchs() {
    // The first values of `torch.manual_seed(0); torch.randn(16)`.
    let got = TorchNoise::new(0).normal(16);
    let known = [-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.6920, -0.3160, -2.1152];
    assert!(got.iter().zip(known).all(|(a, b)| (a - b).abs() < 1e-4), "{got:?}");
}

fn with(key: &str, value: impl Into<Value>) -> Value {
    let mut settings = json!({});
    settings[key] = value.into();
    settings
}

fn velocity() -> Value {
    with("prediction_type", "v_prediction")
}

fn karras() -> Value {
    with("use_karras_sigmas", true)
}

fn karras_velocity() -> Value {
    json!({"prediction_type": "v_prediction", "use_karras_sigmas": true})
}

fn over_alphas() -> Vec<Loop> {
    const DDPM: &str = "DDPMScheduler";
    const DDIM: &str = "DDIMScheduler";
    const PNDM: &str = "PNDMScheduler";
    const LCM: &str = "LCMScheduler";
    let first_alpha = |one: bool| json!({"set_alpha_to_one": one, "beta_start": 0.01});
    vec![
        Loop::new("no noise", DDPM, json!({}), 258.9606, 0.3372).steps(1000),
        Loop::new("velocity", DDPM, velocity(), 202.0296, 0.2631).steps(1000),
        Loop::new("no noise", DDIM, json!({}), 172.0067, 0.223967),
        Loop::new("velocity", DDIM, velocity(), 52.5302, 0.0684),
        Loop::new("set alpha to one", DDIM, first_alpha(true), 149.8295, 0.1951),
        Loop::new("no set alpha to one", DDIM, first_alpha(false), 149.0784, 0.1941),
        Loop::new("with noise", DDIM, json!({}), 354.5418, 0.4616).last(2),
        Loop::new("no noise", PNDM, json!({}), 198.1318, 0.2580),
        Loop::new("velocity", PNDM, velocity(), 67.3986, 0.0878),
        Loop::new("set alpha to one", PNDM, first_alpha(true), 230.0399, 0.2995),
        Loop::new("no set alpha to one", PNDM, first_alpha(false), 186.9482, 0.2434),
        Loop::new("one step", LCM, json!({}), 18.7097, 0.0244).steps(1),
        Loop::new("ten steps", LCM, json!({}), 197.7616, 0.2575),
    ]
}

fn over_sigmas() -> Vec<Loop> {
    const EULER: &str = "EulerDiscreteScheduler";
    const EULER_A: &str = "EulerAncestralDiscreteScheduler";
    const HEUN: &str = "HeunDiscreteScheduler";
    const KDPM2: &str = "KDPM2DiscreteScheduler";
    const LMS: &str = "LMSDiscreteScheduler";
    vec![
        Loop::new("no noise", EULER, json!({}), 10.0807, 0.0131),
        Loop::new("velocity", EULER, velocity(), 0.0002, 2.2676e-6),
        Loop::new("karras", EULER, karras(), 124.522_994_995_117_19, 0.162_139_326_333_999_63),
        Loop::new("with noise", EULER, json!({}), 57062.9297, 74.3007).last(2),
        Loop::new("no noise", EULER_A, json!({}), 152.3192, 0.1983),
        Loop::new("velocity", EULER_A, velocity(), 108.4439, 0.1412),
        Loop::new("with noise", EULER_A, json!({}), 56163.0508, 73.1290).last(2),
        Loop::new("no noise", HEUN, json!({}), 0.1233, 0.0002),
        Loop::new("velocity", HEUN, velocity(), 4.6934e-7, 6.1112e-10),
        Loop::new("karras", HEUN, karras(), 0.00015, 1.986_955_453_503_469_5e-7),
        Loop::new("with noise", HEUN, json!({}), 75074.8906, 97.7538).last(2),
        Loop::new("velocity", KDPM2, velocity(), 4.6934e-7, 6.1112e-10),
        Loop::new("no noise", KDPM2, json!({}), 20.4125, 0.0266),
        Loop::new("with noise", KDPM2, json!({}), 70408.4062, 91.6776).last(2),
        Loop::new("no noise", LMS, json!({}), 1006.388, 1.31),
        Loop::new("velocity", LMS, velocity(), 0.0017, 2.2676e-6),
        Loop::new("karras", LMS, karras(), 3812.9927, 4.9648),
    ]
}

fn multistep() -> Vec<Loop> {
    const DPM: &str = "DPMSolverMultistepScheduler";
    const UNIPC: &str = "UniPCMultistepScheduler";
    let lu_velocity = json!({"prediction_type": "v_prediction", "use_lu_lambdas": true});
    vec![
        Loop::mean("no noise", DPM, json!({}), 0.3301),
        Loop::new("with noise", DPM, json!({}), 318.4111, 0.4146).last(5),
        Loop::mean("velocity", DPM, velocity(), 0.2251),
        Loop::mean("karras and velocity", DPM, karras_velocity(), 0.2096),
        Loop::mean("lu and velocity", DPM, lu_velocity, 0.1554),
        Loop::mean("no noise", UNIPC, json!({}), 0.2464),
        Loop::mean("karras", UNIPC, karras(), 0.2925),
        Loop::mean("velocity", UNIPC, velocity(), 0.1014),
        Loop::mean("karras and velocity", UNIPC, karras_velocity(), 0.1966),
        Loop::new("with noise", UNIPC, json!({}), 315.5757, 0.4109).last(2),
        Loop::mean("no noise, one row", UNIPC, json!({}), 0.2441).one_row(),
        Loop::mean("karras, one row", UNIPC, karras(), 0.2898).one_row(),
        Loop::mean("velocity, one row", UNIPC, velocity(), 0.1014).one_row(),
        Loop::mean("karras and velocity, one row", UNIPC, karras_velocity(), 0.1944).one_row(),
        Loop::new("with noise, one row", UNIPC, json!({}), 39.0870, 0.4072).one_row().last(2),
    ]
}

#[test]
fn sums_and_means_are_the_published_ones() {
    if !has_f64() {
        return;
    }
    let loops = [over_alphas(), over_sigmas(), multistep()].into_iter().flatten();
    let wrong: Vec<String> = loops.filter_map(|published| published.check()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_sampler_changed_and_changed_back_gives_the_published_mean() {
    if !has_f64() {
        return;
    }
    let published = &multistep()[0];
    let config = published.config();
    let back = config
        .with_sampler(SamplerKind::UniPc(SigmaCurve::Table))
        .with_sampler(SamplerKind::DpmPlusPlus2M(SigmaCurve::Table));
    let [_, mean] = run(&back, published.steps, None, published.height);
    assert!((mean - published.mean).abs() < MEAN, "{mean}");
}

/// First deviation from diffusers: at training step 1 it computes `1 - alpha_t` from f32 numbers near 1, which leaves
/// three correct digits. The sum in f64 equals ours.
#[test]
fn ddpm_from_an_image_is_right_where_the_published_sum_is_rounded() {
    if !has_f64() {
        return;
    }
    const PUBLISHED: f64 = 387.9466;
    let [sum, mean] = Loop::new("with noise", "DDPMScheduler", json!({}), PUBLISHED, 0.5051).steps(1000).last(2).run();
    assert!((mean - 0.5051).abs() < MEAN, "{mean}");

    let beta = |step: f64| 0.0001 + (0.02 - 0.0001) * step / 999.0;
    let kept = 1.0 - beta(1.0);
    let before = 1.0 - beta(0.0);
    let now = before * kept;
    let draws = TorchNoise::new(0).normal(IMAGES * CHANNELS * 64).into_iter().map(f64::from);
    let exact: f64 = values(ramp(8, false))
        .into_iter()
        .zip(values(ramp(8, true)))
        .zip(draws)
        .map(|((clean, noise), draw)| {
            let x = now.sqrt() * clean + (1.0 - now).sqrt() * noise;
            let denoised = ((x - (1.0 - now).sqrt() * x / 2.0) / now.sqrt()).clamp(-1.0, 1.0);
            let variance = (1.0 - before) / (1.0 - now) * (1.0 - kept);
            let x = before.sqrt() * (1.0 - kept) / (1.0 - now) * denoised
                + kept.sqrt() * (1.0 - before) / (1.0 - now) * x
                + variance.sqrt() * draw;
            // At step 0 the model predicts no noise, and the estimate of the clean image is the result.
            (x / before.sqrt()).clamp(-1.0, 1.0).abs()
        })
        .sum();
    assert!((sum - exact).abs() < SUM, "{sum}, in f64 {exact}");
    assert!((exact - PUBLISHED).abs() > SUM, "the published sum is the exact one: {exact}");
}

/// Second deviation from diffusers: in a loop that starts from an image, it uses the fourth-order coefficients although
/// only one slope exists. In f64, these coefficients give the published sum, and those of the existing slopes give
/// ours.
#[test]
fn lms_from_an_image_weighs_the_slopes_that_it_has() {
    if !has_f64() {
        return;
    }
    const PUBLISHED: f64 = 27663.6895;
    let case = Loop::new("with noise", "LMSDiscreteScheduler", json!({}), PUBLISHED, 36.0204).last(2);
    let [sum, _] = case.run();

    let schedule = Schedule::new(&case.config(), case.steps).expect("a schedule");
    let (sigmas, timesteps, scale) = (schedule.sigmas(), schedule.timesteps(), schedule.init_noise_sigma());
    // The sum in f64, where step `i` uses the coefficients for `nodes_at(i)` slopes.
    let exact = |nodes_at: &dyn Fn(usize) -> usize| -> f64 {
        let weights = [8, 9].map(|step: usize| {
            let nodes: Vec<f64> = (0..nodes_at(step)).map(|k| sigmas[step - k]).collect();
            (0..nodes.len().min(step - 7)).map(|k| weight(&nodes, k, sigmas[step + 1])).collect::<Vec<f64>>()
        });
        let alpha = |step: usize| 1.0 / (sigmas[step] * sigmas[step] + 1.0).sqrt();
        let slope = |scaled: f64, step: usize| scaled * timesteps[step] / (timesteps[step] + 1.0);
        let last = |(clean, noise): (f64, f64)| {
            let x = alpha(8) * (clean * scale + noise * sigmas[8]);
            let first = slope(x, 8);
            let x = alpha(9) * (x + weights[0][0] * first);
            (x + weights[1][0] * slope(x, 9) + weights[1][1] * first).abs()
        };
        values(ramp(8, false)).into_iter().zip(values(ramp(8, true))).map(last).sum()
    };
    let (published, right) = (exact(&|_| 4), exact(&|step| step - 7));
    assert!((published - PUBLISHED).abs() < SUM, "{published}, published {PUBLISHED}");
    assert!((sum - right).abs() < SUM, "{sum}, in f64 {right}");
}

/// Integral, from the first node to `end`, of the Lagrange polynomial that is 1 at node `k` and 0 at the others. It
/// uses the midpoint rule, independently of the sampler's method.
fn weight(nodes: &[f64], k: usize, end: f64) -> f64 {
    const PIECES: usize = 2000;
    let width = (end - nodes[0]) / PIECES as f64;
    let value = |piece: usize| -> f64 {
        let sigma = nodes[0] + (piece as f64 + 0.5) * width;
        let others = nodes.iter().enumerate().filter(|(j, _)| *j != k);
        others.map(|(_, node)| (sigma - node) / (nodes[k] - node)).product()
    };
    (0..PIECES).map(value).sum::<f64>() * width
}
