use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fabric_core::schedule::Prediction;
use safetensors::Dtype;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::compvis::unet::UNetShape;
use super::compvis::{KeyTable, text};
use super::contents::Contents;
use super::mapped::{MappedSource, Part, Renamed};
use super::open::compvis_vae;
use super::unsupported::{Unsupported, unsupported};
use super::{Component, Family, LoadError, TensorSource, open_weights, presets};
use fabric_core::InvalidValue;

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

/// Single-file checkpoint with the names of the original (CompVis, Stability) code.
///
/// The family is recognized from tensor names and shapes. Each network is presented under diffusers' names, so
/// loading does not depend on the layout. Configurations have the values of the family, with widths, depths and
/// channel counts from the tensors.
#[derive(Debug, Clone)]
pub(crate) struct SingleFile {
    source: Arc<dyn TensorSource>,
    family: Family,
    prediction: Prediction,
}

/// `global_step` of the published base models of Stable Diffusion 2, by which diffusers recognizes them.
const STEP_OF_BASE_2: i64 = 875_000;

/// Naming convention of a text encoder's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextLayout {
    /// Names of transformers.
    Clip,
    /// Names of OpenCLIP.
    OpenClip,
}

impl SingleFile {
    /// Opens a checkpoint and recognizes its family.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened or is not a checkpoint of Stable Diffusion 1, 2 or XL.
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::new(open_weights(path)?)
    }

    /// Creates a checkpoint from a source that is already open.
    ///
    /// # Errors
    ///
    /// Returns an error if the tensors are not those of a checkpoint of Stable Diffusion 1, 2 or XL.
    pub(crate) fn new(source: Arc<dyn TensorSource>) -> Result<Self, LoadError> {
        let tensors = source.tensors();
        let wrong = |got: String, next: &str| LoadError::WrongFamily {
            place: source.place(),
            value: InvalidValue::new(
                "tensors",
                got,
                "a checkpoint of Stable Diffusion 1, 2 or XL with the names of the original code",
                next,
            ),
        };
        let has = |prefix: &str| tensors.range(prefix.to_owned()..).next().is_some_and(|(n, _)| n.starts_with(prefix));
        if !has(UNET) {
            let contents = Contents::of(tensors.iter().map(|(name, info)| (name.as_str(), info.shape.as_slice())));
            let got = contents.map_or_else(|| "no U-Net".into(), |contents| contents.to_string());
            return Err(wrong(got, "load it as what it is"));
        }
        if let Some(Unsupported { got, next }) = unsupported(tensors) {
            return Err(wrong(got.into(), next));
        }
        if UNetShape::of_compvis(stripped(&*source, UNET)).is_none() || !has("model.diffusion_model.time_embed.") {
            return Err(wrong("a network that is not this U-Net".into(), "this kind of model is not supported"));
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
        let prediction = match noted_prediction(&*source) {
            Noted::Prediction(prediction) => prediction,
            Noted::Other(got) => {
                let got = format!("a model whose `modelspec.prediction_type` is `{got}`");
                return Err(wrong(got, "only models that predict noise (epsilon) or velocity (v) are supported"));
            }
            Noted::Nothing => prediction_of(&*source, family),
        };
        Ok(Self { source, family, prediction })
    }

    /// Returns the checkpoint with another prediction type than its file shows.
    #[must_use]
    pub(crate) fn with_prediction(mut self, prediction: Prediction) -> Self {
        self.prediction = prediction;
        self
    }

    /// Family of the checkpoint.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Returns whether the file contains a network; many files lack the VAE.
    pub(crate) fn has(&self, component: Component) -> bool {
        self.prefix(component).is_some_and(|(prefix, _)| stripped(&*self.source, &prefix).next().is_some())
    }

    /// Returns the weights of a network under diffusers' names.
    ///
    /// Tensors under the network's prefix with unknown names keep their names, so that a strict load reports them.
    /// Tensors with other prefixes (`model_ema`, the buffers of the noise schedule) are left out.
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not contain this network, or mixes layouts.
    pub(crate) fn weights(&self, component: Component) -> Result<Arc<dyn TensorSource>, LoadError> {
        let Some(renamed) = self.renamed(component) else {
            return Err(LoadError::NotFound {
                what: format!("`{component}` in this checkpoint"),
                path: self.source.place().into(),
                next: "load one from a model folder or a file of its own".into(),
            });
        };
        Ok(Arc::new(MappedSource::new(Arc::clone(&self.source), renamed)?))
    }

    /// Lists the tensors of a network with their names in diffusers; `None` if the file does not contain the network.
    fn renamed(&self, component: Component) -> Option<Vec<Renamed>> {
        let (prefix, layout) = self.prefix(component).filter(|_| self.has(component))?;
        let names = || stripped(&*self.source, &prefix);
        let mut renamed = match component {
            Component::UNet => {
                let table = UNetShape::of_compvis(names()).map(|shape| KeyTable::to_diffusers(shape.pairs()));
                let new = |name: &str| table.as_ref().and_then(|table| table.translate(name));
                names().map(|name| whole(new(name), name)).collect()
            }
            Component::Vae => compvis_vae(names(), |name| {
                self.source.tensors().get(&format!("{prefix}{name}")).is_some_and(|info| info.shape.len() == 4)
            }),
            _ if layout == TextLayout::Clip => names().map(|name| whole(Some(text::clip_name(name)), name)).collect(),
            _ => {
                let table = KeyTable::to_diffusers(text::open_clip_pairs(text::open_clip_layers(names())));
                let projected = component == Component::TextEncoder2;
                names().flat_map(|name| text::open_clip(&table, name, projected)).collect()
            }
        };
        for tensor in &mut renamed {
            tensor.from.insert_str(0, &prefix);
        }
        Some(renamed)
    }

    /// Names of the tensors that belong to none of these networks.
    pub(crate) fn other_tensors(&self, components: &[Component]) -> Vec<String> {
        let renamed = components.iter().filter_map(|component| self.renamed(*component)).flatten();
        let used: BTreeSet<String> = renamed.map(|renamed| renamed.from).collect();
        self.source.tensors().keys().filter(|name| !used.contains(*name)).cloned().collect()
    }

    /// Returns the configuration of a network, as its `config.json` would contain it.
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not contain this network, or the configuration cannot be deserialized as `T`.
    pub(crate) fn config<T: DeserializeOwned>(&self, component: Component) -> Result<T, LoadError> {
        let config = presets::config(self.family, self.prediction, component, self.weights(component)?.tensors());
        self.typed(config)
    }

    /// Returns the scheduler configuration for the family and [`Self::prediction`]; for latent consistency models, that of
    /// their sampler. A tensor `ztsnr` in the file sets
    /// zero terminal SNR (`rescale_betas_zero_snr`).
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration cannot be deserialized as `T`.
    pub(crate) fn scheduler_config<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        let zero_terminal_snr = self.source.tensors().contains_key("ztsnr");
        let unet = self.weights(Component::UNet)?;
        let is_lcm = unet.tensors().contains_key(presets::GUIDANCE_PROJECTION);
        self.typed(presets::scheduler(self.family, self.prediction, zero_terminal_snr, is_lcm))
    }

    fn typed<T: DeserializeOwned>(&self, config: Value) -> Result<T, LoadError> {
        serde_json::from_value(config).map_err(|e| {
            let place = self.source.place();
            let expected = "settings that this network can have";
            LoadError::malformed(place.as_ref(), "settings", e.to_string(), expected, "use another checkpoint")
        })
    }

    /// Prefix of a network's tensor names, and the naming convention of a text encoder.
    fn prefix(&self, component: Component) -> Option<(String, TextLayout)> {
        let stem = match (component, self.family) {
            (Component::UNet, _) => return Some((UNET.to_owned(), TextLayout::Clip)),
            (Component::Vae, _) => return Some((VAE.to_owned(), TextLayout::Clip)),
            (Component::TextEncoder, Family::Sd1 | Family::Sd2) => "cond_stage_model.",
            (Component::TextEncoder, Family::Sdxl) => "conditioner.embedders.0.",
            (Component::TextEncoder2, Family::Sdxl) => "conditioner.embedders.1.",
            (Component::TextEncoder2 | Component::ImageEncoder, _) => return None,
        };
        // Some files include the name of the module that contained the encoder, others omit it.
        ["transformer.", "model.", ""].into_iter().find_map(|module| {
            let prefix = format!("{stem}{module}");
            let starts = |name: &str| stripped(&*self.source, &format!("{prefix}{name}")).next().is_some();
            if text::INNER_OF_CLIP.iter().any(|inner| starts(inner)) || starts("text_model.") {
                Some((prefix, TextLayout::Clip))
            } else if starts("transformer.resblocks.") {
                Some((prefix, TextLayout::OpenClip))
            } else {
                None
            }
        })
    }
}

