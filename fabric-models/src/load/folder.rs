use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::json::{MAX_CONFIG_BYTES, read_json};
use super::{Component, ComponentFolder, Family, LoadError, TensorSource};
use fabric_core::InvalidValue;

/// Folder of a whole model in the diffusers layout: `model_index.json` and one folder per component.
///
/// Opening checks every component without reading weights, so missing components and models of another family are
/// reported at once. The component folders have fixed names; no text of the index is used as a path.
///
/// ```no_run
/// use fabric_models::load::{Component, Family, ModelFolder};
///
/// let folder = ModelFolder::open("stable-diffusion-v1-5")?;
/// folder.require(Family::Sd1)?;
/// let weights = folder.weights(Component::UNet)?;
/// println!("{} tensors", weights.tensors().len());
/// # Ok::<(), fabric_models::load::LoadError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    family: Family,
    settings: Map<String, Value>,
    components: BTreeMap<Component, ComponentFolder>,
}

impl ModelFolder {
    /// Opens a folder. Weights without a variant are preferred to `fp16` ones.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder has no `model_index.json`, the model is not Stable Diffusion 1, 2 or XL, or a
    /// component that the family requires is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::open_variant(path, None)
    }

    /// Opens a folder and selects the weights of one variant (`"fp16"`); `None` selects as [`ModelFolder::open`] does.
    ///
    /// # Errors
    ///
    /// Same as [`ModelFolder::open`].
    pub fn open_variant(path: impl AsRef<Path>, variant: Option<&str>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let index = path.join("model_index.json");
        if !index.is_file() {
            let next = if path.is_file() {
                "this is a file: open a checkpoint with `SingleFile`"
            } else if path.join("config.json").is_file() {
                "this is the folder of one network: give the folder above it, or open it with `ComponentFolder`"
            } else {
                "give the folder of a model in the diffusers layout"
            };
            let what = "model_index.json".to_owned();
            return Err(LoadError::NotFound { what, path: path.to_owned(), next: next.to_owned() });
        }
        let settings: Map<String, Value> = read_json(&index, MAX_CONFIG_BYTES)?;
        let mut components = BTreeMap::new();
        for component in Component::ALL {
            if is_listed(&index, &settings, component)? {
                let folder = ComponentFolder::open(path.join(component.folder_name()), variant)?;
                components.insert(component, folder);
            }
        }
        let Some(unet) = components.get(&Component::UNet) else {
            return Err(not_stable_diffusion(&index, &settings));
        };
        let family = Family::of_unet_config(&unet.config()?);
        for needed in family.components() {
            if !components.contains_key(needed) {
                let got = format!("no `{needed}`");
                let expected = format!("one, because the U-Net is of {family}");
                let next = match needed {
                    Component::TextEncoder if family == Family::Sdxl => {
                        "the SDXL refiner, which has no first text encoder, is not supported: use the base model"
                    }
                    _ => "get the whole model",
                };
                return Err(LoadError::malformed(&index, "parts of the model", got, expected, next));
            }
        }
        Ok(Self { path: path.to_owned(), family, settings, components })
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Family of the model.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Checks that the model is of the expected family.
    ///
    /// # Errors
    ///
    /// Returns an error if it is of another family.
    pub fn require(&self, expected: Family) -> Result<(), LoadError> {
        if self.family == expected {
            return Ok(());
        }
        Err(LoadError::WrongFamily {
            place: self.path.display().to_string(),
            value: InvalidValue::new(
                "model",
                self.family,
                expected.to_string(),
                "use the pipeline for that family, or another model",
            ),
        })
    }

    /// Folder of a component; `None` if the model does not have it.
    pub fn component(&self, component: Component) -> Option<&ComponentFolder> {
        self.components.get(&component)
    }

    /// Reads the `config.json` of a component.
    ///
    /// # Errors
    ///
    /// Returns an error if the model does not have the component, or for the reasons of [`ComponentFolder::config`].
    pub fn config<T: DeserializeOwned>(&self, component: Component) -> Result<T, LoadError> {
        self.existing(component)?.config()
    }

    /// Opens the weights of a component.
    ///
    /// # Errors
    ///
    /// Returns an error if the model does not have the component, or for the reasons of [`ComponentFolder::weights`].
    pub fn weights(&self, component: Component) -> Result<Arc<dyn TensorSource>, LoadError> {
        self.existing(component)?.weights()
    }

    fn existing(&self, component: Component) -> Result<&ComponentFolder, LoadError> {
        self.components.get(&component).ok_or_else(|| LoadError::NotFound {
            what: format!("`{component}`"),
            path: self.path.clone(),
            next: format!("{} has none; load one from its own folder", self.family),
        })
    }

    /// Reads `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is missing, is no JSON object, or lacks a field that `T` requires.
    pub fn scheduler_config<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        read_json(&self.path.join("scheduler").join("scheduler_config.json"), MAX_CONFIG_BYTES)
    }

    /// Folder of the tokenizer of a text encoder, if it exists.
    pub fn tokenizer_path(&self, encoder: Component) -> Option<PathBuf> {
        Some(self.path.join(encoder.tokenizer_folder_name()?)).filter(|path| path.is_dir())
    }

    /// Folder `tiny_vae` of a tiny autoencoder that decodes previews, if it exists. It is no component: the index does
    /// not list it, and other programs ignore it.
    pub fn preview_decoder_path(&self) -> Option<PathBuf> {
        Some(self.path.join("tiny_vae")).filter(|path| path.is_dir())
    }

    /// All fields of `model_index.json`.
    pub fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }

    /// Value of a field of `model_index.json`, such as `force_zeros_for_empty_prompt`.
    pub fn setting(&self, name: &str) -> Option<&Value> {
        self.settings.get(name)
    }
}

