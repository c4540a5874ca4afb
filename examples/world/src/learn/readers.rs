//! Training of the readers that evaluate every model of this world.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use fabric::core::noise::normal;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};

use super::{StageOptions, pixels, upload};
use crate::draws::symmetric;
use crate::{Attribute, Named, Readers, SIDE, Sample, sample};
use fabric::models::train::{Task, TrainSettings};

/// Task that trains [`Readers`] on images of the whole world, including held-out combinations, which they would
/// otherwise misread.
///
/// Every fourth image is a face, because six of the thirteen factors exist only there. Half of the images are
/// noised, so that readers do not depend on exact pixels, which a decoder does not produce.
#[derive(Debug)]
pub struct ReadersTask {
    settings: TrainSettings,
    noise: f64,
    identity: Value,
}

/// Batch of images with their factors.
#[derive(Debug)]
pub struct ReadersBatch {
    pixels: Vec<f32>,
    shown: Vec<Named>,
}

impl ReadersTask {
    /// Creates a task with these settings.
    pub fn new(settings: &TrainSettings, options: &StageOptions) -> Self {
        let identity = json!({ "stage": "readers", "options": { "noise": options.noise } });
        Self { settings: settings.clone(), noise: options.noise, identity }
    }
}

/// Number of samples from which each training example is selected.
const CHOICES: u64 = 1 << 10;

/// Returns example number `index`: a face if `index` is a multiple of four, otherwise any sample.
fn example(seed: u64, index: u64) -> Sample {
    let mut choices = (0..CHOICES).map(|choice| sample(seed, index * CHOICES + choice, None));
    let first = choices.next().expect("there are choices");
    if !index.is_multiple_of(4) || first.scene.is_face() {
        return first;
    }
    choices.find(|sample| sample.scene.is_face()).unwrap_or(first)
}

impl Task for ReadersTask {
    type Model = Readers;
    type Batch = ReadersBatch;

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> ReadersBatch + Send + Sync> {
        let (seed, size, noise) = (self.settings.seed, self.settings.batch as u64, self.noise as f32);
        Arc::new(move |number| {
            let samples: Vec<_> = (0..size).map(|at| example(seed, number * size + at)).collect();
            let mut pixels = pixels(&samples);
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let each = pixels.len() / samples.len();
            for (at, image) in pixels.chunks_exact_mut(each).enumerate().skip(1).step_by(2) {
                let amount = noise * symmetric(&mut rng).abs();
                let drawn = normal(seed.wrapping_add(1), number * size + at as u64, each);
                image.iter_mut().zip(drawn).for_each(|(pixel, drawn)| *pixel += amount * drawn);
            }
            ReadersBatch { pixels, shown: samples.iter().map(|sample| Named::of(&sample.scene)).collect() }
        })
    }

    fn loss(&self, model: &Readers, batch: ReadersBatch, device: &Device) -> Result<Tensor<1>, String> {
        let logits = model.forward(upload(batch.pixels, SIDE as usize, device));
        Ok(misread(logits, &batch.shown, device))
    }
}

/// Returns the sum over all factors of the mean cross-entropy over the images that have the factor.
pub(super) fn misread(logits: Vec<Tensor<2>>, shown: &[Named], device: &Device) -> Tensor<1> {
    let each = Attribute::ALL.into_iter().zip(logits);
    each.fold(Tensor::zeros([1], device), |sum, (attribute, logits)| {
        sum + cross_entropy(logits, shown, attribute, device)
    })
}

/// Returns the mean cross-entropy of one factor's logits over the images that have it.
fn cross_entropy(logits: Tensor<2>, shown: &[Named], attribute: Attribute, device: &Device) -> Tensor<1> {
    let expected: Vec<Option<usize>> = shown.iter().map(|named| named.index_of(attribute)).collect();
    let count = expected.iter().flatten().count().max(1) as f32;
    let indices = expected.iter().map(|index| index.unwrap_or(0) as i64).collect();
    let shares = expected.iter().map(|index| if index.is_some() { 1.0 / count } else { 0.0 }).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [shown.len(), 1]), device);
    let shares = Tensor::<2>::from_data(TensorData::new(shares, [shown.len(), 1]), device);
    (log_softmax(logits, 1).gather(1, indices) * shares).sum().neg()
}
