//! Training of the tiny autoencoder, which decodes previews.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use fabric::core::models::{Autoencoder, Posterior};
use fabric::models::tiny_vae::TinyAutoencoder;
use fabric::models::train::{Task, TrainSettings};
use fabric::models::vae::Vae;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};

use super::config::StageOptions;
use super::vae::neighbours;
use super::{WorldConfig, pixels, upload};
use crate::draws::symmetric;
use crate::{SIDE, Split, sample};

/// Task that distils a tiny autoencoder from the VAE: the decoder learns the images that the VAE decodes, the encoder
/// the latents that it encodes.
///
/// Every second image is decoded from a mixture of its own latents and another image's, because the latents of
/// previews, above all of early ones, lie between those of images.
#[derive(Debug)]
pub struct TinyVaeTask {
    settings: TrainSettings,
    options: StageOptions,
    vae: Arc<Vae>,
    identity: Value,
}

/// Batch of images, with the share of an image's own latents in what is decoded.
#[derive(Debug)]
pub struct DistillationBatch {
    pixels: Vec<f32>,
    shares: Vec<f32>,
}

impl TinyVaeTask {
    /// Creates a task that learns from this VAE, which must be on the device of the training without gradients.
    pub fn new(config: &WorldConfig, settings: &TrainSettings, options: &StageOptions, vae: Arc<Vae>) -> Self {
        let identity = json!({ "stage": "tiny_vae", "tiny_vae": config.tiny_vae, "options": {
            "edges": options.edges,
            "absolute": options.absolute,
        } });
        Self { settings: settings.clone(), options: options.clone(), vae, identity }
    }
}

impl Task for TinyVaeTask {
    type Model = TinyAutoencoder;
    type Batch = DistillationBatch;

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> DistillationBatch + Send + Sync> {
        let (seed, size) = (self.settings.seed, self.settings.batch as u64);
        Arc::new(move |number| {
            let samples: Vec<_> = (0..size).map(|at| sample(seed, number * size + at, Split::Train)).collect();
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let share = |at: u64| if at.is_multiple_of(2) { 1.0 } else { (1.0 + symmetric(&mut rng)) / 2.0 };
            DistillationBatch { pixels: pixels(&samples), shares: (0..size).map(share).collect() }
        })
    }

    fn loss(&self, model: &TinyAutoencoder, batch: DistillationBatch, device: &Device) -> Result<Tensor<1>, String> {
        let plain = device.clone().inner();
        let pixels = upload(batch.pixels, SIDE as usize, &plain);
        let latents = self.vae.encode(pixels.clone(), Posterior::Mean);
        let images = latents.dims()[0];
        let share = Tensor::<4>::from_data(TensorData::new(batch.shares, [images, 1, 1, 1]), &plain);
        let others = Tensor::cat(vec![latents.clone().slice_dim(0, 1..), latents.clone().slice_dim(0, ..1)], 0);
        let mixed = others.clone() + (latents.clone() - others) * share;
        let expected = self.vae.decode(mixed.clone()).clamp(-1.0, 1.0);

        let difference = model.decode(Tensor::from_inner(mixed)) - Tensor::from_inner(expected);
        let encoded = model.encode(Tensor::from_inner(pixels), Posterior::Mean) - Tensor::from_inner(latents);
        let edges = neighbours(&difference, 2) + neighbours(&difference, 3);
        let squared = difference.clone().square().mean();
        let absolute = difference.abs().mean() * self.options.absolute;
        Ok(squared + absolute + edges * self.options.edges + encoded.square().mean())
    }
}
