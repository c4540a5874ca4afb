//! Images into the space of captions.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::{Value, json};

use super::readers::misread;
use super::text::padded;
use super::{StageOptions, WorldConfig, seen, sketches, upload};
use crate::clip::{ClipText, ClipTextError, ClipVision};
use crate::config::ConfigError;
use crate::layers::Linear;
use crate::load::PublishedNames;
use crate::tokenizer::ClipTokenizer;
use crate::train::{Task, TrainSettings};
use crate::world::factor_heads::most_likely;
use crate::world::{FactorHeads, Named, SIDE, Split, sample};

/// A text and an image encoder with a common space (transformers' `CLIPModel`), and what training them needs besides.
#[derive(Module, Debug)]
pub struct WorldClip {
    /// Reads captions.
    pub text: ClipText,
    /// Sees images.
    pub vision: ClipVision,
    /// Classify the world's factors from the image encoder's tokens. Only training needs them.
    pub heads: FactorHeads,
    /// Draws the thing from each patch, half way through the image encoder, as it would be in another colour. Only
    /// learning needs it.
    pub sketch: Linear,
    /// Logarithm of what similarities are multiplied by, `[1]`.
    pub logit_scale: Param<Tensor<1>>,
}

impl PublishedNames for WorldClip {
    fn published_name(path: &str) -> String {
        match path.split_once('.') {
            Some(("text", rest)) => ClipText::published_name(rest),
            Some(("vision", rest)) => ClipVision::published_name(rest),
            // The others keep their own names.
            _ => path.to_owned(),
        }
    }
}

/// The published beginning: similarities count fourteen times (`ln(1 / 0.07)`), and never beyond a hundred times.
const FIRST_SCALE: f32 = 2.659_26;
const LARGEST_SCALE: f64 = 4.605_17;

/// Weight of each reader's cross-entropy beside the contrast's: together they are as large.
const READING: f64 = 0.3;

/// Weight of the sketches' cross-entropy: where a thing ends and how it is painted tells its kind and its texture, and a
/// patch is told so at once, long before the readers know which patches matter.
const SKETCH: f64 = 4.0;

/// Position embeddings begin this many times as long as published, about as long as the embedded patches: without a sense
/// of place the encoder learns colours and nothing else for hundreds of steps.
const POSITIONS: f64 = 25.0;

impl WorldClip {
    /// With random weights.
    ///
    /// # Errors
    ///
    /// When the configuration cannot be built.
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

    /// The most likely value of each factor, from the image encoder's tokens.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, 64, 64]`, normalised as CLIP expects
    pub fn classify(&self, pixels: Tensor<4>) -> Vec<Named> {
        let last = self.vision.forward(pixels).hidden.pop().expect("an encoder has states");
        most_likely(self.heads.forward(last))
    }

    /// Embedded captions, `[captions, channels]`.
    fn read(&self, ids: &[Vec<u32>]) -> Result<Tensor<2>, ClipTextError> {
        Ok(self.text.forward(ids)?.text_embeds.expect("the world's text encoder projects"))
    }

    /// Similarity of each embedded image to each embedded caption, `[images, captions]`, scaled.
    fn compare(&self, seen: Tensor<2>, read: Tensor<2>) -> Tensor<2> {
        let scale = self.logit_scale.val().clamp_max(LARGEST_SCALE).exp();
        unit(seen).matmul(unit(read).transpose()) * scale.unsqueeze::<2>()
    }
}

/// Each row at length 1.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-6);
    x / length
}

/// Learns which caption belongs to which image (Radford et al. 2021), and to read the world's factors off images:
/// an encoder that is also asked for them learns to see small things in fewer steps.
///
/// The classification heads are trained on the whole world, held-out combinations included; captions never speak of those.
#[derive(Debug)]
pub struct ClipTask {
    tokenizer: ClipTokenizer,
    settings: TrainSettings,
    /// The text encoder stays as it is.
    fixed: bool,
    patch: usize,
    identity: Value,
}

/// Images, what they show, how it looks without colour, and their captions' tokens.
#[derive(Debug)]
pub struct ClipBatch {
    pixels: Vec<f32>,
    sketches: Vec<f32>,
    shown: Vec<Named>,
    /// The images that captions may speak of: of combinations that are not held out.
    captioned: Vec<i64>,
    /// Their captions.
    ids: Vec<Vec<u32>>,
}

impl ClipTask {
    /// For these networks.
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
            ClipBatch { pixels: seen(&samples), sketches: sketches(&samples, patch), shown, captioned, ids }
        })
    }

    fn loss(&self, model: &WorldClip, batch: ClipBatch, device: &Device) -> Result<Tensor<1>, String> {
        let (images, captions) = (batch.shown.len(), batch.ids.len());
        if captions == 0 {
            return Err("expected one at least, got no image that a caption may speak of: take a larger batch".into());
        }
        let mut got = model.vision.forward(upload(batch.pixels, SIDE as usize, device));
        let captioned = Tensor::<1, Int>::from_data(TensorData::new(batch.captioned, [captions]), device);
        let read = model.read(&batch.ids).map_err(|error| error.to_string())?;
        let read = if self.fixed { read.detach() } else { read };
        let similarity = model.compare(got.image_embeds.select(0, captioned), read);
        let same = Tensor::<2, Int>::from_data(TensorData::new((0..captions as i64).collect(), [captions, 1]), device);
        let of = |logits: Tensor<2>| log_softmax(logits, 1).gather(1, same.clone()).mean().neg();
        let contrast = (of(similarity.clone()) + of(similarity.transpose())) * 0.5;
        // The class token sees no patch.
        let patches = got.hidden[got.hidden.len() / 2].clone().slice([0..images, 1..got.hidden[0].dims()[1]]);
        let sketch = binary_cross_entropy(model.sketch.forward(patches), batch.sketches, device);
        let logits = model.heads.forward(got.hidden.pop().expect("an encoder has states"));
        Ok(contrast + misread(logits, &batch.shown, device) * READING + sketch * SKETCH)
    }
}

/// Mean cross-entropy of logits for shares from 0 to 1 in the same order.
fn binary_cross_entropy(logits: Tensor<3>, shares: Vec<f32>, device: &Device) -> Tensor<1> {
    let shares = Tensor::<3>::from_data(TensorData::new(shares, logits.dims()), device);
    let positive = logits.clone().clamp_min(0.0);
    let rest = (logits.clone().abs().neg().exp() + 1.0).log();
    (positive - logits * shares + rest).mean()
}
