//! Preference models: CLIP models that score how well images match a prompt.

use std::path::Path;
use std::slice;

use burn::tensor::{Device, Tensor};
use fabric_core::image::{Crop, Image, clip_batch};
use fabric_core::metrics::similarity;
use fabric_core::models::ImageEncoder;
use fabric_core::{Error, InvalidValue};

use super::longest_side::longest_side_batch;
use super::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig, PreferenceKind, PreferenceOptions};
use crate::ModelError;
use crate::load::{ClipModelFile, LoadOptions, load_into};
use crate::tokenizer::ClipTokenizer;

/// Number of images that are encoded at once, which bounds memory.
const BATCH: usize = 16;

/// Model that scores how well images match a prompt: PickScore, HPS, HPS v2, or CLIP itself. Weights are kept in f32:
/// 3.9 GB for PickScore and HPS v2, 1.7 GB for HPS.
///
/// Its embeddings are those for the similarities of [`fabric_core::metrics`]: of images (CLIP-I), or of images and
/// texts (CLIP-T).
///
/// ```no_run
/// use fabric_core::image::Image;
/// use fabric_models::clip::PreferenceModel;
///
/// let model = PreferenceModel::open("models/PickScore_v1", &fabric_backends::default_device()?)?;
/// let images = [Image::open("a.png")?, Image::open("b.png")?];
/// let scores = model.score("a cat on a roof", &images)?;
/// assert_eq!(scores.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PreferenceModel {
    kind: PreferenceKind,
    text: ClipText,
    vision: ClipVision,
    logit_scale: f64,
    tokenizer: ClipTokenizer,
}

impl PreferenceModel {
    /// Opens a preference model, and recognizes its layout, sizes and kind:
    ///
    /// - a folder of transformers' `CLIPModel`: `config.json` and weights (PickScore, CLIP), or
    /// - one file with the names of transformers, or with those of OpenCLIP and OpenAI (HPS, HPS v2). Files
    ///   `.pt`, `.pth` and `.bin` need the feature `pickle`.
    ///
    /// A model that was trained on preferences cannot be told from the CLIP model from which its training started; see
    /// [`PreferenceOptions::kind`] for the choice that is made.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, damaged, or does not contain a whole CLIP model.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        Self::open_with(path, &PreferenceOptions::default(), device)
    }

    /// Opens a preference model as [`Self::open`] does, with options for what its files do not show.
    ///
    /// # Errors
    ///
    /// Same as [`Self::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &PreferenceOptions, device: &Device) -> Result<Self, ModelError> {
        let file = ClipModelFile::open(path.as_ref())?;
        let (text, vision) = configs(&file, options)?;
        let kind = options.kind.unwrap_or_else(|| PreferenceKind::detect(file.layout, &text, &vision));
        let load = LoadOptions::default();
        Ok(Self {
            kind,
            logit_scale: file.logit_scale()?,
            text: load_into(text.init(device)?, &*file.weights, &load)?.0,
            vision: load_into(vision.init(device)?, &*file.weights, &load)?.0,
            tokenizer: ClipTokenizer::openai().with_cleaning(kind.cleaning(file.layout)),
        })
    }

    /// Returns the kind of the model.
    pub fn kind(&self) -> PreferenceKind {
        self.kind
    }

    /// Returns the scores of images for a prompt, in the order of the images; higher is better.
    ///
    /// [`PreferenceKind`] has the formulas. The text beyond 77 tokens is cut off, as in the published code. Without
    /// images, the result is empty.
    ///
    /// # Errors
    ///
    /// Returns an error if the prompt is too long for the tokenizer, or a score is not a finite number.
    pub fn score(&self, prompt: &str, images: &[Image]) -> Result<Vec<f64>, Error> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.embed_text(slice::from_ref(&prompt))?;
        let percent = similarity(text, self.embed_images(images)?).concat();
        let factor = self.kind.factor(self.logit_scale);
        percent.into_iter().enumerate().map(|(index, percent)| finite(index, factor * percent / 100.0)).collect()
    }

    /// Returns the projected embeddings of images, `[images, dim]`, which are not normalised.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no images.
    pub fn embed_images(&self, images: &[Image]) -> Result<Tensor<2>, Error> {
        if images.is_empty() {
            return Err(nothing("images to embed"));
        }
        let embedded = images.chunks(BATCH).map(|images| Ok(self.vision.embed(self.pixels(images)?)));
        Ok(Tensor::cat(embedded.collect::<Result<_, Error>>()?, 0))
    }

    /// Returns the projected embeddings of texts, `[texts, dim]`, which are not normalised.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no texts, or one is too long for the tokenizer.
    pub fn embed_text(&self, texts: &[impl AsRef<str>]) -> Result<Tensor<2>, Error> {
        if texts.is_empty() {
            return Err(nothing("texts to embed"));
        }
        let window = self.tokenizer.window().min(self.text.max_tokens());
        let tokenize = |text: &str| self.tokenizer.tokenize(text, window, self.tokenizer.padding()).map_err(model);
        let tokenized = texts.iter().map(|text| tokenize(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
        // A token sees only those before it, and a text is pooled at its end. So its padding has no effect, and need
        // only give all texts one length; the published code pads with other tokens, or not at all.
        let longest = tokenized.iter().map(|text| text.length.min(window)).max().unwrap_or(window);
        let ids: Vec<Vec<u32>> = tokenized.into_iter().map(|text| text.ids[..longest].to_vec()).collect();
        let output = self.text.forward(&ids).map_err(model)?;
        Ok(output.text_embeds.expect("a text encoder with a projection"))
    }

    /// Returns preprocessed images, `[images, 3, image_size, image_size]`.
    fn pixels(&self, images: &[Image]) -> Result<Tensor<4>, Error> {
        let (size, device) = (self.vision.image_size(), self.vision.device());
        match self.kind {
            PreferenceKind::HpsV2 => Ok(longest_side_batch(images, size, &device)),
            PreferenceKind::PickScore | PreferenceKind::Hps | PreferenceKind::Clip => {
                Ok(clip_batch(images, size, Crop::Centre, &device)?)
            }
        }
    }
}

/// Returns the configurations of both encoders.
pub(super) fn configs(
    file: &ClipModelFile,
    options: &PreferenceOptions,
) -> Result<(ClipTextConfig, ClipVisionConfig), ModelError> {
    let json = file.config.to_string();
    let (mut text, mut vision) = (ClipTextConfig::from_json(&json)?, ClipVisionConfig::from_json(&json)?);
    if let Some(activation) = options.activation {
        (text.hidden_act, vision.hidden_act) = (activation, activation);
    }
    Ok((text, vision))
}

/// Returns the score, or an error if it is not a finite number.
fn finite(index: usize, score: f64) -> Result<f64, Error> {
    if score.is_finite() {
        return Ok(score);
    }
    let help = "the weights are damaged, or the device computes wrongly: get the file again, or use another device";
    Err(model(InvalidValue::new(format!("preference score of image {index}"), score, "a finite number", help)))
}

fn nothing(what: &str) -> Error {
    Error::settings(what, "none", "at least one", "give one, or leave out the call")
}

fn model(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Model(Box::new(error))
}
