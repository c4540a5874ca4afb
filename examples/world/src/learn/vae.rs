//! Training of the autoencoder.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use fabric::core::InvalidValue;
use fabric::core::noise::normal;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};

use super::config::StageOptions;
use super::{WorldConfig, pixels, upload};
use crate::draws::symmetric;
use crate::{SIDE, Sample, Split, sample};
use fabric::models::train::{Task, TrainError, TrainSettings};
use fabric::models::vae::Vae;

/// Task that trains the variational autoencoder (Kingma and Welling 2013; Rombach et al. 2021).
#[derive(Debug)]
pub struct VaeTask {
    settings: TrainSettings,
    options: StageOptions,
    latent_channels: usize,
    /// Pixels per latent along an axis.
    scale_factor: usize,
    identity: Value,
}

/// Batch of images or crops of `side` pixels, with the noise for sampling their latents.
#[derive(Debug)]
pub struct ImageBatch {
    pixels: Vec<f32>,
    side: usize,
    noise: Vec<f32>,
}

impl VaeTask {
    /// Creates a task for this network.
    ///
    /// # Errors
    ///
    /// Returns an error if images cannot be cropped as [`StageOptions::crop`] says.
    pub fn new(config: &WorldConfig, settings: &TrainSettings, options: &StageOptions) -> Result<Self, TrainError> {
        let scale_factor = config.vae.scale_factor();
        let crop = options.crop;
        if crop != 0 && (!crop.is_multiple_of(scale_factor) || !(SIDE as usize).is_multiple_of(crop)) {
            return Err(TrainError::Settings(InvalidValue {
                what: "crop".to_owned(),
                got: crop.to_string(),
                expected: format!("a divisor of {SIDE} that latents divide ({scale_factor}), or 0"),
                help: "take 32".to_owned(),
            }));
        }
        let identity = json!({ "stage": "vae", "vae": config.vae, "options": {
            "fixed": options.fixed,
            "kl": options.kl,
            "edges": options.edges,
            "absolute": options.absolute,
            "crop": crop,
        } });
        let latent_channels = config.vae.latent_channels;
        Ok(Self { settings: settings.clone(), options: options.clone(), latent_channels, scale_factor, identity })
    }
}

impl Task for VaeTask {
    type Model = Vae;
    type Batch = ImageBatch;

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> ImageBatch + Send + Sync> {
        let (seed, size, crop) = (self.settings.seed, self.settings.batch, self.options.crop);
        let (scale_factor, whole) = (self.scale_factor, SIDE as usize);
        let latents = size * self.latent_channels * (whole / scale_factor).pow(2);
        Arc::new(move |number| {
            // Both kinds of batches have the same number of pixels.
            let side = if crop != 0 && number % 2 == 1 { crop } else { whole };
            let count = size * (whole / side).pow(2);
            let first = number * (size * (whole / if crop == 0 { whole } else { crop }).pow(2)) as u64;
            let samples: Vec<_> = (first..).take(count).map(|index| sample(seed, index, Split::Train)).collect();
            let mut pixels = pixels(&samples);
            if side != whole {
                pixels = cut_out(&pixels, &samples, side, scale_factor, seed.wrapping_add(number));
            }
            ImageBatch { pixels, side, noise: normal(seed, number, latents) }
        })
    }

    fn loss(&self, model: &Vae, batch: ImageBatch, device: &Device) -> Result<Tensor<1>, String> {
        let pixels = upload(batch.pixels, batch.side, device);
        let images = pixels.dims()[0];
        let side = batch.side / self.scale_factor;
        let noise = Tensor::from_data(TensorData::new(batch.noise, [images, self.latent_channels, side, side]), device);
        // Detaching the latents instead would keep the operations of the encoder for a backward pass that never comes.
        let encoder = if self.options.fixed { model.clone().no_grad() } else { model.clone() };
        let latents = encoder.encode_distribution(pixels.clone());
        let back = model.decode_unscaled(latents.sample(noise));
        let difference = back - pixels;
        let (mean, logvar) = (latents.mean, latents.logvar);
        let divergence = (mean.square() + logvar.clone().exp() - 1.0 - logvar).sum() * (0.5 / images as f64);
        let edges = neighbours(&difference, 2) + neighbours(&difference, 3);
        let squared = difference.clone().square().mean();
        let absolute = difference.abs().mean() * self.options.absolute;
        Ok(squared + absolute + edges * self.options.edges + divergence * self.options.kl)
    }
}

/// Crops images around their things, because most of an image is background, which is learned quickly. Crops
/// start at multiples of a latent, so that patterns are aligned as in whole images.
pub(super) fn cut_out(pixels: &[f32], samples: &[Sample], side: usize, step: usize, seed: u64) -> Vec<f32> {
    let whole = SIDE as usize;
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut out = Vec::with_capacity(samples.len() * 3 * side * side);
    for (sample, image) in samples.iter().zip(pixels.chunks_exact(3 * whole * whole)) {
        let [left, top] = sample.scene.center().map(|center| {
            let first = center - side as f32 / 2.0 + symmetric(&mut rng) * side as f32 / 4.0;
            // Saturates at 0.
            ((first / step as f32).round() as usize * step).min(whole - side)
        });
        for plane in image.chunks_exact(whole * whole) {
            let rows = plane.chunks_exact(whole).skip(top).take(side);
            rows.for_each(|row| out.extend_from_slice(&row[left..left + side]));
        }
    }
    out
}

/// Returns the mean squared difference between neighbouring pixels along an axis. Applied to the reconstruction
/// error, it is large for blurred edges and lost patterns.
pub(super) fn neighbours(x: &Tensor<4>, axis: usize) -> Tensor<1> {
    let length = x.dims()[axis];
    (x.clone().narrow(axis, 1, length - 1) - x.clone().narrow(axis, 0, length - 1)).square().mean()
}
