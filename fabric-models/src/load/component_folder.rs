use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::json::{MAX_CONFIG_BYTES, read_json};
use super::{LoadError, TensorSource, open_weights};

/// Folder of one network in the diffusers and transformers layout: `config.json` and a file of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentFolder {
    path: PathBuf,
    weights: PathBuf,
}

impl ComponentFolder {
    /// Finds the files of a network.
    ///
    /// Without a `variant`, the order of preference is `.safetensors` (one file or sharded), its `fp16` variant,
    /// `.bin`, and its `fp16` variant. With a `variant` (`"fp16"`), only files of that variant are accepted.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder, its `config.json` or every known file of weights is missing.
    pub fn open(path: impl AsRef<Path>, variant: Option<&str>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        if let Some(name) = variant.filter(|name| !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            let next = "name a variant, or none";
            return Err(LoadError::malformed(path, "variant", format!("`{name}`"), "a word such as `fp16`", next));
        }
        if !path.is_dir() {
            let next = "get this part of the model, or give the folder that has it";
            return Err(LoadError::NotFound {
                what: "folder of a network".into(),
                path: path.into(),
                next: next.into(),
            });
        }
        if !path.join("config.json").is_file() {
            let next = "get the file from where the weights come from: weights without it cannot be understood";
            return Err(LoadError::NotFound { what: "config.json".into(), path: path.into(), next: next.into() });
        }
        let candidates = candidates(variant);
        match candidates.iter().map(|name| path.join(name)).find(|candidate| candidate.is_file()) {
            Some(weights) => Ok(Self { path: path.to_owned(), weights }),
            None => Err(no_weights(path, variant, &candidates)),
        }
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the file of weights, or of the index of sharded weights.
    pub fn weights_path(&self) -> &Path {
        &self.weights
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is no JSON object, is larger than 4 MB, or lacks a field that `T` requires.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        read_json(&self.path.join("config.json"), MAX_CONFIG_BYTES)
    }

    /// Opens the weights.
    ///
    /// # Errors
    ///
    /// Same as [`open_weights`].
    pub fn weights(&self) -> Result<Arc<dyn TensorSource>, LoadError> {
        open_weights(&self.weights)
    }
}

/// Names of safetensors files of a variant (`.fp16`, or nothing), in the order in which they are tried.
pub(crate) fn safetensors_names(variant: &str) -> Vec<String> {
    let names = |stem| [format!("{stem}{variant}.safetensors"), format!("{stem}.safetensors.index{variant}.json")];
    ["diffusion_pytorch_model", "model"].into_iter().flat_map(names).collect()
}

/// Names of pickle files of a variant (`.fp16`, or nothing), in the order in which they are tried.
pub(crate) fn pickle_names(variant: &str) -> Vec<String> {
    let names = |stem| [format!("{stem}{variant}.bin"), format!("{stem}.bin.index{variant}.json")];
    ["diffusion_pytorch_model", "pytorch_model"].into_iter().flat_map(names).collect()
}

/// File names in the order in which they are tried.
fn candidates(variant: Option<&str>) -> Vec<String> {
    match variant {
        Some(variant) => {
            let variant = format!(".{variant}");
            [safetensors_names(&variant), pickle_names(&variant)].concat()
        }
        None => [safetensors_names(""), safetensors_names(".fp16"), pickle_names(""), pickle_names(".fp16")].concat(),
    }
}

fn no_weights(path: &Path, variant: Option<&str>, candidates: &[String]) -> LoadError {
    let mut present: Vec<String> = std::fs::read_dir(path)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    present.sort();
    let what = variant.map_or_else(|| "weights".to_owned(), |variant| format!("weights of the variant `{variant}`"));
    let got = format!("only {}", present.join(", "));
    let next = "get the file, or choose another variant";
    LoadError::malformed(path, what, got, format!("one of {}", candidates.join(", ")), next)
}
