//! The configuration of a run: everything its records depend on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fabric::core::pipeline::Settings;
use fabric::models::LoraChoice;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::store::config_hash;
use crate::{Experiment, ExperimentError, Plan, PromptSet};

/// Files and texts that the results of a run depend on.
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
}

/// Prompts of a file, and the preference model that scores their images.
#[derive(Debug, Clone, Copy)]
pub struct PromptInputs<'a> {
    /// The file or folder that the prompts come from.
    pub path: &'a Path,
    /// The prompts.
    pub prompts: &'a PromptSet,
    /// The preference model: a folder or a file.
    pub preference: &'a Path,
}

/// Returns the configuration of a run and the plan of its sessions.
///
/// The number of prompts and the shard are not part of it: a run may be extended to more prompts, and shards belong to
/// one run.
///
/// # Errors
///
/// Returns an error if a file of a model, a LoRA or a target image cannot be read.
pub fn configured(
    experiment: &Experiment,
    inputs: &Inputs<'_>,
    settings: &Settings,
    [rounds, images]: [usize; 2],
    seed: u64,
) -> Result<(Value, Plan), ExperimentError> {
    let mut config = json!({
        "experiment": experiment,
        "model": identity(inputs.model)?,
        "settings": settings,
        "rounds": rounds,
        "images": images,
        "seed": seed,
    });
    if let Some(PromptInputs { path, prompts, preference }) = inputs.prompts {
        config["prompts"] = json!({ "name": name_of(path), "hash": hash_of_prompts(prompts)? });
        config["preference"] = identity(preference)?;
    }
    if let Some(lora) = inputs.lora {
        config["lora"] = identity(&lora.path)?;
        // As text, because JSON has numbers of f64, in which 0.8 of f32 has many digits.
        config["lora"]["scale"] = lora.scale.to_string().into();
    }
    if let Some(prompt) = inputs.negative_prompt {
        config["negative_prompt"] = prompt.into();
    }
    let plan = Plan {
        config: config_hash(&config),
        feedback: experiment.feedback,
        rounds,
        images,
        seed,
        negative_prompt: inputs.negative_prompt.map(str::to_owned),
        settings: settings.clone(),
    };
    Ok((config, plan))
}

/// Returns the name and the hash of a model, which identify it without telling where it lies.
fn identity(model: &Path) -> Result<Value, ExperimentError> {
    Ok(json!({ "name": name_of(model), "hash": hash_of(model)? }))
}

/// Returns the last part of a path.
fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Returns a hash of a model's files: their names and contents.
fn hash_of(model: &Path) -> Result<String, ExperimentError> {
    let files = files(model).map_err(ExperimentError::io(model, "list the model's files"))?;
    let mut digest = Sha256::new();
    for path in files {
        let name = path.strip_prefix(model).unwrap_or(&path);
        digest.update(name.to_string_lossy().as_bytes());
        hash_file(&path, "read the model's file", &mut digest)?;
    }
    Ok(hex(digest))
}

/// Returns a hash of the prompts and of their target images: what is used of a file, whatever its format.
fn hash_of_prompts(set: &PromptSet) -> Result<String, ExperimentError> {
    let mut digest = Sha256::new();
    for case in &set.prompts {
        // JSON shows where each text ends.
        digest.update(json!([case.prompt, case.negative]).to_string());
        if let Some(target) = &case.target {
            hash_file(target, "read the target image", &mut digest)?;
        }
    }
    Ok(hex(digest))
}

/// Adds the contents of a file to a digest.
fn hash_file(path: &Path, doing: &'static str, digest: &mut Sha256) -> Result<(), ExperimentError> {
    let mut file = fs::File::open(path).map_err(ExperimentError::io(path, doing))?;
    io::copy(&mut file, &mut Writer(digest)).map_err(ExperimentError::io(path, doing))?;
    Ok(())
}

/// Returns the first 8 bytes of a digest as hexadecimal digits.
fn hex(digest: Sha256) -> String {
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lists a file, or all files below a folder, sorted by path.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    let mut all = Vec::new();
    for entry in entries {
        all.extend(files(&entry)?);
    }
    Ok(all)
}

/// Feeds what is written to a digest.
struct Writer<'a>(&'a mut Sha256);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
