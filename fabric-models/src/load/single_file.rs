use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::compvis::unet::UNetShape;
use super::compvis::{KeyTable, text};
use super::contents::Contents;
use super::mapped::{MappedSource, Part, Renamed};
use super::open::compvis_vae;
use super::{Component, Family, LoadError, TensorSource, open_weights, presets};

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

/// A checkpoint in one file with the names of the original (CompVis, Stability) code.
///
/// The family is told from names and shapes. Each network is presented under diffusers' names, so whoever loads
/// it need not know where it came from; its settings are those of the family, with every width, depth and
/// channel count that the tensors show.
///
/// ```no_run
/// use fabric_models::load::{Component, SingleFile};
///
/// let file = SingleFile::open("v1-5-pruned-emaonly.safetensors")?;
/// println!("{}: {} tensors", file.family(), file.weights(Component::UNet)?.tensors().len());
/// # Ok::<(), fabric_models::load::LoadError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SingleFile {
    source: Arc<dyn TensorSource>,
    family: Family,
}

impl SingleFile {
    /// Opens a checkpoint and tells its family.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, or holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::new(open_weights(path)?)
    }

    /// The same for tensors that are already open.
    ///
    /// # Errors
    ///
    /// When they are not those of a checkpoint of Stable Diffusion 1, 2 or XL.
    pub fn new(source: Arc<dyn TensorSource>) -> Result<Self, LoadError> {
        let tensors = source.tensors();
        let wrong = |found: String, next: &str| LoadError::WrongFamily {
            place: source.place(),
            what: "tensors".into(),
            found,
            wanted: "a checkpoint of Stable Diffusion 1, 2 or XL with the names of the original code".into(),
            next: next.into(),
        };
        let has = |prefix: &str| tensors.range(prefix.to_owned()..).next().is_some_and(|(n, _)| n.starts_with(prefix));
        if !has(UNET) {
            let contents = Contents::of(tensors.iter().map(|(name, info)| (name.as_str(), info.shape.as_slice())));
            let found = contents.map_or_else(|| "no U-Net".into(), |contents| contents.to_string());
            return Err(wrong(found, "load it as what it is"));
        }
        if UNetShape::of_compvis(stripped(&*source, UNET)).is_none() || !has("model.diffusion_model.time_embed.") {
            return Err(wrong("a network that is not this U-Net".into(), "this kind of model is not supported"));
        }
        if has("conditioner.embedders.0.model.") {
            return Err(wrong("the SDXL refiner".into(), "the refiner is not supported: use the base model"));
        }
        let linear = || {
            let proj_in = |name: &str| name.starts_with(UNET) && name.ends_with(".proj_in.weight");
            tensors.iter().any(|(name, info)| proj_in(name) && info.shape.len() == 2)
        };
        let family = if has("model.diffusion_model.label_emb.") {
            Family::Sdxl
        } else if linear() {
            Family::Sd2
        } else {
            Family::Sd1
        };
        Ok(Self { source, family })
    }

    /// Which Stable Diffusion it is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Makes sure of the family.
    ///
    /// # Errors
    ///
    /// When it is another one.
    pub fn require(&self, wanted: Family) -> Result<(), LoadError> {
        if self.family == wanted {
            return Ok(());
        }
        Err(LoadError::WrongFamily {
            place: self.source.place(),
            what: "checkpoint".into(),
            found: self.family.to_string(),
            wanted: wanted.to_string(),
            next: "use the pipeline for that family, or another checkpoint".into(),
        })
    }

    /// Whether the file holds a network; many leave out the VAE.
    pub fn has(&self, component: Component) -> bool {
        self.prefix(component).is_some_and(|prefix| stripped(&*self.source, prefix).next().is_some())
    }

    /// Presents the weights of a network under diffusers' names.
    ///
    /// Tensors under the network's prefix whose names are not known keep them, so that a strict load finds them.
    /// Everything outside (`model_ema`, the noise schedule's buffers) is left out.
    ///
    /// # Errors
    ///
    /// When the file does not hold this network, or mixes layouts.
    pub fn weights(&self, component: Component) -> Result<Arc<dyn TensorSource>, LoadError> {
        let Some(prefix) = self.prefix(component).filter(|_| self.has(component)) else {
            return Err(LoadError::NotFound {
                what: format!("`{component}` in this checkpoint"),
                path: self.source.place().into(),
                next: "load one from a model folder or a file of its own".into(),
            });
        };
        let names = || stripped(&*self.source, prefix);
        let mut renamed = match component {
            Component::UNet => {
                let table = UNetShape::of_compvis(names()).map(|shape| KeyTable::to_diffusers(shape.pairs()));
                let new = |name: &str| table.as_ref().and_then(|table| table.translate(name));
                names().map(|name| whole(new(name), name)).collect()
            }
            Component::Vae => compvis_vae(names(), |name| {
                self.source.tensors().get(&format!("{prefix}{name}")).is_some_and(|info| info.shape.len() == 4)
            }),
            _ if prefix.ends_with(".transformer.") => {
                names().map(|name| whole(Some(text::clip_name(name)), name)).collect()
            }
            _ => {
                let table = KeyTable::to_diffusers(text::open_clip_pairs(text::open_clip_layers(names())));
                let projected = component == Component::TextEncoder2;
                names().flat_map(|name| text::open_clip(&table, name, projected)).collect()
            }
        };
        for tensor in &mut renamed {
            tensor.from.insert_str(0, prefix);
        }
        Ok(Arc::new(MappedSource::new(Arc::clone(&self.source), renamed)?))
    }

    /// The settings of a network: what its `config.json` would be.
    ///
    /// # Errors
    ///
    /// When the file does not hold this network, or `T` wants other settings.
    pub fn config<T: DeserializeOwned>(&self, component: Component) -> Result<T, LoadError> {
        let config = presets::config(self.family, component, self.weights(component)?.tensors());
        self.typed(config)
    }

    /// The settings of the scheduler that goes with the family.
    ///
    /// Stable Diffusion 2 exists in two kinds whose weights look the same: 768-v, which predicts velocity, and
    /// base, which predicts noise. 768-v is assumed, as diffusers does; a base checkpoint needs `prediction_type`
    /// set to `epsilon`. Marks that trainers leave in the file (a tensor `v_pred` or `ztsnr`) are heeded.
    ///
    /// # Errors
    ///
    /// When `T` wants other settings.
    pub fn scheduler_config<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        let marked = |name: &str| self.source.tensors().contains_key(name);
        self.typed(presets::scheduler(self.family, marked("v_pred"), marked("ztsnr")))
    }

    fn typed<T: DeserializeOwned>(&self, config: Value) -> Result<T, LoadError> {
        serde_json::from_value(config).map_err(|e| {
            let place = self.source.place();
            let wanted = "settings that this network can have";
            LoadError::malformed(place.as_ref(), "settings", e.to_string(), wanted, "use another checkpoint")
        })
    }

    /// What the names of a network's tensors begin with.
    fn prefix(&self, component: Component) -> Option<&'static str> {
        match (component, self.family) {
            (Component::UNet, _) => Some(UNET),
            (Component::Vae, _) => Some(VAE),
            (Component::TextEncoder, Family::Sd1) => Some("cond_stage_model.transformer."),
            (Component::TextEncoder, Family::Sd2) => Some("cond_stage_model.model."),
            (Component::TextEncoder, Family::Sdxl) => Some("conditioner.embedders.0.transformer."),
            (Component::TextEncoder2, Family::Sdxl) => Some("conditioner.embedders.1.model."),
            (Component::TextEncoder2 | Component::ImageEncoder, _) => None,
        }
    }
}

/// The names that begin with `prefix`, without it.
fn stripped<'a>(source: &'a dyn TensorSource, prefix: &'static str) -> impl Iterator<Item = &'a str> + Clone {
    source.tensors().range(prefix.to_owned()..).map_while(move |(name, _)| name.strip_prefix(prefix))
}

fn whole(new: Option<String>, from: &str) -> Renamed {
    Renamed { name: new.unwrap_or_else(|| from.to_owned()), from: from.to_owned(), part: Part::Whole }
}
