//! Golden file `schedulers`: timesteps, noise levels and whole trajectories of diffusers, for a linear "network".

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use fabric::core::Error;
use fabric::core::denoise::{Denoiser, ModelCall, NoiseSource};
use fabric::core::samplers;
use fabric::core::schedule::{self, Schedule, SchedulerConfig, training_betas, training_levels};
use serde_json::Value;

use super::harness::{Golden, device, json, relative_error};

/// `a * latents + b * timestep / 1000 + c * pattern`, and what it was asked.
struct Linear {
    a: f64,
    b: f64,
    c: f64,
    pattern: Tensor<4>,
    answers: Vec<Tensor<4>>,
}

impl Denoiser for Linear {
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error> {
        let told = call.level.timestep / 1000.0;
        let answer = latents * self.a + self.pattern.clone() * self.c + self.b * told;
        self.answers.push(answer.clone());
        Ok(answer)
    }
}

/// Recorded draws, in order.
struct Recorded {
    draws: Vec<Tensor<4>>,
    used: usize,
}

impl NoiseSource for Recorded {
    fn draw(&mut self, _shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        self.used += 1;
        Ok(self.draws[self.used - 1].clone())
    }
}

/// The configuration file of a case; what diffusers takes as arguments of `step` we have in the configuration.
fn config(case: &Value) -> SchedulerConfig {
    let mut file = case["config"].clone();
    file["_class_name"] = case["class"].clone();
    let mut config = SchedulerConfig::from_json(&file.to_string()).expect("a configuration diffusers took");
    for (name, value) in case["step_kwargs"].as_object().expect("an object") {
        match name.as_str() {
            "eta" => config.eta = value.as_f64(),
            "order" => config.lms_order = value.as_u64().map(|order| order as usize),
            other => panic!("an argument of step that this test does not know: {other}"),
        }
    }
    config
}

/// Rows of `[calls, images, channels, height, width]`.
fn rows(golden: &Golden, key: &str) -> Vec<Tensor<4>> {
    if !golden.has(key) {
        return Vec::new();
    }
    let stacked: Tensor<5> = golden.tensor(key, &device());
    (0..stacked.dims()[0]).map(|i| stacked.clone().slice_dim(0, i..i + 1).squeeze_dim(0)).collect()
}

#[test]
fn trajectories_are_diffusers() {
    let golden = Golden::open("schedulers");
    let file = json("schedulers.json");
    let number = |key: &str| file[key].as_f64().expect("a number");
    let start: Tensor<4> = golden.tensor("x0_noise", &device());
    let pattern: Tensor<4> = golden.tensor("pattern", &device());

    for (name, case) in file["cases"].as_object().expect("an object") {
        let key = |tensor: &str| format!("{name}/{tensor}");
        let steps = case["steps"].as_u64().expect("a number") as usize;
        let schedule = Schedule::new(&config(case), steps).unwrap_or_else(|e| panic!("{name}: {e}"));

        if golden.has(&key("timesteps")) {
            // Whole timesteps are exact; fractions went through f32 logarithms.
            let (found, wanted) = (schedule.timesteps(), golden.values(&key("timesteps")));
            assert_eq!(found.len(), wanted.len(), "{name}: timesteps");
            let whole = wanted.iter().all(|timestep| timestep.fract() == 0.0);
            let allowed = if whole { 0.0 } else { 1e-6 };
            let error = relative_error(&found, &wanted);
            assert!(error <= allowed, "{name}: {found:?}, wanted {wanted:?}");
            golden.note(&key("timesteps"), error);
        }
        if golden.has(&key("sigmas")) {
            let error = relative_error(&schedule.sigmas(), &golden.values(&key("sigmas")));
            assert!(error <= 1e-6, "{name}: sigmas off by {error:.1e}");
            golden.note(&key("sigmas"), error);
        }
        if golden.has(&key("init_noise_sigma")) {
            let error = relative_error(&[schedule.init_noise_sigma()], &golden.values(&key("init_noise_sigma")));
            assert!(error <= 1e-6, "{name}: init_noise_sigma off by {error:.1e}");
            golden.note(&key("init_noise_sigma"), error);
        }

        let mut network =
            Linear { a: number("A"), b: number("B"), c: number("C"), pattern: pattern.clone(), answers: Vec::new() };
        let mut noise = Recorded { draws: rows(&golden, &key("noise")), used: 0 };
        let latents = start.clone() * schedule.init_noise_sigma();
        let mut states = vec![latents.clone()];
        let last = samplers::sample(&schedule, latents, &mut network, &mut noise, &mut |report| {
            states.push(report.state.clone());
            ControlFlow::Continue(())
        })
        .unwrap_or_else(|e| panic!("{name}: {e}"));

        assert_eq!(noise.used, noise.draws.len(), "{name}: draws");
        assert_eq!(noise.used as u64, case["draws"].as_u64().expect("a number"), "{name}: draws");
        assert_eq!(last.into_data(), states[states.len() - 1].to_data(), "{name}: the last state is the result");
        if golden.has(&key("x")) {
            golden.compare(&key("x"), Tensor::<4>::stack::<5>(states, 0));
        }
        if golden.has(&key("model_out")) {
            golden.compare(&key("model_out"), Tensor::<4>::stack::<5>(network.answers, 0));
        }
    }
    betas_and_alphas(&golden, &file);
    noise_is_added(&golden, &file);
    golden.finish();
}

