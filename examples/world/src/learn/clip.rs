//! Training of the image encoder.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Value, json};

use super::readers::misread;
use super::text::padded;
use super::{StageOptions, WorldConfig, seen, sketches, upload};
use crate::factor_heads::most_likely;
use crate::{FactorHeads, Named, SIDE, Split, sample};
use fabric::models::clip::{ClipText, ClipVision};
use fabric::models::config::ConfigError;
use fabric::models::layers::Linear;
use fabric::models::load::PublishedNames;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{Task, TrainSettings};

/// Text and image encoder with a common embedding space (transformers' `CLIPModel`), with additional heads for
/// training.
#[derive(Module, Debug)]
pub struct WorldClip {
    /// Text encoder.
    pub text: ClipText,
    /// Image encoder.
    pub vision: ClipVision,
    /// Heads that classify the world's factors from the image encoder's tokens. Used only in training.
    pub heads: FactorHeads,
    /// Linear layer that draws the thing in each patch, in a fixed colour, from the middle layer of the image
    /// encoder. Used only in training.
    pub sketch: Linear,
    /// Logarithm of the scale of the similarities, `[1]`.
    pub logit_scale: Param<Tensor<1>>,
}

impl PublishedNames for WorldClip {
    fn published_name(path: &str) -> String {
        match path.split_once('.') {
            Some(("text", rest)) => ClipText::published_name(rest),
            Some(("vision", rest)) => ClipVision::published_name(rest),
            // The other parameters keep their names.
            _ => path.to_owned(),
        }
    }
}

/// Logarithms of the published initial scale of the similarities, `1 / 0.07`, and of its limit, 100.
const FIRST_SCALE: f32 = 2.659_26;
const LARGEST_SCALE: f64 = 4.605_17;

/// Weight of the readers' cross-entropy, which makes it about as large as the contrastive loss.
const READING: f64 = 0.3;

/// Weight of the cross-entropy of the drawn patches. Edges and texture determine the kind and texture of a
/// thing. This loss trains each patch directly, long before the readers learn which patches matter.
const SKETCH: f64 = 4.0;

/// Multiplier of the published initial size of the position embeddings. It makes them about as large as the
/// patch embeddings; otherwise, the encoder learns only colours for hundreds of steps.
const POSITIONS: f64 = 25.0;

impl WorldClip {
    /// Creates random weights.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration is invalid.
    pub fn new(config: &WorldConfig, device: &Device) -> Result<Self, ConfigError> {
        let scale = Tensor::from_data(TensorData::new(vec![FIRST_SCALE], [1]), device);
        Ok(Self {
            text: config.text.init(device)?,
            vision: config.vision.init(device)?.with_longer_positions(POSITIONS),
            heads: FactorHeads::new(config.vision.hidden_size, device),
            sketch: Linear::new(config.vision.hidden_size, config.vision.patch_size.pow(2), true, device),
            logit_scale: Param::from_tensor(scale),
        })
    }

    /// Returns the most likely value of each factor, from the image encoder's tokens.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, 64, 64]`, normalised as CLIP expects
    pub fn classify(&self, pixels: Tensor<4>) -> Vec<Named> {
        let last = self.vision.forward(pixels).hidden.pop().expect("an encoder has states");
        most_likely(self.heads.forward(last))
    }

    /// Returns the scaled similarity of each image embedding to each caption embedding, `[images, captions]`.
    fn compare(&self, seen: Tensor<2>, read: Tensor<2>) -> Tensor<2> {
        let scale = self.logit_scale.val().clamp_max(LARGEST_SCALE).exp();
        unit(seen).matmul(unit(read).transpose()) * scale.unsqueeze::<2>()
    }
}

/// Normalises each row to length 1.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-6);
    x / length
}

/// Task that trains the image encoder with the contrastive loss (Radford et al. 2021) and with classification
/// of the factors, which makes the encoder learn small things in fewer steps.
///
/// The classification heads are trained on the whole world, including held-out combinations, which captions
/// never contain.
#[derive(Debug)]
pub struct ClipTask {
    tokenizer: ClipTokenizer,
    settings: TrainSettings,
    /// Whether the text encoder is frozen.
    fixed: bool,
    patch: usize,
    identity: Value,
}