/// Prediction type according to the metadata of a file.
enum Noted {
    Prediction(Prediction),
    /// A prediction type that is not supported.
    Other(String),
    Nothing,
}

/// Reads the prediction type from the marker tensor `v_pred` or from the header's `modelspec` entries.
fn noted_prediction(source: &dyn TensorSource) -> Noted {
    if source.tensors().contains_key("v_pred") {
        return Noted::Prediction(Prediction::Velocity);
    }
    let note = ["modelspec.prediction_type", "modelspec.predict_key"].into_iter().find_map(|name| source.note(name));
    match note.map(|note| note.trim().to_lowercase()).as_deref() {
        Some("epsilon" | "eps") => Noted::Prediction(Prediction::Epsilon),
        Some("v" | "v_prediction" | "v-prediction" | "v_pred") => Noted::Prediction(Prediction::Velocity),
        Some(other) if ["flow", "edm"].iter().any(|kind| other.contains(kind)) => Noted::Other(other.to_owned()),
        // Other free text is ignored.
        _ => Noted::Nothing,
    }
}

/// Prediction type that is assumed if the file does not state it.
fn prediction_of(source: &dyn TensorSource, family: Family) -> Prediction {
    let inputs = source.tensors().get("model.diffusion_model.input_blocks.0.0.weight");
    let inpaints = inputs.is_some_and(|info| info.shape.get(1) == Some(&9));
    if family == Family::Sd2 && !inpaints && global_step(source) != Some(STEP_OF_BASE_2) {
        Prediction::Velocity
    } else {
        Prediction::Epsilon
    }
}

/// Training step of a checkpoint, stored as metadata or as a tensor.
fn global_step(source: &dyn TensorSource) -> Option<i64> {
    const NAME: &str = "global_step";
    let Some(info) = source.tensors().get(NAME).filter(|info| info.elements() == 1) else {
        return source.note(NAME)?.trim().parse().ok();
    };
    let bytes = source.read(NAME).ok()?.bytes;
    match info.dtype {
        Dtype::I64 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        Dtype::I32 => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        Dtype::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?) as i64),
        Dtype::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?) as i64),
        _ => None,
    }
}

/// Tensor names that begin with `prefix`, with the prefix removed.
fn stripped<'a, 'b: 'a>(source: &'b dyn TensorSource, prefix: &'a str) -> impl Iterator<Item = &'b str> + Clone + 'a {
    source.tensors().range(prefix.to_owned()..).map_while(move |(name, _)| name.strip_prefix(prefix))
}

fn whole(new: Option<String>, from: &str) -> Renamed {
    Renamed { name: new.unwrap_or_else(|| from.to_owned()), from: from.to_owned(), part: Part::Whole }
}