/// `tables/<beta_schedule>/...`, over the range of betas that the cases have.
fn betas_and_alphas(golden: &Golden, file: &Value) {
    let (_, any) = file["cases"].as_object().expect("an object").iter().next().expect("a case");
    for key in golden.keys().iter().filter(|key| key.starts_with("tables/")) {
        let (table, what) = key["tables/".len()..].split_once('/').expect("tables/SCHEDULE/WHAT");
        let mut case = any.clone();
        case["config"]["beta_schedule"] = table.into();
        let config = config(&case);
        let found: Vec<f64> = match what {
            "betas" => training_betas(&config).expect("betas").into_iter().map(f64::from).collect(),
            "alphas_cumprod" => training_levels(&config).expect("levels").iter().map(|l| l.alpha * l.alpha).collect(),
            other => panic!("a table that this test does not know: {other}"),
        };
        golden.compare_values(key, &found);
    }
}

/// `add_noise/...`: one picture per training step, and per step of the plain Euler case with leading timesteps.
fn noise_is_added(golden: &Golden, file: &Value) {
    if !golden.has("add_noise/x") {
        return;
    }
    let (pictures, noises) =
        (golden.tensor::<4>("add_noise/x", &device()), golden.tensor("add_noise/noise", &device()));
    let row = |tensor: &Tensor<4>, i: usize| tensor.clone().slice_dim(0, i..i + 1);
    let euler = &file["cases"]["euler/epsilon/leading"];
    let config = config(euler);
    let steps = euler["steps"].as_u64().expect("a number") as usize;
    let euler = Schedule::new(&config, steps).expect("a schedule");
    let levels = training_levels(&config).expect("levels");

    let (mut noised, mut velocities) = (Vec::new(), Vec::new());
    for (i, step) in golden.values("add_noise/t").into_iter().enumerate() {
        let level = &levels[step as usize];
        noised.push(schedule::noised(row(&pictures, i), row(&noises, i), level));
        velocities.push(schedule::velocity(row(&pictures, i), row(&noises, i), level));
    }
    golden.compare("add_noise/ddpm", Tensor::cat(noised, 0));
    golden.compare("add_noise/velocity", Tensor::cat(velocities, 0));

    let mut noised = Vec::new();
    for (i, timestep) in golden.values("add_noise/euler_t").into_iter().enumerate() {
        let at = euler.timesteps().iter().position(|t| *t == timestep).expect("a timestep of the schedule");
        let strength = (steps as f64 - at as f64 + 0.5) / steps as f64;
        let rest = euler.from_strength(strength.min(1.0)).expect("a schedule that starts later");
        assert_eq!(rest.timesteps()[0], timestep);
        noised.push(rest.add_noise(row(&pictures, i), row(&noises, i)));
    }
    golden.compare("add_noise/euler", Tensor::cat(noised, 0));
}
