//! Training task of an adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use fabric_core::InvalidValue;
use fabric_core::attention::{AttnCall, AttnExtras, AttnProcessor, AttnSite, DecoupledTokens};
use fabric_core::denoise::NoiseLevel;
use fabric_core::image::{Crop, Fit, Image, clip_pixels, vae_pixels};
use fabric_core::models::{
    AddedConditions, Autoencoder, CrossAttention, ImageEncoder, Posterior, TextEncoder, TextOptions, UNetInput,
    UNetModel,
};
use fabric_core::noise::normal;
use fabric_core::schedule::{Prediction, SchedulerConfig, training_levels};
use fabric_models::train::{Task, TrainSettings};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{AdapterOptions, Dataset, Example, Skipped};
use crate::adapter::AdapterWeights;
use crate::{AdapterConfig, AdapterError, FeatureKind, Features, IpAdapter, numbered_layers};

/// Frozen networks that the loss of an adapter uses.
#[derive(Clone)]
pub struct Partners {
    /// U-Net on a device that tracks gradients, with frozen weights (`Module::no_grad`): gradients flow through
    /// it.
    pub unet: Arc<dyn UNetModel + Send + Sync>,
    /// Autoencoder on the same device without gradients, as the encoders below.
    pub autoencoder: Arc<dyn Autoencoder + Send + Sync>,
    /// Text encoder for the text and, with Instruct, the instruction.
    pub text: Arc<dyn TextEncoder + Send + Sync>,
    /// Image encoder for the image prompts.
    pub vision: Arc<dyn ImageEncoder + Send + Sync>,
}

impl fmt::Debug for Partners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partners").finish_non_exhaustive()
    }
}

/// Task that trains an adapter (2308.06721, section 4.1; 2408.03209, section 3.5) with the U-Net's own loss,
/// where the adapter's tokens are added beside the text.
///
/// Supports adapters of image features, and Instruct. Face adapters need identities from another program and
/// cannot be trained here.
#[derive(Debug)]
pub struct AdapterTask {
    config: AdapterConfig,
    layers: Vec<CrossAttention>,
    settings: TrainSettings,
    options: AdapterOptions,
    dataset: Arc<Dataset>,
    partners: Partners,
    levels: Arc<Vec<NoiseLevel>>,
    prediction: Prediction,
    /// Lines whose images could not be read so far, with the reason.
    broken: Mutex<BTreeMap<usize, String>>,
}

/// Batch prepared by a worker thread, or the error.
#[derive(Debug)]
pub struct AdapterBatch(Result<Prepared, String>);

#[derive(Debug)]
struct Prepared {
    /// `[rows, 3, size, size]` from -1 to 1.
    targets: Vec<f32>,
    /// Number of image prompts of each row.
    prompts: usize,
    /// `[rows * prompts, 3, side, side]`, normalised for the image encoder.
    conditions: Vec<f32>,
    texts: Vec<String>,
    /// One for each image prompt.
    instructions: Vec<String>,
    /// Whether the image prompt is kept (not dropped).
    seen: Vec<bool>,
    levels: Vec<NoiseLevel>,
    /// Scale of the image prompts of each row.
    scales: Vec<f32>,
    /// Original width and height of the images, for SDXL's size conditioning.
    sizes: Vec<[f32; 2]>,
    /// Drawn lines whose images could not be read.
    broken: BTreeMap<usize, String>,
    /// Batch number, which seeds the noise.
    number: u64,
}

