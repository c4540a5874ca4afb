//! Plan of a conversion: all checks, and the files that will be written. Weights are not read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;

use super::source::{Source, TokenizerSource};
use super::{ModelConversion, ModelError, NetworkStep, with_network};
use crate::load::{Component, Dtype, LoadError, PublishedNames, TensorInfo, match_tensors, saved_tensors};
use crate::lora::{LoraReport, check};

/// Network of a model that is converted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedNetwork {
    /// The network.
    pub component: Component,
    /// Path of the file of weights, or of the index of its shards.
    pub place: String,
    /// Tensors that are written, by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// File that a conversion writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedFile {
    /// Path in the new folder.
    pub path: PathBuf,
    /// Number of tensors; 0 for other files than those of weights.
    pub tensors: usize,
    /// Size of the tensors, or of a tokenizer's file, in bytes; `None` for configurations.
    pub bytes: Option<u64>,
}

/// Compares the weights and LoRAs of each network with its configuration, and lists what will be written.
pub(super) fn plan(source: Source) -> Result<ModelConversion, ModelError> {
    let mut planner = Planner {
        source: &source,
        networks: Vec::new(),
        files: Vec::new(),
        loras: Vec::new(),
        unused: source.unused()?,
    };
    for component in source.components() {
        with_network(component, &source.config(component)?.to_string(), &source.device, &mut planner)?;
        if let Some(folder) = component.tokenizer_folder_name() {
            planner.tokenizer(component, Path::new(folder))?;
        }
    }
    let Planner { networks, mut files, loras, unused, .. } = planner;
    let others = ["scheduler/scheduler_config.json", "model_index.json"];
    files.extend(others.map(|path| PlannedFile { path: path.into(), tensors: 0, bytes: None }));
    let bytes_before = source.weights_bytes()?;
    Ok(ModelConversion { source, networks, files, loras, unused, bytes_before })
}

struct Planner<'a> {
    source: &'a Source,
    networks: Vec<PlannedNetwork>,
    files: Vec<PlannedFile>,
    loras: Vec<LoraReport>,
    unused: Vec<String>,
}

impl NetworkStep for Planner<'_> {
    fn run<M: Module + PublishedNames>(&mut self, component: Component, network: M) -> Result<(), ModelError> {
        for (lora, scale) in self.source.loras(component) {
            self.loras.push(check(&network, lora, scale)?);
        }
        let weights = self.source.weights(component)?;
        let matched = match_tensors(network, &*weights)?;
        self.unused.extend(matched.ignored.iter().map(|name| format!("{component}/{name}")));
        let loaded = matched.tensors.into_iter().map(|(name, info)| (name, as_loaded(info)));
        let tensors = saved_tensors(&loaded.collect(), self.source.dtype);

        // The names of `save_component`.
        let [library, _] = component.python_class();
        let file = if library == "diffusers" { "diffusion_pytorch_model.safetensors" } else { "model.safetensors" };
        let bytes: u64 = tensors.values().map(|info| info.bytes() as u64).sum();
        let mut add = |name: &str, tensors: usize, bytes: Option<u64>| {
            self.files.push(PlannedFile { path: Path::new(component.folder_name()).join(name), tensors, bytes });
        };
        add(file, tensors.len(), Some(bytes));
        if tensors.values().any(|info| info.dtype == Dtype::I8) {
            add("quanto_qmap.json", 0, None);
        }
        add("config.json", 0, None);
        self.networks.push(PlannedNetwork { component, place: weights.place(), tensors });
        Ok(())
    }
}

impl Planner<'_> {
    /// Lists the files of a text encoder's tokenizer.
    fn tokenizer(&mut self, component: Component, folder: &Path) -> Result<(), ModelError> {
        let files: Vec<(PathBuf, u64)> = match self.source.tokenizer(component)? {
            TokenizerSource::Files(files) => {
                files.into_iter().map(|(name, text)| (folder.join(name), text.len() as u64)).collect()
            }
            TokenizerSource::Folder(from) => {
                files_in(&from)?.into_iter().map(|(name, bytes)| (folder.join(name), bytes)).collect()
            }
        };
        self.files.extend(files.into_iter().map(|(path, bytes)| PlannedFile { path, tensors: 0, bytes: Some(bytes) }));
        Ok(())
    }
}

/// Names and sizes of the files in a folder.
fn files_in(folder: &Path) -> Result<Vec<(PathBuf, u64)>, LoadError> {
    let list = |error| LoadError::io(folder, "list", error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(list)? {
        let path = entry.map_err(list)?.path();
        // Follows links, of which Hugging Face's cache consists.
        let metadata = std::fs::metadata(&path).map_err(|error| LoadError::io(&path, "ask for its size", error))?;
        if let Some(name) = path.file_name().filter(|_| metadata.is_file()) {
            files.push((name.into(), metadata.len()));
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the type of a weight after loading it as [`LoadDtype::Keep`](crate::load::LoadDtype::Keep).
fn as_loaded(info: TensorInfo) -> TensorInfo {
    let dtype = if matches!(info.dtype, Dtype::F16 | Dtype::BF16) { info.dtype } else { Dtype::F32 };
    TensorInfo { dtype, ..info }
}