/// Batch of images with their factors, drawings without colour, and caption tokens.
#[derive(Debug)]
pub struct ClipBatch {
    pixels: Vec<f32>,
    sketches: Vec<f32>,
    shown: Vec<Named>,
    /// Indices of the images with captions: those whose combination is not held out.
    captioned: Vec<i64>,
    /// Their captions.
    ids: Vec<Vec<u32>>,
}

impl ClipTask {
    /// Creates a task for these networks.
    pub fn new(
        config: &WorldConfig,
        tokenizer: ClipTokenizer,
        settings: &TrainSettings,
        options: &StageOptions,
    ) -> Self {
        let fixed = options.fixed;
        let identity = json!({ "stage": "clip", "text": config.text, "vision": config.vision, "fixed": fixed });
        Self { tokenizer, settings: settings.clone(), fixed, patch: config.vision.patch_size, identity }
    }
}

impl Task for ClipTask {
    type Model = WorldClip;
    type Batch = ClipBatch;

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> ClipBatch + Send + Sync> {
        let (seed, size, patch) = (self.settings.seed, self.settings.batch as u64, self.patch);
        let tokenizer = self.tokenizer.clone();
        Arc::new(move |number| {
            let samples: Vec<_> = (0..size).map(|i| sample(seed, number * size + i, None)).collect();
            let captioned = (0..).zip(&samples).filter(|(_, sample)| sample.scene.split() == Split::Train);
            let (captioned, ids) = captioned.map(|(at, sample)| (at, padded(&tokenizer, &sample.caption.text))).unzip();
            let shown = samples.iter().map(|sample| Named::of(&sample.scene)).collect();
            ClipBatch {
                pixels: seen(samples.iter().map(|sample| (&sample.scene, &sample.variation))),
                sketches: sketches(&samples, patch),
                shown,
                captioned,
                ids,
            }
        })
    }

    fn loss(&self, model: &WorldClip, batch: ClipBatch, device: &Device) -> Result<Tensor<1>, String> {
        let (images, captions) = (batch.shown.len(), batch.ids.len());
        if captions == 0 {
            return Err("expected at least one image that a caption may describe, got none: take a larger batch".into());
        }
        let mut got = model.vision.forward(upload(batch.pixels, SIDE as usize, device));
        let captioned = Tensor::<1, Int>::from_data(TensorData::new(batch.captioned, [captions]), device);
        // Detaching the embeddings instead would keep the operations of the encoder for a backward pass that never
        // comes: tens of megabytes a step.
        let text = if self.fixed { model.text.clone().no_grad() } else { model.text.clone() };
        let read = text.forward(&batch.ids).map_err(|error| error.to_string())?;
        let read = read.text_embeds.expect("the world's text encoder projects");
        let similarity = model.compare(got.image_embeds.select(0, captioned), read);
        let same = Tensor::<2, Int>::from_data(TensorData::new((0..captions as i64).collect(), [captions, 1]), device);
        let of = |logits: Tensor<2>| log_softmax(logits, 1).gather(1, same.clone()).mean().neg();
        let contrast = (of(similarity.clone()) + of(similarity.transpose())) * 0.5;
        // Skips the class token, which is not a patch.
        let patches = got.hidden[got.hidden.len() / 2].clone().slice([0..images, 1..got.hidden[0].dims()[1]]);
        let sketch = binary_cross_entropy(model.sketch.forward(patches), batch.sketches, device);
        let logits = model.heads.forward(got.hidden.pop().expect("an encoder has states"));
        Ok(contrast + misread(logits, &batch.shown, device) * READING + sketch * SKETCH)
    }
}

/// Returns the mean binary cross-entropy of logits for target values from 0 to 1.
fn binary_cross_entropy(logits: Tensor<3>, shares: Vec<f32>, device: &Device) -> Tensor<1> {
    let shares = Tensor::<3>::from_data(TensorData::new(shares, logits.dims()), device);
    let positive = logits.clone().clamp_min(0.0);
    let rest = (logits.clone().abs().neg().exp() + 1.0).log();
    (positive - logits * shares + rest).mean()
}
