//! Selection of the files that the loaders read.

use std::collections::BTreeSet;
use std::path::Path;

use fabric_core::InvalidValue;

use super::HubError;
use super::names::{ModelName, is_plain, quoted};
use crate::load::{Component, LoadError, pickle_names, safetensors_names, shard_names};

/// Index of a model.
pub(super) const MODEL_INDEX: &str = "model_index.json";

/// Files of a tokenizer. The last one replaces the first two.
const TOKENIZER_FILES: [&str; 6] = [
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
];

/// Files that the loaders read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    /// Configurations, files of tokenizers, and indices of sharded weights.
    pub(super) small: Vec<String>,
    /// Files of weights that are not sharded.
    pub(super) weights: Vec<String>,
    /// Indices of sharded weights, which are in `small` too.
    indices: Vec<String>,
}

impl Selection {
    /// Selects the files of a model with these components from those of its repository.
    ///
    /// For each component, safetensors of the variant come first, then those without a variant, then `fp16` ones, and
    /// only then pickle files, if the feature `pickle` reads them.
    ///
    /// # Errors
    ///
    /// Returns an error with the first missing file.
    pub(super) fn new(
        model: &ModelName,
        files: &BTreeSet<String>,
        components: &[Component],
        variant: Option<&str>,
    ) -> Result<Self, HubError> {
        let mut small = vec!["scheduler/scheduler_config.json".to_owned()];
        let (mut weights, mut indices) = (Vec::new(), Vec::new());
        for component in components {
            let folder = component.folder_name();
            small.push(format!("{folder}/config.json"));
            let found = weights_of(folder, files, variant)
                .map_err(|value| HubError::Incomplete { model: model.to_string(), value })?;
            let list = if found.ends_with(".json") { &mut indices } else { &mut weights };
            list.push(found);
            small.extend(component.tokenizer_folder_name().into_iter().flat_map(|folder| tokenizer_of(folder, files)));
        }
        small.extend(indices.iter().cloned());
        small.iter().try_for_each(|path| Self::require(model, files, path))?;
        Ok(Self { small, weights, indices })
    }

    /// Returns the files of weights that the indices list. The indices must be in the folder `snapshot`; they are
    /// untrusted.
    ///
    /// # Errors
    ///
    /// Returns an error if an index is invalid, or lists a file of another kind or one that does not exist.
    pub(super) fn shards(
        &self,
        model: &ModelName,
        files: &BTreeSet<String>,
        snapshot: &Path,
    ) -> Result<Vec<String>, HubError> {
        let mut shards = Vec::new();
        for index in &self.indices {
            let (folder, name) = index.split_once('/').unwrap_or_default();
            let extension = if name.contains(".safetensors.index") { ".safetensors" } else { ".bin" };
            let path = snapshot.join(index);
            for shard in shard_names(&path)? {
                if !is_plain(&shard) || !shard.ends_with(extension) {
                    let expected = format!("a file name of letters, digits, `-`, `_` and `.` with `{extension}`");
                    let next = "do not use this model";
                    return Err(LoadError::malformed(&path, "shard name", quoted(&shard), expected, next).into());
                }
                let shard = format!("{folder}/{shard}");
                Self::require(model, files, &shard)?;
                shards.push(shard);
            }
        }
        Ok(shards)
    }

    /// Checks that a repository has a file.
    pub(super) fn require(model: &ModelName, files: &BTreeSet<String>, path: &str) -> Result<(), HubError> {
        if files.contains(path) {
            return Ok(());
        }
        let next = "the model is incomplete or not in the layout of diffusers: choose another model or revision";
        let value = InvalidValue::new("files of the model", "none of this name", format!("`{path}`"), next);
        Err(HubError::Incomplete { model: model.to_string(), value })
    }
}

/// Returns the path of a component's weights, or of their index.
fn weights_of(folder: &str, files: &BTreeSet<String>, variant: Option<&str>) -> Result<String, InvalidValue> {
    let first = variant.map(|variant| format!(".{variant}"));
    // The loaders open the variants "" and "fp16" for one another, and no others.
    let has_others = variant.is_none_or(|variant| variant == "fp16");
    let others = ["", ".fp16"].into_iter().filter(|other| has_others && first.as_deref() != Some(*other));
    let variants: Vec<&str> = first.as_deref().into_iter().chain(others).collect();
    let mut names: Vec<String> = variants.iter().copied().flat_map(safetensors_names).collect();
    let pickles: Vec<String> = variants.iter().copied().flat_map(pickle_names).collect();
    if cfg!(feature = "pickle") {
        names.extend_from_slice(&pickles);
    }
    let mut paths = names.iter().map(|name| format!("{folder}/{name}"));
    if let Some(path) = paths.find(|path| files.contains(path)) {
        return Ok(path);
    }
    let present = files.iter().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
    let present: Vec<&str> = present.filter(|name| !name.contains('/')).collect();
    let next = if pickles.iter().any(|name| present.contains(&&**name)) {
        "build with the feature `pickle`, which reads `.bin` files, or choose a model with safetensors"
    } else {
        "choose another model or revision"
    };
    let got = if present.is_empty() { "no files".to_owned() } else { format!("only {}", present.join(", ")) };
    Err(InvalidValue::new(format!("weights in `{folder}`"), got, format!("one of {}", names.join(", ")), next))
}

/// Returns the paths of a tokenizer's files.
fn tokenizer_of(folder: &str, files: &BTreeSet<String>) -> Vec<String> {
    let paths = TOKENIZER_FILES.map(|name| format!("{folder}/{name}"));
    let is_whole = paths[..2].iter().all(|path| files.contains(path));
    let used = if is_whole { &paths[..5] } else { &paths[..] };
    used.iter().filter(|path| files.contains(*path)).cloned().collect()
}
