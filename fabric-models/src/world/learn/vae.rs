//! Pictures to latents and back.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use fabric_core::noise::normal;
use serde_json::{Value, json};

use super::config::StageOptions;
use super::{WorldConfig, pixels, upload};
use crate::train::{Task, TrainSettings};
use crate::vae::Vae;
use crate::world::{SIDE, Split, sample};

/// Learns to bring pictures back from few numbers (Kingma and Welling 2013; Rombach et al. 2021).
#[derive(Debug)]
pub struct VaeTask {
    settings: TrainSettings,
    options: StageOptions,
    latent_shape: [usize; 3],
    identity: Value,
}

/// Pictures, and the noise of their latents.
#[derive(Debug)]
pub struct PictureBatch {
    pixels: Vec<f32>,
    noise: Vec<f32>,
}

impl VaeTask {
    /// For this network.
    pub fn new(config: &WorldConfig, settings: &TrainSettings, options: &StageOptions) -> Self {
        let identity =
            json!({ "stage": "vae", "vae": config.vae, "options": { "kl": options.kl, "edges": options.edges } });
        let side = SIDE as usize >> (config.vae.block_out_channels.len() - 1);
        let latent_shape = [config.vae.latent_channels, side, side];
        Self { settings: settings.clone(), options: options.clone(), latent_shape, identity }
    }
}

impl Task for VaeTask {
    type Model = Vae;
    type Batch = PictureBatch;

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> PictureBatch + Send + Sync> {
        let (seed, size) = (self.settings.seed, self.settings.batch as u64);
        let latents: usize = self.latent_shape.iter().product();
        Arc::new(move |number| {
            let samples: Vec<_> = (0..size).map(|i| sample(seed, number * size + i, Split::Train)).collect();
            PictureBatch { pixels: pixels(&samples), noise: normal(seed, number, samples.len() * latents) }
        })
    }

    fn loss(&self, model: &Vae, batch: PictureBatch, device: &Device) -> Result<Tensor<1>, String> {
        let pixels = upload(batch.pixels, device);
        let [channels, height, width] = self.latent_shape;
        let shape = [pixels.dims()[0], channels, height, width];
        let noise = Tensor::from_data(TensorData::new(batch.noise, shape), device);
        let latents = model.encode_distribution(pixels.clone());
        let back = model.decode_unscaled(latents.sample(noise));
        let difference = back - pixels;
        let (mean, logvar) = (latents.mean, latents.logvar);
        let divergence = (mean.square() + logvar.clone().exp() - 1.0 - logvar).sum() * (0.5 / shape[0] as f64);
        let edges = neighbours(&difference, 2) + neighbours(&difference, 3);
        Ok(difference.square().mean() + edges * self.options.edges + divergence * self.options.kl)
    }
}

/// Mean squared change from one pixel to the next along an axis: blurred edges and lost patterns are mostly that.
fn neighbours(x: &Tensor<4>, axis: usize) -> Tensor<1> {
    let length = x.dims()[axis];
    (x.clone().narrow(axis, 1, length - 1) - x.clone().narrow(axis, 0, length - 1)).square().mean()
}