impl AdapterTask {
    /// Creates a task for an adapter with this configuration, these frozen networks and this noise schedule.
    ///
    /// # Errors
    ///
    /// Returns an error if adapter and U-Net do not fit, the adapter is a face adapter, or the options do not
    /// fit the data.
    pub fn new(
        config: &AdapterConfig,
        partners: Partners,
        scheduler: &SchedulerConfig,
        dataset: Dataset,
        settings: &TrainSettings,
        options: &AdapterOptions,
    ) -> Result<Self, AdapterError> {
        let layers = partners.unet.cross_attentions();
        config.check_layers(&layers)?;
        if matches!(config.reads(), FeatureKind::Face(_) | FeatureKind::FaceAndTokens(..)) {
            return Err(AdapterError::Unfit {
                adapter: config.to_string(),
                value: InvalidValue {
                    what: "training".to_owned(),
                    got: "an adapter that reads identities of faces".to_owned(),
                    expected: "one that reads features of images".to_owned(),
                    help: "train a plus adapter on images of faces".to_owned(),
                },
            });
        }
        if matches!(config.reads(), FeatureKind::Pooled(_)) && !partners.vision.has_projection() {
            return Err(AdapterError::Unfit {
                adapter: config.to_string(),
                value: InvalidValue {
                    what: "the image encoder".to_owned(),
                    got: "one without `visual_projection`".to_owned(),
                    expected: "one that projects pooled features".to_owned(),
                    help: "take the encoder from a `CLIPVisionModelWithProjection`".to_owned(),
                },
            });
        }
        options.check(dataset.examples(), matches!(config.reads(), FeatureKind::Instructed(..)))?;
        let (takes, latents) = (partners.unet.in_channels(), partners.autoencoder.latent_channels());
        if takes != latents {
            return Err(AdapterError::Unfit {
                adapter: config.to_string(),
                value: InvalidValue {
                    what: "the U-Net to train beside".to_owned(),
                    got: format!("one that takes {takes} channels"),
                    expected: format!("{latents}, as the VAE's latents have"),
                    help: "train beside the ordinary model; what is learned also fits its inpainting version"
                        .to_owned(),
                },
            });
        }
        let step = partners.autoencoder.scale_factor();
        if !options.size.is_multiple_of(step) {
            return Err(AdapterError::Setting(InvalidValue {
                what: "size".to_owned(),
                got: options.size.to_string(),
                expected: format!("a multiple of {step} pixels"),
                help: format!("use {}", (options.size / step).max(1) * step),
            }));
        }
        let levels = training_levels(scheduler).map_err(|error| {
            AdapterError::Setting(InvalidValue {
                what: "noise schedule".to_owned(),
                got: error.to_string(),
                expected: "the model's own".to_owned(),
                help: "take `scheduler_config.json` from the model's folder".to_owned(),
            })
        })?;
        Ok(Self {
            config: config.clone(),
            layers: numbered_layers(&layers),
            settings: settings.clone(),
            options: options.clone(),
            dataset: Arc::new(dataset),
            partners,
            levels: Arc::new(levels),
            prediction: scheduler.prediction,
            broken: Mutex::default(),
        })
    }

