//! Golden file `pipeline`: whole runs from a prompt with each sampler, and image to image.

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use fabric::core::models::Autoencoder;
use fabric::core::noise::{Draw, RunNoise};
use fabric::core::pipeline::{Request, Settings, StepEvent};
use fabric::core::schedule::{Schedule, SchedulerConfig};

use super::fabric::image;
use super::harness::{Golden, device, json, meaning, numbers};
use super::model::{pipeline, vae};

#[test]
fn whole_runs_equal_the_published_pipeline() {
    let golden = Golden::open("pipeline");
    let settings = json("pipeline.json");
    let text = |key: &str| settings[key].as_str().expect("a prompt").to_owned();
    let prompts = Request::new(text("prompt")).with_negative_prompt(text("negative_prompt"));
    let cases = settings["cases"].as_object().expect("cases");
    for (name, case) in cases {
        text_to_image(&golden, &prompts, name, case);
    }
    image_to_image(&golden, &prompts);
    golden.finish();
}

/// Returns the configuration of a diffusers scheduler with the golden model's noise schedule, and the case's timestep
/// offset if it has one.
pub(super) fn scheduler(name: &str, spacing: &str, offset: Option<u64>) -> SchedulerConfig {
    let (class, more) = match name {
        "ddim" => ("DDIMScheduler", r#", "clip_sample": false, "set_alpha_to_one": false"#),
        "pndm" => ("PNDMScheduler", r#", "skip_prk_steps": true, "set_alpha_to_one": false"#),
        "euler" => ("EulerDiscreteScheduler", ""),
        "euler_a" => ("EulerAncestralDiscreteScheduler", ""),
        "dpmpp_2m" => ("DPMSolverMultistepScheduler", ""),
        "dpmpp_2m_karras" => ("DPMSolverMultistepScheduler", r#", "use_karras_sigmas": true"#),
        "unipc" => ("UniPCMultistepScheduler", ""),
        "lms" => ("LMSDiscreteScheduler", ""),
        "heun" => ("HeunDiscreteScheduler", ""),
        other => panic!("pipeline case `{other}` names no sampler"),
    };
    let of_model = json("models/scheduler/scheduler_config.json");
    let common = ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "steps_offset"];
    let mut config: serde_json::Value =
        serde_json::from_str(&format!(r#"{{"_class_name": "{class}", "timestep_spacing": "{spacing}"{more}}}"#))
            .expect("settings");
    for name in common.into_iter().filter(|name| !of_model[name].is_null()) {
        config[name] = of_model[name].clone();
    }
    if let Some(offset) = offset {
        config["steps_offset"] = offset.into();
    }
    SchedulerConfig::from_json(&config.to_string()).expect("a scheduler")
}

/// Finds the timestep spacing from the timesteps in the file.
fn scheduler_of(name: &str, steps: usize, timesteps: &[f64]) -> SchedulerConfig {
    let spacings = ["leading", "linspace", "trailing"];
    let configs = spacings.map(|spacing| scheduler(name, spacing, None));
    let fits = |config: &&SchedulerConfig| Schedule::new(config, steps).expect("a schedule").timesteps() == timesteps;
    configs.iter().find(fits).unwrap_or_else(|| panic!("{name}: no spacing gives {timesteps:?}")).clone()
}

struct Recorded<'a> {
    golden: &'a Golden,
    case: &'a str,
    device: Device,
    drawn: usize,
}

impl RunNoise for Recorded<'_> {
    fn draw(&mut self, what: Draw<'_>, shape: [usize; 4]) -> Result<Tensor<4>, fabric::core::Error> {
        let noise: Tensor<4> = match what {
            Draw::Latents => self.golden.tensor("latents", &self.device),
            Draw::Step | Draw::StartPosterior | Draw::StartNoise | Draw::MaskedPosterior => {
                let all: Tensor<5> = self.golden.tensor(&format!("{}/noise", self.case), &self.device);
                self.drawn += 1;
                all.slice_dim(0, self.drawn - 1..self.drawn).squeeze_dim(0)
            }
            Draw::Reference { .. } | Draw::ReferencePosterior { .. } => panic!("no references in this file"),
        };
        assert_eq!(noise.dims(), shape, "{}: {what:?}", self.case);
        Ok(noise)
    }
}

fn run(golden: &Golden, name: &str, request: &Request, scheduler: SchedulerConfig) -> Tensor<4> {
    let mut states = Vec::new();
    let mut watch = |event: &StepEvent<'_>| {
        states.push(event.state.clone());
        ControlFlow::Continue(())
    };
    let mut noise = Recorded { golden, case: name, device: device(), drawn: 0 };
    let pipeline = pipeline().clone().with_scheduler(scheduler);
    let made = pipeline.generate_with(request, &mut noise, &mut watch).expect("a generation");
    golden.compare(&format!("{name}/steps"), Tensor::stack::<5>(states, 0));
    made.latents
}

fn text_to_image(golden: &Golden, prompts: &Request, name: &str, case: &serde_json::Value) {
    let steps = case["steps"].as_u64().expect("steps") as usize;
    let timesteps: Vec<f64> =
        case["timesteps"].as_array().expect("timesteps").iter().map(|t| t.as_f64().expect("a number")).collect();
    let latents = golden.shape("latents");
    let settings = Settings {
        width: Some(latents[3] * vae().scale_factor()),
        height: Some(latents[2] * vae().scale_factor()),
        steps,
        guidance_scale: case["guidance"].as_f64().expect("guidance"),
        ..Settings::default()
    };
    let request = prompts.clone().with_seeds(0..latents[0] as u64).with_settings(settings);
    let made = run(golden, name, &request, scheduler_of(name, steps, &timesteps));
    let image = format!("{name}/image");
    if golden.has(&image) {
        golden.compare(&image, (vae().decode(made) / 2.0 + 0.5).clamp(0.0, 1.0));
    }
}

fn image_to_image(golden: &Golden, prompts: &Request) {
    let said = meaning("pipeline", "img2img/steps", "strength 0.6 of 10 DDIM steps, guidance 5.0");
    let [strength, steps, guidance] = numbers(&said)[..3] else { panic!("img2img: {said}") };
    let shape = golden.shape("img2img/image");
    let settings = Settings {
        width: Some(shape[1]),
        height: Some(shape[0]),
        steps: steps as usize,
        guidance_scale: guidance,
        ..Settings::default()
    };
    let request =
        prompts.clone().with_settings(settings).with_init_image(image(golden, "img2img/image", &shape, 0), strength);
    run(golden, "img2img", &request, scheduler("ddim", "leading", None));
}
