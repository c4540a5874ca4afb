//! The opened files of a model that is converted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device};
use serde_json::{Map, Value, json};

use super::super::parts::{Parts, open_parts, vae_in};
use super::super::{open_loras, published_padding};
use super::{ConvertOptions, ModelError};
use crate::load::{Component, ComponentFolder, Family, LoadDtype, LoadError, SaveDtype, TensorSource, weights_bytes};
use crate::lora::{Lora, LoraFile};
use crate::tokenizer::ClipTokenizer;

/// Fields of configurations that describe the old files of weights: their type, and how they are quantised.
const ABOUT_OLD_WEIGHTS: [&str; 3] = ["dtype", "torch_dtype", "quantization_config"];

/// A model with the changes that its conversion makes.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    parts: Box<dyn Parts>,
    vae: Option<OwnVae>,
    loras: Vec<(LoraFile, f32)>,
    scheduler: Map<String, Value>,
    pub(super) dtype: SaveDtype,
    pub(super) device: Device,
}

/// VAE that replaces the model's own.
#[derive(Debug)]
struct OwnVae {
    path: PathBuf,
    weights: Arc<dyn TensorSource>,
    /// Configuration of a folder; a file has none.
    config: Option<Value>,
}

impl Source {
    /// Opens all files of a model, without reading weights.
    pub(super) fn open(path: &Path, device: &Device, options: &ConvertOptions) -> Result<Self, ModelError> {
        let parts = open_parts(path, None, options.prediction)?;
        let mut scheduler = object(parts.scheduler()?, &path.join("scheduler"))?;
        if let Some(prediction) = options.prediction {
            scheduler.insert("prediction_type".to_owned(), json!(prediction));
        }
        let vae = match &options.vae {
            Some(path) => {
                let (weights, config) = vae_in(path, None)?;
                Some(OwnVae { path: path.clone(), weights, config })
            }
            None => None,
        };
        let loras = open_loras(&options.loras, parts.family())?;
        let (path, dtype, device) = (path.to_owned(), options.dtype, device.clone());
        Ok(Self { path, parts, vae, loras, scheduler, dtype, device })
    }

    pub(super) fn family(&self) -> Family {
        self.parts.family()
    }

    pub(super) fn components(&self) -> Vec<Component> {
        self.parts.components()
    }

    pub(super) fn scheduler(&self) -> Value {
        Value::Object(self.scheduler.clone())
    }

    pub(super) fn index_fields(&self) -> Result<Map<String, Value>, LoadError> {
        self.parts.index_fields()
    }

    /// Opens the weights of a network.
    pub(super) fn weights(&self, component: Component) -> Result<Arc<dyn TensorSource>, LoadError> {
        match self.own_vae(component) {
            Some(vae) => Ok(vae.weights.clone()),
            None => self.parts.weights(component),
        }
    }

    /// Returns the new configuration of a network.
    pub(super) fn config(&self, component: Component) -> Result<Value, LoadError> {
        let config = match self.own_vae(component) {
            Some(OwnVae { config: Some(config), .. }) => config.clone(),
            _ => self.parts.config(component)?,
        };
        let mut config = object(config, &self.path.join(component.folder_name()))?;
        for name in ABOUT_OLD_WEIGHTS {
            config.remove(name);
        }
        let [library, class] = component.python_class();
        if library == "diffusers" && !config.contains_key("_class_name") {
            config.insert("_class_name".to_owned(), json!(class));
        }
        Ok(Value::Object(config))
    }

    /// Returns the LoRAs that change a network, with their scales.
    pub(super) fn loras(&self, component: Component) -> Vec<(&Lora, f32)> {
        let loras = self.loras.iter().filter_map(|(file, scale)| Some((file.part(component)?, *scale)));
        loras.filter(|(lora, _)| !lora.is_empty()).collect()
    }

    /// Type in which the weights of a network are loaded. Weights to which a LoRA is added are f32, so that they are
    /// rounded once.
    pub(super) fn load_dtype(&self, component: Component) -> LoadDtype {
        let supports = |dtype| self.device.supports_dtype(dtype);
        let keeps = self.loras(component).is_empty() && supports(DType::F16) && supports(DType::BF16);
        if keeps || self.dtype == SaveDtype::Keep { LoadDtype::Keep } else { LoadDtype::F32 }
    }

    /// Returns the tokenizer of a text encoder: the folder that is copied, or a new one.
    pub(super) fn tokenizer(&self, component: Component) -> Result<TokenizerSource, ModelError> {
        // The files are checked, although they are copied as they are.
        match (self.parts.tokenizer(component)?, self.parts.tokenizer_folder(component)) {
            (Some(_), Some(folder)) => Ok(TokenizerSource::Folder(folder)),
            _ => {
                let padding = published_padding(self.family(), component);
                Ok(TokenizerSource::Files(ClipTokenizer::openai().with_padding(padding).to_files()))
            }
        }
    }

    /// Names of the files or tensors of the model that are not converted.
    pub(super) fn unused(&self) -> Result<Vec<String>, LoadError> {
        let own = |component: &Component| self.own_vae(*component).is_none();
        self.parts.unused(&self.components().into_iter().filter(own).collect::<Vec<_>>())
    }

    /// Size in bytes of the files of weights.
    pub(super) fn weights_bytes(&self) -> Result<u64, LoadError> {
        let mut files = BTreeSet::new();
        for component in self.components() {
            files.insert(match self.own_vae(component) {
                Some(vae) if vae.path.is_dir() => ComponentFolder::open(&vae.path, None)?.weights_path().to_owned(),
                Some(vae) => vae.path.clone(),
                None => self.parts.weights_path(component).unwrap_or_else(|| self.path.clone()),
            });
        }
        files.into_iter().map(weights_bytes).sum()
    }

    /// The VAE that replaces the model's own; `None` for other networks.
    fn own_vae(&self, component: Component) -> Option<&OwnVae> {
        self.vae.as_ref().filter(|_| component == Component::Vae)
    }
}

/// Origin of a tokenizer's files.
pub(super) enum TokenizerSource {
    /// Folder of the model whose files are copied.
    Folder(PathBuf),
    /// Names and texts of new files.
    Files(Vec<(&'static str, String)>),
}

/// Returns the fields of a configuration.
fn object(value: Value, path: &Path) -> Result<Map<String, Value>, LoadError> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => {
            let got = format!("{:.40}", other.to_string());
            let next = "get the file again, or mend it";
            Err(LoadError::malformed(path, "settings", got, "a JSON object", next))
        }
    }
}