    /// Returns the lines whose images could not be read since the training was started or resumed. Other lines
    /// were drawn in their place; [`Dataset::open`] limits their number.
    pub fn broken(&self) -> Vec<Skipped> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.iter().map(|(&line, reason)| Skipped { line, reason: reason.clone() }).collect()
    }

    /// Records the unreadable lines of a batch. Fails if there are more than allowed.
    fn note(&self, broken: &BTreeMap<usize, String>) -> Result<(), String> {
        let mut known = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(broken.clone());
        self.dataset.spares(&known).map_err(|error| error.to_string())
    }

    /// Encodes the target images of a batch to latents.
    fn latents(&self, batch: &Prepared, device: &Device) -> Tensor<4> {
        let (rows, size) = (batch.texts.len(), self.options.size);
        let pixels = upload(batch.targets.clone(), [rows, 3, size, size], device);
        let side = size / self.partners.autoencoder.scale_factor();
        let posterior = self.noise(
            batch.number,
            POSTERIOR,
            [rows, self.partners.autoencoder.latent_channels(), side, side],
            device,
        );
        self.partners.autoencoder.encode(pixels, Posterior::Sample(posterior))
    }

    fn noise(&self, batch: u64, purpose: u64, shape: [usize; 4], device: &Device) -> Tensor<4> {
        let values = normal(self.settings.seed.wrapping_add(purpose), batch, shape.iter().product());
        upload(values, shape, device)
    }

    /// Computes the features of all image prompts of a batch, on a device that does not track gradients.
    fn features(
        &self,
        batch: &Prepared,
        context: &dyn Fn(&[String]) -> Result<Tensor<3>, String>,
        device: &Device,
    ) -> Result<Features, String> {
        let rows = batch.seen.len() * batch.prompts;
        let side = self.partners.vision.image_size();
        let pixels = upload(batch.conditions.clone(), [rows, 3, side, side], device);
        let seen = each_prompt(&batch.seen, batch.prompts);
        let seen: Vec<f32> = seen.into_iter().map(|seen| f32::from(u8::from(seen))).collect();
        Ok(match self.config.reads() {
            // Dropped images: pooled features are zero; otherwise pixels are zero before the encoder, as
            // published.
            FeatureKind::Pooled(_) => {
                let keep = Tensor::<2>::from_data(TensorData::new(seen, [rows, 1]), device);
                Features::Pooled(self.partners.vision.embed(pixels) * keep)
            }
            kind => {
                let keep = upload(seen, [rows, 1, 1, 1], device);
                let tokens = self.partners.vision.penultimate(pixels * keep);
                match kind {
                    FeatureKind::Instructed(..) => Features::Instructed {
                        tokens,
                        prompt: context(&each_prompt(&batch.texts, batch.prompts))?,
                        instruction: context(&batch.instructions)?,
                    },
                    _ => Features::Tokens(tokens),
                }
            }
        })
    }
}

/// Repeats each row's value for each of its image prompts.
fn each_prompt<T: Clone>(rows: &[T], prompts: usize) -> Vec<T> {
    rows.iter().flat_map(|row| std::iter::repeat_n(row.clone(), prompts)).collect()
}

/// Random streams.
const POSTERIOR: u64 = 1;
const NOISE: u64 = 2;

