//! The configuration of a run: everything its records depend on, but for the processor, whose rounding may differ.

use std::path::Path;

use fabric::DeviceKind;
use fabric::core::pipeline::{ReasonSettings, Settings};
use fabric::models::LoraChoice;
use serde_json::{Value, json};

use crate::hash::{ADAPTER_CONFIG, hash_of, hash_of_prompts};
use crate::store::config_hash;
use crate::{AdapterExperiment, AdapterPlan, Experiment, ExperimentError, Plan, PromptFormat, PromptSet};

/// Files, texts and the device that the results of a run depend on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The model: a folder or a file.
    pub model: &'a Path,
    /// The prompts and their preference model; `None` for the small world, which has its own.
    pub prompts: Option<PromptInputs<'a>>,
    /// The LoRA of the arms that have one.
    pub lora: Option<&'a LoraChoice>,
    /// Negative prompt of all prompts that have none of their own.
    pub negative_prompt: Option<&'a str>,
    /// The device that computes the images.
    pub device: &'a DeviceKind,
}

/// Prompts of a file, and the preference model that scores their images.
#[derive(Debug, Clone, Copy)]
pub struct PromptInputs<'a> {
    /// The file or folder that the prompts come from.
    pub path: &'a Path,
    /// The format that was asked for; `None` if the file told it.
    pub format: Option<PromptFormat>,
    /// The prompts.
    pub prompts: &'a PromptSet,
    /// The preference model: a folder or a file.
    pub preference: &'a Path,
}

/// Inputs of a run with the hashes of their files. Several experiments can share them.
#[derive(Debug, Clone)]
pub struct IdentifiedInputs {
    /// Fields of the configuration that name and hash the inputs.
    fields: Value,
    negative_prompt: Option<String>,
}

impl Inputs<'_> {
    /// Reads and hashes all files. This takes time: models have gigabytes.
    ///
    /// # Errors
    ///
    /// Returns an error if a file of a model, a LoRA or a target image cannot be read.
    pub fn identify(&self) -> Result<IdentifiedInputs, ExperimentError> {
        let mut fields = json!({
            "model": identity(self.model, &[])?,
            // The last digits of sums differ between backends and number formats.
            "computation": {
                "device": device_name(self.device),
                "matmul": fabric::backends::matmul_format(),
            },
        });
        if let Some(PromptInputs { path, format, prompts, preference }) = self.prompts {
            fields["prompts"] = json!({ "name": name_of(path), "hash": hash_of_prompts(prompts)? });
            if let Some(format) = format {
                fields["prompts"]["format"] = format.to_string().into();
            }
            fields["preference"] = identity(preference, &[])?;
        }
        if let Some(lora) = self.lora {
            fields["lora"] = identity(&lora.path, &[ADAPTER_CONFIG])?;
            // As text, because JSON has numbers of f64, in which 0.8 of f32 has many digits.
            fields["lora"]["scale"] = lora.scale.to_string().into();
        }
        if let Some(prompt) = self.negative_prompt {
            fields["negative_prompt"] = prompt.into();
        }
        Ok(IdentifiedInputs { fields, negative_prompt: self.negative_prompt.map(str::to_owned) })
    }
}

/// Returns the configuration of a run and the plan of its sessions. `keep_images` is the number of prompts whose images
/// are kept, which the records name.
///
/// The number of prompts and the shard are not part of it: a run may be extended to more prompts, and shards belong to
/// one run. The LoRA is part of it only if the experiment has arms with one.
pub fn configured(
    experiment: &Experiment,
    inputs: &IdentifiedInputs,
    settings: &Settings,
    [rounds, images]: [usize; 2],
    keep_images: usize,
    seed: u64,
) -> (Value, Plan) {
    let mut config = with_settings(inputs, settings, [rounds, images], keep_images, seed);
    if let Some(fields) = config.as_object_mut().filter(|_| !experiment.uses_lora()) {
        fields.remove("lora");
    }
    config["experiment"] = serde_json::to_value(experiment).expect("an experiment is plain data");
    let plan = Plan {
        config: config_hash(&config),
        feedback: experiment.feedback,
        rounds,
        images,
        seed,
        negative_prompt: inputs.negative_prompt.clone(),
        settings: settings.clone(),
    };
    (config, plan)
}

/// Returns the configuration of a run with an adapter and the plan of its sessions, which have one round of `images`
/// images; see [`configured`]. The adapter is a part of the model.
pub fn configured_adapters(
    experiment: &AdapterExperiment,
    inputs: &IdentifiedInputs,
    settings: &Settings,
    images: usize,
    keep_images: usize,
    seed: u64,
) -> (Value, AdapterPlan) {
    let mut config = with_settings(inputs, settings, [1, images], keep_images, seed);
    if let Some(fields) = config.as_object_mut() {
        // Arms with a LoRA are FABRIC's.
        fields.remove("lora");
    }
    config["experiment"] = serde_json::to_value(experiment).expect("an experiment is plain data");
    let plan = AdapterPlan {
        config: config_hash(&config),
        cases: experiment.cases,
        images,
        seed,
        negative_prompt: inputs.negative_prompt.clone(),
        settings: settings.clone(),
    };
    (config, plan)
}

/// Returns the fields of a configuration that all kinds of experiments have.
fn with_settings(
    inputs: &IdentifiedInputs,
    settings: &Settings,
    [rounds, images]: [usize; 2],
    keep_images: usize,
    seed: u64,
) -> Value {
    let mut config = inputs.fields.clone();
    config["settings"] = serde_json::to_value(settings).expect("settings are plain data");
    if settings.reasons == ReasonSettings::default()
        && let Some(fields) = config["settings"].as_object_mut()
    {
        // As it was before there were settings of reasons, so that older runs resume.
        fields.remove("reasons");
    }
    config["rounds"] = rounds.into();
    config["images"] = images.into();
    config["keep_images"] = keep_images.into();
    config["seed"] = seed.into();
    config
}

/// Returns the name of a backend, without the number of the device: shards of one run may use several GPUs of a
/// machine.
fn device_name(device: &DeviceKind) -> &'static str {
    match device {
        DeviceKind::Flex => "flex",
        DeviceKind::NdArray => "ndarray",
        DeviceKind::Cuda(_) => "cuda",
        DeviceKind::Wgpu(_) => "wgpu",
        DeviceKind::Remote { .. } => "remote",
    }
}

/// Returns the name and the hash of a model, which identify it without telling where it lies.
fn identity(model: &Path, beside: &[&str]) -> Result<Value, ExperimentError> {
    Ok(json!({ "name": name_of(model), "hash": hash_of(model, beside)? }))
}

/// Returns the last part of a path.
fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}