/// Returns whether the index lists a component. A listed component must have a class that this library implements.
fn is_listed(index: &Path, settings: &Map<String, Value>, component: Component) -> Result<bool, LoadError> {
    let class = match settings.get(component.folder_name()) {
        None | Some(Value::Null) => return Ok(false),
        Some(Value::Array(entry)) if entry.iter().all(Value::is_null) => return Ok(false),
        Some(entry) => &entry[1],
    };
    let [_, expected] = component.python_class();
    let also: &[&str] = match component {
        // SDXL's first text encoder was published with either class; the projection is not used.
        Component::TextEncoder => &["CLIPTextModelWithProjection", "CLIPModel"],
        Component::TextEncoder2 => &["CLIPModel"],
        Component::ImageEncoder => &["CLIPVisionModel", "CLIPModel"],
        Component::UNet | Component::Vae => &[],
    };
    if class == expected || also.iter().any(|other| class == other) {
        return Ok(true);
    }
    Err(LoadError::WrongFamily {
        place: index.display().to_string(),
        value: InvalidValue::new(
            format!("class of `{component}`"),
            class,
            format!("\"{expected}\""),
            "this kind of model is not supported",
        ),
    })
}

/// Reads a `model_index.json` and returns the components that it lists.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or the model is of a kind that is not supported.
#[cfg(feature = "hub")]
pub(crate) fn listed_components(index: &Path) -> Result<Vec<Component>, LoadError> {
    let settings: Map<String, Value> = read_json(index, MAX_CONFIG_BYTES)?;
    let mut listed = Vec::new();
    for component in Component::ALL {
        if is_listed(index, &settings, component)? {
            listed.push(component);
        }
    }
    if !listed.contains(&Component::UNet) {
        return Err(not_stable_diffusion(index, &settings));
    }
    Ok(listed)
}

fn not_stable_diffusion(index: &Path, settings: &Map<String, Value>) -> LoadError {
    LoadError::WrongFamily {
        place: index.display().to_string(),
        value: InvalidValue::new(
            "parts of the model",
            format!("no `unet` (the pipeline is {})", settings.get("_class_name").unwrap_or(&Value::Null)),
            "a U-Net of Stable Diffusion 1, 2 or XL",
            "this kind of model is not supported",
        ),
    }
}
