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
    prediction: Prediction,
}

/// The training step at which the base model of Stable Diffusion 2 was published; diffusers tells it by that.
const STEP_OF_BASE_2: i64 = 875_000;

/// How the tensors of a text encoder are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextLayout {
    /// transformers' names.
    Clip,
    /// OpenCLIP's.
    OpenClip,
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
        let wrong = |got: String, next: &str| LoadError::WrongFamily {
            place: source.place(),
            what: "tensors".into(),
            got,
            expected: "a checkpoint of Stable Diffusion 1, 2 or XL with the names of the original code".into(),
            next: next.into(),
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

    /// The same with another prediction than the one that [`Self::prediction`] assumes.
    #[must_use]
    pub fn with_prediction(mut self, prediction: Prediction) -> Self {
        self.prediction = prediction;
        self
    }

    /// What the U-Net predicts, as far as the file shows it.
    ///
    /// A tensor `v_pred` and the header's `modelspec.prediction_type` say so. Without them, Stable Diffusion 1 and XL
    /// predict noise. Stable Diffusion 2 exists in two kinds whose weights look the same: 768-v, which predicts
    /// velocity, and base, which predicts noise. Inpainting networks (9 input channels) and files with the
    /// `global_step` of the published base models (875000) are taken for base, all others for 768-v, as diffusers does:
    /// for other base models, use [`Self::with_prediction`].
    pub fn prediction(&self) -> Prediction {
        self.prediction
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
    pub fn require(&self, expected: Family) -> Result<(), LoadError> {
        if self.family == expected {
            return Ok(());
        }
        Err(LoadError::WrongFamily {
            place: self.source.place(),
            what: "checkpoint".into(),
            got: self.family.to_string(),
            expected: expected.to_string(),
            next: "use the pipeline for that family, or another checkpoint".into(),
        })
    }

    /// Whether the file holds a network; many leave out the VAE.
    pub fn has(&self, component: Component) -> bool {
        self.prefix(component).is_some_and(|(prefix, _)| stripped(&*self.source, &prefix).next().is_some())
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
        let Some((prefix, layout)) = self.prefix(component).filter(|_| self.has(component)) else {
            return Err(LoadError::NotFound {
                what: format!("`{component}` in this checkpoint"),
                path: self.source.place().into(),
                next: "load one from a model folder or a file of its own".into(),
            });
        };
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
        Ok(Arc::new(MappedSource::new(Arc::clone(&self.source), renamed)?))
    }

    /// The settings of a network: what its `config.json` would be.
    ///
    /// # Errors
    ///
    /// When the file does not hold this network, or `T` wants other settings.
    pub fn config<T: DeserializeOwned>(&self, component: Component) -> Result<T, LoadError> {
        let config = presets::config(self.family, self.prediction, component, self.weights(component)?.tensors());
        self.typed(config)
    }

    /// The settings of the scheduler that goes with the family and with [`Self::prediction`]. A tensor `ztsnr` says that
    /// the last noise level holds no signal.
    ///
    /// # Errors
    ///
    /// When `T` wants other settings.
    pub fn scheduler_config<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        let zero_terminal_snr = self.source.tensors().contains_key("ztsnr");
        self.typed(presets::scheduler(self.family, self.prediction, zero_terminal_snr))
    }

    fn typed<T: DeserializeOwned>(&self, config: Value) -> Result<T, LoadError> {
        serde_json::from_value(config).map_err(|e| {
            let place = self.source.place();
            let expected = "settings that this network can have";
            LoadError::malformed(place.as_ref(), "settings", e.to_string(), expected, "use another checkpoint")
        })
    }

    /// What the names of a network's tensors begin with, and how a text encoder's go on.
    fn prefix(&self, component: Component) -> Option<(String, TextLayout)> {
        let stem = match (component, self.family) {
            (Component::UNet, _) => return Some((UNET.to_owned(), TextLayout::Clip)),
            (Component::Vae, _) => return Some((VAE.to_owned(), TextLayout::Clip)),
            (Component::TextEncoder, Family::Sd1 | Family::Sd2) => "cond_stage_model.",
            (Component::TextEncoder, Family::Sdxl) => "conditioner.embedders.0.",
            (Component::TextEncoder2, Family::Sdxl) => "conditioner.embedders.1.",
            (Component::TextEncoder2 | Component::ImageEncoder, _) => return None,
        };
        // The module that held the encoder is part of the names, or was left out.
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

/// What a file says in words of its prediction.
enum Noted {
    Prediction(Prediction),
    /// One that is not supported.
    Other(String),
    Nothing,
}

/// Reads the mark that trainers leave, and the header's `modelspec`.
fn noted_prediction(source: &dyn TensorSource) -> Noted {
    if source.tensors().contains_key("v_pred") {
        return Noted::Prediction(Prediction::Velocity);
    }
    let note = ["modelspec.prediction_type", "modelspec.predict_key"].into_iter().find_map(|name| source.note(name));
    match note.map(|note| note.trim().to_lowercase()).as_deref() {
        Some("epsilon" | "eps") => Noted::Prediction(Prediction::Epsilon),
        Some("v" | "v_prediction" | "v-prediction" | "v_pred") => Noted::Prediction(Prediction::Velocity),
        Some(other) if ["flow", "edm"].iter().any(|kind| other.contains(kind)) => Noted::Other(other.to_owned()),
        // A free text that says nothing known is not worth a refusal.
        _ => Noted::Nothing,
    }
}

/// What a network of this family is taken to predict when the file does not say.
fn prediction_of(source: &dyn TensorSource, family: Family) -> Prediction {
    let inputs = source.tensors().get("model.diffusion_model.input_blocks.0.0.weight");
    let inpaints = inputs.is_some_and(|info| info.shape.get(1) == Some(&9));
    if family == Family::Sd2 && !inpaints && global_step(source) != Some(STEP_OF_BASE_2) {
        Prediction::Velocity
    } else {
        Prediction::Epsilon
    }
}

/// The training step that checkpoints carry: beside the tensors, or as one of them.
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

/// The names that begin with `prefix`, without it.
fn stripped<'a, 'b: 'a>(source: &'b dyn TensorSource, prefix: &'a str) -> impl Iterator<Item = &'b str> + Clone + 'a {
    source.tensors().range(prefix.to_owned()..).map_while(move |(name, _)| name.strip_prefix(prefix))
}

fn whole(new: Option<String>, from: &str) -> Renamed {
    Renamed { name: new.unwrap_or_else(|| from.to_owned()), from: from.to_owned(), part: Part::Whole }
}