fn upload(values: Vec<f32>, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

impl Task for AdapterTask {
    type Model = AdapterWeights;
    type Batch = AdapterBatch;

    fn identity(&self) -> Value {
        let mut data = Sha256::new();
        for example in self.dataset.examples() {
            data.update(fingerprint(example));
        }
        let data: String = data.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "adapter": format!("{:?}", self.config),
            "data": data,
            "options": self.options,
            "prediction": format!("{:?}", self.prediction),
        })
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> AdapterBatch + Send + Sync> {
        let (settings, options) = (self.settings.clone(), self.options.clone());
        let (dataset, levels) = (self.dataset.clone(), self.levels.clone());
        let side = self.partners.vision.image_size();
        let weights = options.weights(dataset.examples());
        let whole = shares(&weights, &BTreeSet::new());
        Arc::new(move |number| {
            let mut rng = ChaCha12Rng::seed_from_u64(settings.seed);
            rng.set_stream(number);
            // As below, nothing is drawn for the default.
            let most = options.most_images;
            let mut batch = Prepared {
                targets: Vec::new(),
                prompts: if most > 1 { rng.random_range(1..=most) } else { 1 },
                conditions: Vec::new(),
                texts: Vec::new(),
                instructions: Vec::new(),
                seen: Vec::new(),
                levels: Vec::new(),
                scales: Vec::new(),
                sizes: Vec::new(),
                broken: BTreeMap::new(),
                number,
            };
            let (mut broken, mut rest) = (BTreeSet::new(), None);
            while batch.texts.len() < settings.batch {
                let ends = rest.as_ref().unwrap_or(&whole);
                let drawn = rng.random::<f64>() * ends.last().copied().unwrap_or_default();
                let index = ends.partition_point(|end| *end <= drawn).min(ends.len() - 1);
                let example = &dataset.examples()[index];
                let level = levels[rng.random_range(0..levels.len())];
                let [image, text] = dropped(rng.random(), &options);
                let instruction = instruction(example, &options, rng.random());
                if let Err(error) = images(example, &options, side, &mut batch) {
                    batch.broken.insert(example.line, error.to_string());
                    broken.insert(index);
                    if let Err(error) = dataset.spares(&batch.broken) {
                        return AdapterBatch(Err(error.to_string()));
                    }
                    // Another example is drawn instead, and this one is excluded.
                    let left = shares(&weights, &broken);
                    if left.last().is_none_or(|sum| *sum == 0.0) {
                        let last = format!("line {}: {error}", example.line);
                        return AdapterBatch(Err(format!("no image of the data can be read; {last}")));
                    }
                    rest = Some(left);
                    continue;
                }
                // Drawn only if it varies, so that the default gives the same random numbers as without this option.
                let varies = options.least_scale < 1.0;
                batch.scales.push(if varies { rng.random_range(options.least_scale..=1.0) as f32 } else { 1.0 });
                batch.levels.push(level);
                batch.texts.push(if text { String::new() } else { example.text.clone() });
                let further = |at: usize| match at.checked_sub(1) {
                    None => instruction.clone(),
                    Some(at) => example.more[at].instruction.clone().unwrap_or_default(),
                };
                let instructions = (0..batch.prompts).map(|at| further(at % (1 + example.more.len())));
                batch.instructions.extend(instructions.map(|one| if image { String::new() } else { one }));
                batch.seen.push(!image);
            }
            AdapterBatch(Ok(batch))
        })
    }

    fn loss(&self, model: &AdapterWeights, batch: AdapterBatch, device: &Device) -> Result<Tensor<1>, String> {
        let batch = batch.0?;
        self.note(&batch.broken)?;
        let rows = batch.texts.len();
        let plain = device.clone().inner();
        let encode = |texts: &[String]| {
            self.partners.text.encode(texts, &TextOptions::default()).map_err(|error| error.to_string())
        };
        let text = encode(&batch.texts)?;
        let read = |texts: &[String]| {
            self.partners.text.last_hidden(texts, &TextOptions::default()).map_err(|error| error.to_string())
        };
        let features = self.features(&batch, &read, &plain)?;
        let clean = self.latents(&batch, &plain);
        let noise = self.noise(batch.number, NOISE, clean.dims(), &plain);
        let each = |f: fn(&NoiseLevel) -> f64| {
            let values = batch.levels.iter().map(|level| f(level) as f32).collect();
            upload(values, [rows, 1, 1, 1], &plain)
        };
        let (alpha, sigma) = (each(|level| level.alpha), each(|level| level.sigma));
        let noised = clean.clone() * alpha.clone() + noise.clone() * sigma.clone();
        let expected = match self.prediction {
            Prediction::Epsilon => noise,
            Prediction::Velocity => noise * alpha - clean * sigma,
            Prediction::Sample => clean,
        };

        let adapter = IpAdapter::joined(self.config.clone(), model.clone());
        let tokens = adapter.tokens(&features.tracked()).map_err(|error| error.to_string())?;
        // All image prompts of a row share one softmax.
        let [all, count, context] = tokens.dims();
        let tokens = tokens.reshape([rows, all / rows * count, context]);
        let scales = Tensor::<3>::from_data(TensorData::new(batch.scales, [rows, 1, 1]), &plain);
        let scales = Tensor::from_inner(scales);
        let own = self.layers.iter().zip(&model.layers).map(|(layer, own)| {
            let [key, value] = own.forward(tokens.clone());
            (layer.site, [key, value * scales.clone()])
        });
        let processor = EachRow(own.collect());
        let timesteps: Vec<f64> = batch.levels.iter().map(|level| level.timestep).collect();
        let added = text.pooled.map(|pooled| {
            let size = self.options.size as f32;
            let ids: Vec<f32> = batch
                .sizes
                .iter()
                .flat_map(|[width, height]| {
                    // As in the published script: the crop is centred.
                    let scale = size / width.min(*height);
                    let [left, top] = [width, height].map(|side| ((side * scale - size) / 2.0).max(0.0).floor());
                    [*height, *width, top, left, size, size]
                })
                .collect();
            let time_ids = Tensor::<2>::from_data(TensorData::new(ids, [rows, 6]), &plain);
            AddedConditions { pooled: Tensor::from_inner(pooled), time_ids: Tensor::from_inner(time_ids) }
        });
        let input = UNetInput::new(Tensor::from_inner(noised), &timesteps, Tensor::from_inner(text.context));
        let input = UNetInput { added, processor: &processor, ..input };
        let predicted = self.partners.unet.forward(input).sample.expect("a pass that does not only record");
        Ok((predicted - Tensor::from_inner(expected)).square().mean())
    }
}

