//! Golden file `schedulers`: diffusers' timesteps, noise levels and whole trajectories with a linear model.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use fabric::core::Error;
use fabric::core::denoise::{Denoiser, ModelCall, NoiseSource};
use fabric::core::samplers;
use fabric::core::schedule::{self, Schedule, SchedulerConfig, training_betas, training_levels};
use serde_json::Value;

use super::harness::{Golden, device, fixtures, json, relative_error, tolerance};

/// Linear model `a * latents + b * timestep / 1000 + c * pattern`, which records its answers.
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

/// Noise source that replays recorded noise in order.
struct Recorded {
    draws: Vec<Tensor<4>>,
    used: usize,
}

impl NoiseSource for Recorded {
    fn draw(&mut self, _shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        let draw = self.draws.get(self.used).cloned();
        self.used += 1;
        draw.ok_or_else(|| Error::settings("recorded noise", self.used, self.draws.len().to_string(), "draw less"))
    }
}

/// Returns the configuration of a case. Arguments of diffusers' `step` are part of our configuration.
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

/// Splits a tensor `[calls, images, channels, height, width]` by calls.
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
    let cases = file["cases"].as_object().expect("an object");
    let failed: Vec<String> = cases.iter().filter_map(|(name, case)| trajectory(&golden, &file, name, case)).collect();
    betas_and_alphas(&golden, &file);
    noise_is_added(&golden, &file);
    if failed.is_empty() {
        golden.finish();
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn trajectories_of_tcd_are_diffusers() {
    let golden = Golden::fixture("tcd");
    let text = std::fs::read_to_string(fixtures().join("tcd.json")).expect("the cases");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let cases = file["cases"].as_object().expect("an object");
    let failed: Vec<String> = cases.iter().filter_map(|(name, case)| trajectory(&golden, &file, name, case)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    golden.finish();
}

#[test]
fn noise_is_added_whatever_number_of_steps_the_cases_have() {
    let golden = Golden::open("schedulers");
    let mut file = json("schedulers.json");
    for case in file["cases"].as_object_mut().expect("an object").values_mut() {
        case["steps"] = 7.into();
    }
    noise_is_added(&golden, &file);
    if golden.has("add_noise/euler") {
        let error = golden.error("add_noise/euler");
        assert!(error <= tolerance(), "add_noise/euler: {error:.2e}");
    }
}

/// Checks the tables and the trajectory of one case. Returns a message for errors other than tensor differences.
fn trajectory(golden: &Golden, file: &Value, name: &str, case: &Value) -> Option<String> {
    let number = |key: &str| file[key].as_f64().expect("a number");
    let key = |tensor: &str| format!("{name}/{tensor}");
    let steps = case["steps"].as_u64().expect("a number") as usize;
    let schedule = match Schedule::new(&config(case), steps) {
        Ok(schedule) => schedule,
        Err(error) => return Some(format!("{name}: {error}")),
    };

    // Integer timesteps are exact. Fractional ones come from f32 logarithms, and noise levels have f32 precision.
    let tables = [
        ("timesteps", schedule.timesteps()),
        ("sigmas", schedule.sigmas()),
        ("init_noise_sigma", vec![schedule.init_noise_sigma()]),
    ];
    for (table, got) in tables {
        if golden.has(&key(table)) {
            let expected = golden.values(&key(table));
            let exact = table == "timesteps" && expected.iter().all(|timestep| timestep.fract() == 0.0);
            let allowed = if exact { 0.0 } else { 1e-6 };
            if got.len() != expected.len() || relative_error(&got, &expected) > allowed {
                return Some(format!("{name}, {table}: expected {expected:?}, got {got:?}"));
            }
            golden.note(&key(table), relative_error(&got, &expected));
        }
    }

    let pattern = golden.tensor("pattern", &device());
    let mut network = Linear { a: number("A"), b: number("B"), c: number("C"), pattern, answers: Vec::new() };
    let mut noise = Recorded { draws: rows(golden, &key("noise")), used: 0 };
    let latents = golden.tensor::<4>("x0_noise", &device()) * schedule.init_noise_sigma();
    let mut states = vec![latents.clone()];
    let last = samplers::sample(&schedule, latents, &mut network, &mut noise, &mut |report| {
        states.push(report.state.clone());
        ControlFlow::Continue(())
    });
    let Ok(last) = last else { return Some(format!("{name}: {last:?}")) };
    assert_eq!(last.into_data(), states[states.len() - 1].to_data(), "{name}: the last state is the result");
    if golden.has(&key("x")) {
        golden.compare(&key("x"), Tensor::<4>::stack::<5>(states, 0));
    }
    if golden.has(&key("model_out")) {
        golden.compare(&key("model_out"), Tensor::<4>::stack::<5>(network.answers, 0));
    }
    let draws = (noise.used, noise.draws.len(), case["draws"].as_u64().expect("a number") as usize);
    (draws.0 != draws.1 || draws.0 != draws.2).then(|| format!("{name}: draws made, recorded, counted: {draws:?}"))
}

/// Compares `tables/<beta_schedule>/...`, for the range of betas of the cases.
fn betas_and_alphas(golden: &Golden, file: &Value) {
    // Uses any case that computes its betas from a range and does not rescale them.
    let plain = |case: &&Value| {
        case["config"]["trained_betas"].is_null() && case["config"]["rescale_betas_zero_snr"] != Value::Bool(true)
    };
    let any = file["cases"].as_object().expect("an object").values().find(plain).expect("a plain case");
    for key in golden.keys().iter().filter(|key| key.starts_with("tables/")) {
        let (table, what) = key["tables/".len()..].split_once('/').expect("tables/SCHEDULE/WHAT");
        let mut case = any.clone();
        case["config"]["beta_schedule"] = table.into();
        let config = config(&case);
        let got: Vec<f64> = match what {
            "betas" => training_betas(&config).expect("betas").into_iter().map(f64::from).collect(),
            "alphas_cumprod" => training_levels(&config).expect("levels").iter().map(|l| l.alpha * l.alpha).collect(),
            other => panic!("a table that this test does not know: {other}"),
        };
        golden.compare_values(key, &got);
    }
}

/// Returns the number of noise levels of the schedule of `add_noise/euler`, which is independent of the cases.
/// Default: 10.
fn add_noise_steps(file: &Value) -> usize {
    file.get("add_noise_steps").map_or(10, |steps| steps.as_u64().expect("a number") as usize)
}

/// Compares `add_noise/...`: one image per training step, and per step of an Euler schedule with leading timesteps.
fn noise_is_added(golden: &Golden, file: &Value) {
    if !golden.has("add_noise/x") {
        return;
    }
    let (images, noises) = (golden.tensor::<4>("add_noise/x", &device()), golden.tensor("add_noise/noise", &device()));
    let row = |tensor: &Tensor<4>, i: usize| tensor.clone().slice_dim(0, i..i + 1);
    let plain = |case: &&Value| {
        let setting = |name: &str| &case["config"][name];
        case["class"] == "EulerDiscreteScheduler"
            && setting("timestep_spacing") == "leading"
            && setting("use_karras_sigmas") != &Value::Bool(true)
    };
    let cases = file["cases"].as_object().expect("an object");
    let euler = cases.get("euler/epsilon/leading").or_else(|| cases.values().find(plain)).expect("a plain Euler case");
    let config = config(euler);
    let steps = add_noise_steps(file);
    let euler = Schedule::new(&config, steps).expect("a schedule");
    let levels = training_levels(&config).expect("levels");

    let (mut noised, mut velocities) = (Vec::new(), Vec::new());
    for (i, step) in golden.values("add_noise/t").into_iter().enumerate() {
        let level = &levels[step as usize];
        noised.push(schedule::noised(row(&images, i), row(&noises, i), level));
        velocities.push(schedule::velocity(row(&images, i), row(&noises, i), level));
    }
    golden.compare("add_noise/ddpm", Tensor::cat(noised, 0));
    golden.compare("add_noise/velocity", Tensor::cat(velocities, 0));

    let mut noised = Vec::new();
    for (i, timestep) in golden.values("add_noise/euler_t").into_iter().enumerate() {
        let at = euler.timesteps().iter().position(|t| *t == timestep).expect("a timestep of the schedule");
        let strength = (steps as f64 - at as f64 + 0.5) / steps as f64;
        let rest = euler.from_strength(strength.min(1.0)).expect("a schedule that starts later");
        assert_eq!(rest.timesteps()[0], timestep);
        noised.push(rest.add_noise(row(&images, i), row(&noises, i)));
    }
    golden.compare("add_noise/euler", Tensor::cat(noised, 0));
}
