//! Orders of convergence and variances on Gaussian data, where the exact solution is known.
//!
//! For data `N(0, s²)` the best estimate at ratio `r` is `x s² / (s² + r²)`. The probability-flow equation takes
//! `x` at ratio `r` to `x sqrt((s² + r'²) / (s² + r²))` at `r'`, in the convention where the signal keeps its
//! amplitude.

use std::ops::ControlFlow;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fabric_backends::default_device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::denoise::ModelCall;
use crate::schedule::{
    BetaSchedule, FinalSigma, Prediction, ScheduleError, SchedulerConfig, SigmaCurve, Spacing, noised, velocity,
};

const SPREAD: f64 = 0.8;

/// The optimal denoiser for `N(0, SPREAD²)`.
struct Gaussian(Prediction);

impl Denoiser for Gaussian {
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error> {
        let NoiseLevel { alpha, sigma, .. } = call.level;
        let variance = (alpha * SPREAD).powi(2) + sigma * sigma;
        let (clean, noise) = (alpha * SPREAD.powi(2) / variance, sigma / variance);
        Ok(latents
            * match self.0 {
                Prediction::Sample => clean,
                Prediction::Epsilon => noise,
                Prediction::Velocity => alpha * noise - sigma * clean,
            })
    }
}

/// Seeded normal noise.
struct Seeded(ChaCha8Rng, Device);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed), device())
    }
}

impl NoiseSource for Seeded {
    fn draw(&mut self, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        // Box and Muller.
        let mut normal = || {
            let (radius, angle) = (self.0.random::<f64>(), self.0.random::<f64>());
            ((-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal()).collect();
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.1))
    }
}

/// Noise source for deterministic samplers.
struct Silent;

impl NoiseSource for Silent {
    fn draw(&mut self, _shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        panic!("a deterministic sampler drew noise")
    }
}

fn device() -> Device {
    default_device().expect("a device to test on")
}

fn config(kind: SamplerKind) -> SchedulerConfig {
    SchedulerConfig { spacing: Some(Spacing::Linspace), ..SchedulerConfig::default() }.with_sampler(kind)
}

/// Runs the sampler and returns all states, including the first.
fn run(schedule: &Schedule, x: Tensor<4>, noise: &mut dyn NoiseSource) -> Vec<Tensor<4>> {
    let mut states = vec![x.clone()];
    let mut network = Gaussian(schedule.config().prediction);
    let last = sample(schedule, x, &mut network, noise, &mut |report| {
        states.push(report.state.clone());
        ControlFlow::Continue(())
    });
    assert_eq!(last.expect("a run").into_data(), states[states.len() - 1].to_data());
    states
}

fn values(x: &Tensor<4>) -> Vec<f64> {
    x.to_data().convert::<f64>().try_to_vec().expect("f64")
}

