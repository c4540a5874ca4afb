//! Opening of whole CLIP models in the layout of transformers, or that of OpenCLIP and OpenAI.

use std::path::Path;
use std::sync::Arc;

use fabric_core::InvalidValue;
use serde_json::Value;

use super::compvis::clip::{is_open_clip, open_clip_model};
use super::contents::Contents;
use super::{ComponentFolder, LoadDtype, LoadError, MappedSource, TensorSource, open_weights, presets};

/// Logarithm of the factor by which CLIP multiplies cosine similarities.
const LOGIT_SCALE: &str = "logit_scale";

/// Naming convention of a file of a whole CLIP model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClipLayout {
    /// Names of transformers' `CLIPModel`.
    Transformers,
    /// Names of OpenCLIP and of OpenAI's code.
    OpenClip,
}

/// Opened whole CLIP model: both encoders with their projections, and `logit_scale`. The weights are not loaded yet.
#[derive(Debug, Clone)]
pub(crate) struct ClipModelFile {
    /// Configuration of a `CLIPModel`, from `config.json` or derived from the tensors.
    pub(crate) config: Value,
    /// Tensors, with the names of transformers.
    pub(crate) weights: Arc<dyn TensorSource>,
    /// Layout of the file.
    pub(crate) layout: ClipLayout,
}

impl ClipModelFile {
    /// Opens a folder with a `config.json`, or one file.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing or damaged, or does not contain a whole CLIP model.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        if !path.is_dir() {
            return Self::new(open_weights(path)?);
        }
        let folder = ComponentFolder::open(path, None)?;
        let mut file = Self::new(folder.weights()?)?;
        file.config = folder.config()?;
        Ok(file)
    }

    /// Recognizes the layout of a source that is already open.
    ///
    /// # Errors
    ///
    /// Returns an error if the tensors are not those of a whole CLIP model.
    pub(crate) fn new(source: Arc<dyn TensorSource>) -> Result<Self, LoadError> {
        let names = source.tensors().keys().map(String::as_str);
        let (layout, weights) = if is_open_clip(names.clone()) {
            let renamed = open_clip_model(names);
            (ClipLayout::OpenClip, Arc::new(MappedSource::new(source, renamed)?) as Arc<dyn TensorSource>)
        } else {
            (ClipLayout::Transformers, source)
        };
        check_whole(&*weights, layout)?;
        Ok(Self { config: presets::clip_model(weights.tensors()), weights, layout })
    }

    /// Reads the logarithm of the factor by which CLIP multiplies cosine similarities.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be read, or is not one finite number whose exponential is finite, too.
    pub(crate) fn logit_scale(&self) -> Result<f64, LoadError> {
        let place = self.weights.place();
        let data = self.weights.read(LOGIT_SCALE)?.into_data(LoadDtype::F32, true, &place, LOGIT_SCALE)?;
        let values: Vec<f64> = data.iter::<f64>().collect();
        match values.as_slice() {
            [value] if value.exp().is_finite() => Ok(*value),
            _ => {
                let expected = "one number, at most ln(100) = 4.6052 in published files";
                let next = "get the file again, or another version of it";
                Err(LoadError::malformed(
                    place.as_ref(),
                    format!("tensor `{LOGIT_SCALE}`"),
                    format!("{values:?}"),
                    expected,
                    next,
                ))
            }
        }
    }
}

/// Rejects sources that do not contain a whole CLIP model.
fn check_whole(weights: &dyn TensorSource, layout: ClipLayout) -> Result<(), LoadError> {
    let tensors = weights.tensors();
    let encoders = ["text_model.embeddings.token_embedding.weight", "vision_model.embeddings.patch_embedding.weight"];
    if !encoders.iter().all(|name| tensors.contains_key(*name)) {
        let contents = Contents::of(tensors.iter().map(|(name, info)| (name.as_str(), info.shape.as_slice())));
        let got = contents.map_or_else(|| "tensors of another kind of network".to_owned(), |c| c.to_string());
        let expected = "a whole CLIP model: a text encoder, an image encoder, their projections and `logit_scale`";
        let next = "give the file or folder of PickScore, HPS, HPS v2 or another CLIP model";
        return Err(LoadError::WrongFamily {
            place: weights.place(),
            value: InvalidValue::new("tensors", got, expected, next),
        });
    }
    let needed = match layout {
        ClipLayout::Transformers => [
            ("text_projection.weight", "text_projection.weight"),
            ("visual_projection.weight", "visual_projection.weight"),
            (LOGIT_SCALE, LOGIT_SCALE),
        ],
        ClipLayout::OpenClip => [
            ("text_projection.weight", "text_projection"),
            ("visual_projection.weight", "visual.proj"),
            (LOGIT_SCALE, LOGIT_SCALE),
        ],
    };
    match needed.into_iter().find(|(name, _)| !tensors.contains_key(*name)) {
        None => Ok(()),
        Some((_, stored)) => {
            let expected = format!("a whole CLIP model, with the tensor `{stored}`");
            let next = "get the model again from its authors";
            let got = format!("no tensor `{stored}`");
            Err(LoadError::malformed(weights.place().as_ref(), "CLIP model", got, expected, next))
        }
    }
}
