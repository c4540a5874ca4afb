//! The configuration of a run: everything its records depend on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fabric::core::pipeline::Settings;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::store::config_hash;
use crate::{Experiment, ExperimentError, Plan};

/// Returns the configuration of a run and the plan of its sessions.
///
/// The number of prompts and the shard are not part of it: a run may be extended to more prompts, and shards belong to
/// one run.
///
/// # Errors
///
/// Returns an error if a file of the model cannot be read.
pub fn configured(
    experiment: &Experiment,
    model: &Path,
    settings: &Settings,
    [rounds, images]: [usize; 2],
    seed: u64,
) -> Result<(Value, Plan), ExperimentError> {
    let config = json!({
        "experiment": experiment,
        "model": { "name": model.file_name().map(|name| name.to_string_lossy()), "hash": hash_of(model)? },
        "settings": settings,
        "rounds": rounds,
        "images": images,
        "seed": seed,
    });
    let plan = Plan {
        config: config_hash(&config),
        feedback: experiment.feedback,
        rounds,
        images,
        seed,
        settings: settings.clone(),
    };
    Ok((config, plan))
}

/// Returns a hash of a model's files: their names and contents.
fn hash_of(model: &Path) -> Result<String, ExperimentError> {
    let files = files(model).map_err(ExperimentError::io(model, "list the model's files"))?;
    let mut digest = Sha256::new();
    for path in files {
        let name = path.strip_prefix(model).unwrap_or(&path);
        digest.update(name.to_string_lossy().as_bytes());
        let mut file = fs::File::open(&path).map_err(ExperimentError::io(&path, "read the model's file"))?;
        io::copy(&mut file, &mut Writer(&mut digest)).map_err(ExperimentError::io(&path, "read the model's file"))?;
    }
    Ok(digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
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
