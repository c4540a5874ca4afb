//! The files of a model: a folder in the diffusers layout, or a single checkpoint file.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fabric_core::pipeline::Settings;
use fabric_core::schedule::Prediction;
use serde_json::{Map, Value, json};

use super::{ModelError, recommended};
use crate::load::{Component, ComponentFolder, Family, LoadError, ModelFolder, SingleFile, TensorSource, open_vae};
use crate::tokenizer::ClipTokenizer;

/// Source of a model's components: a folder or a single file.
pub(super) trait Parts: Debug {
    fn family(&self) -> Family;
    /// The networks that the model has.
    fn components(&self) -> Vec<Component>;
    fn config(&self, component: Component) -> Result<Value, LoadError>;
    fn weights(&self, component: Component) -> Result<Arc<dyn TensorSource>, LoadError>;
    /// Path of a network's own file of weights, or of the index of its shards.
    fn weights_path(&self, component: Component) -> Option<PathBuf>;
    fn scheduler(&self) -> Result<Value, LoadError>;
    fn tokenizer(&self, component: Component) -> Result<Option<ClipTokenizer>, ModelError>;
    /// Folder of the tokenizer of a text encoder, if the model has one.
    fn tokenizer_folder(&self, component: Component) -> Option<PathBuf>;
    /// Folder of a tiny autoencoder that decodes previews, if the model has one.
    fn preview_decoder(&self) -> Option<PathBuf>;
    /// Whether an absent negative prompt is encoded as zeros, as `model_index.json` sets for the SDXL base model.
    fn force_zeros_for_empty_prompt(&self) -> bool;
    /// The fields of `model_index.json` that do not list components.
    fn index_fields(&self) -> Result<Map<String, Value>, LoadError>;
    /// Names of files or tensors that belong to none of these networks.
    fn unused(&self, components: &[Component]) -> Result<Vec<String>, LoadError>;
    /// The settings that the model's files recommend, or the defaults.
    fn recommended_settings(&self) -> Result<Settings, ModelError> {
        Ok(Settings::default())
    }
}

impl Parts for ModelFolder {
    fn family(&self) -> Family {
        self.family()
    }

    fn components(&self) -> Vec<Component> {
        Component::ALL.into_iter().filter(|component| self.component(*component).is_some()).collect()
    }

    fn config(&self, component: Component) -> Result<Value, LoadError> {
        self.config(component)
    }

    fn weights(&self, component: Component) -> Result<Arc<dyn TensorSource>, LoadError> {
        self.weights(component)
    }

    fn weights_path(&self, component: Component) -> Option<PathBuf> {
        Some(self.component(component)?.weights_path().to_owned())
    }

    fn scheduler(&self) -> Result<Value, LoadError> {
        self.scheduler_config()
    }

    fn tokenizer(&self, component: Component) -> Result<Option<ClipTokenizer>, ModelError> {
        self.tokenizer_path(component).map(ClipTokenizer::from_folder).transpose().map_err(ModelError::from)
    }

    fn tokenizer_folder(&self, component: Component) -> Option<PathBuf> {
        self.tokenizer_path(component)
    }

    fn preview_decoder(&self) -> Option<PathBuf> {
        self.preview_decoder_path()
    }

    fn force_zeros_for_empty_prompt(&self) -> bool {
        self.setting("force_zeros_for_empty_prompt").map_or(self.family() == Family::Sdxl, |value| *value == true)
    }

    fn index_fields(&self) -> Result<Map<String, Value>, LoadError> {
        // Components are arrays of a library and a class.
        let fields = self.settings().iter().filter(|(_, value)| !value.is_array() && !value.is_null());
        Ok(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn unused(&self, components: &[Component]) -> Result<Vec<String>, LoadError> {
        let networks = components.iter().map(|component| component.folder_name());
        let tokenizers = components.iter().filter_map(|component| component.tokenizer_folder_name());
        let used: BTreeSet<&str> =
            ["model_index.json", "scheduler"].into_iter().chain(networks).chain(tokenizers).collect();
        let list = |error| LoadError::io(self.path(), "list", error);
        let mut unused = Vec::new();
        for entry in std::fs::read_dir(self.path()).map_err(list)? {
            let name = entry.map_err(list)?.file_name().to_string_lossy().into_owned();
            if !used.contains(name.as_str()) {
                unused.push(name);
            }
        }
        unused.sort();
        Ok(unused)
    }

    fn recommended_settings(&self) -> Result<Settings, ModelError> {
        recommended::read(self)
    }
}

impl Parts for SingleFile {
    fn family(&self) -> Family {
        self.family()
    }

    fn components(&self) -> Vec<Component> {
        self.family().components().to_vec()
    }

    fn config(&self, component: Component) -> Result<Value, LoadError> {
        self.config(component)
    }

    fn weights(&self, component: Component) -> Result<Arc<dyn TensorSource>, LoadError> {
        self.weights(component)
    }

    fn weights_path(&self, _component: Component) -> Option<PathBuf> {
        None
    }

    fn scheduler(&self) -> Result<Value, LoadError> {
        self.scheduler_config()
    }

    fn tokenizer(&self, _component: Component) -> Result<Option<ClipTokenizer>, ModelError> {
        Ok(None)
    }

    fn tokenizer_folder(&self, _component: Component) -> Option<PathBuf> {
        None
    }

    fn preview_decoder(&self) -> Option<PathBuf> {
        None
    }

    fn force_zeros_for_empty_prompt(&self) -> bool {
        self.family() == Family::Sdxl
    }

    fn index_fields(&self) -> Result<Map<String, Value>, LoadError> {
        // 4 channels of latents, 4 of the masked image, and the mask.
        let inpaints = self.config::<Value>(Component::UNet)?["in_channels"] == 9;
        let class = match (self.family(), inpaints) {
            (Family::Sdxl, false) => "StableDiffusionXLPipeline",
            (Family::Sdxl, true) => "StableDiffusionXLInpaintPipeline",
            (Family::Sd1 | Family::Sd2, false) => "StableDiffusionPipeline",
            (Family::Sd1 | Family::Sd2, true) => "StableDiffusionInpaintPipeline",
        };
        let mut fields = Map::from_iter([("_class_name".to_owned(), json!(class))]);
        if self.family() == Family::Sdxl {
            fields.insert("force_zeros_for_empty_prompt".to_owned(), json!(true));
        }
        Ok(fields)
    }

    fn unused(&self, components: &[Component]) -> Result<Vec<String>, LoadError> {
        Ok(self.other_tensors(components))
    }
}

/// Opens a model folder, of whose weights one variant can be selected, or a single checkpoint file. The prediction type
/// of a file can be given.
pub(super) fn open_parts(
    path: &Path,
    variant: Option<&str>,
    prediction: Option<Prediction>,
) -> Result<Box<dyn Parts>, LoadError> {
    if !path.is_file() {
        return Ok(Box::new(ModelFolder::open_variant(path, variant)?));
    }
    let file = SingleFile::open(path)?;
    Ok(Box::new(match prediction {
        Some(prediction) => file.with_prediction(prediction),
        None => file,
    }))
}

/// Opens a VAE that replaces the model's own: a folder with its configuration, or a file of weights.
pub(super) fn vae_in(path: &Path, variant: Option<&str>) -> Result<(Arc<dyn TensorSource>, Option<Value>), LoadError> {
    if path.is_file() {
        return Ok((open_vae(path)?, None));
    }
    let folder = ComponentFolder::open(path, variant)?;
    Ok((folder.weights()?, Some(folder.config()?)))
}