/// Returns a text that identifies an example. Without further image prompts it is as it was before there were any, so that
/// trainings that began then go on.
fn fingerprint(example: &Example) -> String {
    let Example { image, condition, text, task, instruction, more, line } = example;
    let more = if more.is_empty() { String::new() } else { format!(", more: {more:?}") };
    format!(
        "Example {{ image: {image:?}, condition: {condition:?}, text: {text:?}, task: {task:?}, instruction: \
         {instruction:?}, line: {line}{more} }}\n"
    )
}

/// Returns the cumulative sampling weights of the examples, without the unreadable ones.
fn shares(weights: &[f64], broken: &BTreeSet<usize>) -> Vec<f64> {
    let mut sum = 0.0;
    let ends = weights.iter().enumerate().map(|(index, weight)| {
        sum += if broken.contains(&index) { 0.0 } else { *weight };
        sum
    });
    ends.collect()
}

/// Returns whether image and text are dropped. One uniform number decides both, as published.
pub(super) fn dropped(drawn: f64, options: &AdapterOptions) -> [bool; 2] {
    let image = options.drop_image;
    let text = image + options.drop_text;
    let both = text + options.drop_both;
    [drawn < image || (text..both).contains(&drawn), (image..both).contains(&drawn)]
}

/// Returns the instruction of an example, or a random one of its task.
fn instruction(example: &Example, options: &AdapterOptions, drawn: f64) -> String {
    let of_task = || {
        let task = options.tasks.get(example.task.as_ref()?)?;
        task.instructions.get((drawn * task.instructions.len() as f64) as usize).cloned()
    };
    example.instruction.clone().or_else(of_task).unwrap_or_default()
}

/// Reads the images of an example.
fn images(
    example: &Example,
    options: &AdapterOptions,
    side: usize,
    batch: &mut Prepared,
) -> Result<(), fabric_core::image::ImageError> {
    let target = Image::open(&example.image)?;
    let targets = vae_pixels(&target, options.size, options.size, Fit::Cover)?;
    let mut conditions = Vec::new();
    let paths: Vec<&PathBuf> =
        std::iter::once(&example.condition).chain(example.more.iter().map(|one| &one.condition)).collect();
    for path in paths.iter().cycle().take(batch.prompts) {
        let condition = if **path == example.image { target.clone() } else { Image::open(path)? };
        conditions.extend(clip_pixels(&condition, side, Crop::Centre)?);
    }
    batch.sizes.push([target.width() as f32, target.height() as f32]);
    batch.targets.extend(targets);
    batch.conditions.extend(conditions);
    Ok(())
}

/// Keys and values `[rows, tokens, channels]`: each row of the batch attends to its own image. The values contain the
/// scale.
#[derive(Debug)]
struct EachRow(BTreeMap<AttnSite, [Tensor<3>; 2]>);

impl AttnProcessor for EachRow {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let Some([key, value]) = self.0.get(&call.site) else { return AttnExtras::default() };
        let rows = 0..call.query.dims()[0];
        let in_type = |x: &Tensor<3>| x.clone().cast(call.query.dtype());
        let (key, value) = (in_type(key), in_type(value));
        let tokens =
            DecoupledTokens { rows, key, value, scale: 1.0, mask: None, weights: Vec::new(), shares_softmax: false };
        AttnExtras { joint: Vec::new(), decoupled: vec![tokens] }
    }
}