/// Root mean square.
fn spread(x: &Tensor<4>) -> f64 {
    let values = values(x);
    (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
}

fn scalar(x: &Tensor<4>) -> f64 {
    values(x)[0]
}

/// Error of the state before the evaluation at `until`, against the exact solution from the first level.
///
/// The betas are those of a fine training schedule, so that the levels of every number of steps are in the table.
fn error(kind: SamplerKind, change: impl Fn(&mut SchedulerConfig), steps: usize) -> f64 {
    const TRAIN: usize = 20_000;
    let mut config = SchedulerConfig {
        num_train_timesteps: TRAIN,
        beta_schedule: Some(BetaSchedule::Linear),
        beta_start: Some(0.1 / TRAIN as f64),
        beta_end: Some(10.0 / TRAIN as f64),
        steps_offset: 0,
        spacing: Some(Spacing::Leading),
        ..SchedulerConfig::default()
    }
    .with_sampler(kind);
    change(&mut config);
    let schedule = Schedule::new(&config, steps).expect("a schedule");
    let levels = schedule.levels();

    // Compared at the last quarter, where all samplers still have a level: late levels are dense in ln sigma.
    let exploding = kind.is_variance_exploding();
    let norm = |level: &NoiseLevel| {
        let variance = (level.alpha * SPREAD).powi(2) + level.sigma.powi(2);
        if exploding { variance.sqrt() / level.alpha } else { variance.sqrt() }
    };
    let until = levels.iter().position(|level| level.timestep <= 0.25 * TRAIN as f64).expect("a level in the middle");
    let until = until.next_multiple_of(kind.order());
    let x = Tensor::<4>::from_data(TensorData::new(vec![norm(&levels[0])], [1; 4]), (&device(), DType::F64));
    let states = run(&schedule, x, &mut Silent);
    (scalar(&states[until]) / norm(&levels[until]) - 1.0).abs()
}

/// The slope of the error over the step, on a log scale.
fn order(kind: SamplerKind, change: impl Fn(&mut SchedulerConfig), steps: [usize; 2]) -> f64 {
    let errors = steps.map(|steps| error(kind, &change, steps));
    (errors[0] / errors[1]).ln() / (steps[1] as f64 / steps[0] as f64).ln()
}

fn assert_order(
    kind: SamplerKind,
    change: impl Fn(&mut SchedulerConfig),
    steps: [usize; 2],
    at_least: f64,
    below: f64,
) {
    let got = order(kind, change, steps);
    assert!((at_least..below).contains(&got), "{kind}: order {got:.2}, expected {at_least} to {below}");
}

#[test]
fn euler_and_ddim_are_of_order_one() {
    assert_order(SamplerKind::Euler(SigmaCurve::Table), |_| (), [16, 32], 0.85, 1.3);
    assert_order(SamplerKind::Ddim, |_| (), [16, 32], 0.85, 1.3);
    assert_order(SamplerKind::DpmPlusPlus2M(SigmaCurve::Table), |c| c.solver_order = Some(1), [16, 32], 0.85, 1.3);
}

#[test]
fn heun_and_the_midpoint_method_are_of_order_two() {
    assert_order(SamplerKind::Heun(SigmaCurve::Table), |_| (), [16, 32], 1.7, 2.6);
    assert_order(SamplerKind::Kdpm2(SigmaCurve::Table), |_| (), [16, 32], 1.7, 2.6);
}

#[test]
fn dpm_solver_has_the_order_it_is_given() {
    let kind = SamplerKind::DpmPlusPlus2M(SigmaCurve::Table);
    assert_order(kind, |_| (), [32, 64], 1.7, 2.6);
    assert_order(kind, |c| c.solver_order = Some(3), [16, 32], 2.5, 4.5);
}

#[test]
fn unipc_is_an_order_above_its_predictor() {
    let kind = SamplerKind::UniPc(SigmaCurve::Table);
    assert_order(kind, |_| (), [32, 64], 2.3, 4.0);
    assert_order(kind, |c| c.solver_order = Some(1), [32, 64], 1.7, 3.0);
}

#[test]
fn linear_multistep_is_of_order_two_or_more() {
    assert_order(SamplerKind::Lms(SigmaCurve::Table), |_| (), [16, 32], 1.9, 5.0);
    assert_order(SamplerKind::Pndm, |_| (), [64, 128], 1.9, 5.0);
    assert_order(SamplerKind::Pndm, |c| c.skip_prk_steps = Some(false), [10, 20], 1.9, 6.0);
}

/// Standard deviation of many one-pixel images after a stochastic run from pure noise.
fn final_spread(kind: SamplerKind, change: impl Fn(&mut SchedulerConfig), steps: usize) -> f64 {
    let mut config = config(kind);
    change(&mut config);
    let schedule = Schedule::new(&config, steps).expect("a schedule");
    let mut noise = Seeded::new(7);
    let x = noise.draw([4096, 1, 1, 1]).expect("noise") * schedule.init_noise_sigma();
    let states = run(&schedule, x, &mut noise);
    spread(&states[states.len() - 1])
}

#[test]
fn stochastic_samplers_reach_the_spread_of_the_data() {
    // 4096 draws determine a standard deviation to 1.1 %; the rest is the step size.
    let check = |name: &str, got: f64| {
        assert!((got / SPREAD - 1.0).abs() < 0.06, "{name}: spread {got:.3}, expected {SPREAD}");
    };
    check("ddpm", final_spread(SamplerKind::Ddpm, |_| (), 100));
    check("ddim with eta 1", final_spread(SamplerKind::Ddim, |c| c.eta = Some(1.0), 100));
    check("euler_a", final_spread(SamplerKind::EulerAncestral, |_| (), 100));
    check("dpmpp_2m_sde", final_spread(SamplerKind::DpmPlusPlus2MSde(SigmaCurve::Karras), |_| (), 50));
    check("dpmpp_sde", final_spread(SamplerKind::DpmPlusPlusSde(SigmaCurve::Karras), |_| (), 50));
}

/// All samplers with all curves that they support.
fn all_kinds() -> Vec<SamplerKind> {
    let curves = [SigmaCurve::Table, SigmaCurve::Karras, SigmaCurve::Exponential, SigmaCurve::Beta];
    let with_curves = |kind: SamplerKind| {
        let count = if kind.has_curves() { curves.len() } else { 1 };
        curves.into_iter().take(count).map(move |curve| kind.with_curve(curve))
    };
    SamplerKind::ALL.into_iter().flat_map(with_curves).collect()
}

#[test]
fn what_the_network_predicts_does_not_change_the_image() {
    for kind in all_kinds().into_iter().filter(|kind| *kind != SamplerKind::Pndm) {
        let ends: Vec<f64> = [Prediction::Epsilon, Prediction::Velocity, Prediction::Sample]
            .into_iter()
            .map(|prediction| {
                let config = SchedulerConfig { prediction, ..config(kind) };
                let schedule = Schedule::new(&config, 8).expect("a schedule");
                let mut noise = Seeded::new(3);
                let x = noise.draw([1, 1, 1, 1]).expect("noise") * schedule.init_noise_sigma();
                let states = run(&schedule, x, &mut noise);
                scalar(&states[states.len() - 1])
            })
            .collect();
        for end in &ends[1..] {
            assert!((end - ends[0]).abs() < 1e-4, "{kind}: {ends:?}");
        }
    }
}

#[test]
fn one_step_gives_a_finite_image_with_every_sampler() {
    for kind in all_kinds() {
        for spacing in [Spacing::Leading, Spacing::Trailing, Spacing::Linspace] {
            for steps in [1, 2, 3, 19, 50] {
                let config = SchedulerConfig { spacing: Some(spacing), ..config(kind) };
                let schedule = Schedule::new(&config, steps).expect("a schedule");
                let mut noise = Seeded::new(1);
                let x = noise.draw([1, 1, 1, 1]).expect("noise") * schedule.init_noise_sigma();
                let last = run(&schedule, x, &mut noise).pop().expect("a state");
                assert!(scalar(&last).is_finite(), "{kind}, {spacing:?}, {steps} steps");
            }
        }
    }
}

#[test]
fn a_step_that_goes_nowhere_changes_nothing() {
    // The curve ends at the smallest level, up to rounding, and so does the run.
    let curves = [SigmaCurve::Karras, SigmaCurve::Exponential];
    let kinds =
        |curve| [SamplerKind::DpmPlusPlus2M(curve), SamplerKind::DpmPlusPlus2MSde(curve), SamplerKind::UniPc(curve)];
    for kind in curves.into_iter().flat_map(kinds) {
        let config = SchedulerConfig {
            final_sigmas_type: Some(FinalSigma::SigmaMin),
            disable_corrector: Some((0..20).collect()),
            ..config(kind)
        };
        let schedule = Schedule::new(&config, 20).expect("a schedule");
        let states = run(&schedule, Tensor::ones([1, 1, 1, 1], &device()), &mut Seeded::new(4));
        let (before, after) = (scalar(&states[19]), scalar(&states[20]));
        assert!((before - after).abs() < 1e-4, "{kind}: {before}, then {after}");
    }
}

#[test]
fn levels_without_signal_work_with_velocity() {
    for kind in all_kinds() {
        let config = SchedulerConfig {
            rescale_betas_zero_snr: true,
            prediction: Prediction::Velocity,
            spacing: Some(Spacing::Trailing),
            ..config(kind)
        };
        let schedule = Schedule::new(&config, 10).expect("a schedule");
        let mut noise = Seeded::new(5);
        let x = noise.draw([1, 1, 1, 1]).expect("noise") * schedule.init_noise_sigma();
        let last = run(&schedule, x, &mut noise).pop().expect("a state");
        assert!(scalar(&last).abs() < 10.0, "{kind}: {}", scalar(&last));
    }
    let schedule =
        SchedulerConfig { rescale_betas_zero_snr: true, spacing: Some(Spacing::Trailing), ..config(SamplerKind::Ddim) };
    assert_eq!(Schedule::new(&schedule, 10), Err(ScheduleError::NoSignal { timestep: 999.0 }));
}

#[test]
fn a_run_from_an_image_keeps_the_spread_of_the_data() {
    for kind in all_kinds() {
        let is_distilled = matches!(kind, SamplerKind::Lcm | SamplerKind::Tcd);
        let steps = if is_distilled { 40 } else { 100 };
        let schedule = Schedule::new(&config(kind), steps).and_then(|s| s.from_strength(0.6)).expect("a schedule");
        let mut noise = Seeded::new(11);
        let clean = noise.draw([4096, 1, 1, 1]).expect("noise") * SPREAD;
        let fresh = noise.draw([4096, 1, 1, 1]).expect("noise");
        let x = schedule.add_noise(clean, fresh);
        let last = run(&schedule, x, &mut noise).pop().expect("a state");
        let spread = spread(&last);
        // LCM uses the mean of the posterior as a sample, which reduces the standard deviation, and TCD does so in part.
        let allowed = match kind {
            SamplerKind::Lcm => 0.5,
            SamplerKind::Tcd => 0.15,
            _ => 0.08,
        };
        assert!((spread / SPREAD - 1.0).abs() < allowed, "{kind}: spread {spread:.3}, expected {SPREAD}");
    }
}

#[test]
fn noise_and_velocity_give_the_image_back() {
    let mut noise = Seeded::new(2);
    let (clean, fresh) = (noise.draw([1, 2, 3, 3]).expect("noise"), noise.draw([1, 2, 3, 3]).expect("noise"));
    let level = NoiseLevel { timestep: 0.0, alpha: 0.6, sigma: 0.8 };
    let x = noised(clean.clone(), fresh.clone(), &level);
    let back = x * level.alpha - velocity(clean.clone(), fresh, &level) * level.sigma;
    let off: f32 = (back - clean).abs().max().into_scalar();
    assert!(off < 1e-6, "{off}");
}

#[test]
fn an_observer_can_stop_the_run() {
    let schedule = Schedule::new(&config(SamplerKind::Heun(SigmaCurve::Table)), 10).expect("a schedule");
    let mut seen = Vec::new();
    let x = Tensor::ones([1, 1, 1, 1], &device()) * schedule.init_noise_sigma();
    let result = sample(&schedule, x, &mut Gaussian(Prediction::Epsilon), &mut Silent, &mut |report| {
        seen.push((report.call, report.step, report.steps));
        if report.call == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(seen, [(0, 0, 10), (1, 0, 10), (2, 1, 10), (3, 1, 10)]);
    assert!(matches!(result, Err(Error::Cancelled { step: 2, steps: 10, .. })), "{result:?}");
}

#[test]
fn a_prediction_of_another_shape_is_an_error() {
    struct Doubled;
    impl Denoiser for Doubled {
        fn predict(&mut self, latents: Tensor<4>, _call: &ModelCall) -> Result<Tensor<4>, Error> {
            Ok(Tensor::cat(vec![latents.clone(), latents], 1))
        }
    }
    let schedule = Schedule::new(&config(SamplerKind::Ddim), 4).expect("a schedule");
    let x = Tensor::ones([1, 4, 2, 2], &device());
    let result = sample(&schedule, x, &mut Doubled, &mut Silent, &mut |_| ControlFlow::Continue(()));
    let Err(Error::Sampler(error)) = result else { panic!("{result:?}") };
    assert_eq!(error, SamplerError::Prediction { call: 0, got: [1, 8, 2, 2], expected: [1, 4, 2, 2] });
}

#[test]
fn every_evaluation_sees_what_is_kept_at_its_own_noise_level() {
    /// Checks the network's input when all of an image is kept.
    struct Watched {
        clean: Tensor<4>,
        noise: Tensor<4>,
        levels: Vec<f64>,
    }
    impl Denoiser for Watched {
        fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error> {
            if call.index > 0 {
                let expected = noised(self.clean.clone(), self.noise.clone(), &call.level);
                let error = (latents.clone() - expected).abs().max().into_scalar::<f64>();
                assert!(error < 1e-4, "evaluation {}: {error}", call.index);
            }
            self.levels.push(call.level.sigma);
            Ok(latents * 0.5)
        }
    }
    let second = [SamplerKind::Kdpm2(SigmaCurve::default()), SamplerKind::DpmPlusPlusSde(SigmaCurve::default())];
    for kind in second {
        let schedule = Schedule::new(&config(kind), 5).expect("a schedule");
        let mut seeded = Seeded::new(3);
        let [clean, noise] = [(); 2].map(|()| seeded.draw([1, 2, 3, 3]).expect("noise"));
        let mut network = Watched { clean: clean.clone(), noise: noise.clone(), levels: Vec::new() };
        let mask = Tensor::zeros([1, 1, 3, 3], &device());
        let mask_blend = MaskBlend { clean: clean.clone(), noise: noise.clone(), mask };
        let first = noise * schedule.init_noise_sigma();
        let go_on = &mut |_: StepReport<'_>| ControlFlow::Continue(());
        let mut run = SamplerRun::new(&schedule, &mut network, &mut seeded, go_on, Some(&mask_blend));
        let last = ByKind(schedule.config().kind).sample(&mut run, first).expect("a run");
        assert_eq!(values(&last), values(&clean), "{kind}");
        // Evaluations at the midpoint of a step were among them.
        assert!(network.levels.len() > 5 && network.levels.windows(2).all(|pair| pair[1] < pair[0]), "{kind}");
    }
}
