//! Training of the U-Net: latents from captions.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use fabric::core::InvalidValue;
use fabric::core::denoise::NoiseLevel;
use fabric::core::models::{UNetInput, UNetModel};
use fabric::core::noise::normal;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde_json::{Value, json};

use super::WorldConfig;
use super::config::StageOptions;
use super::text::padded;
use crate::{SIDE, Scene, Split, caption, sample};
use fabric::models::clip::ClipText;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{Task, TrainError, TrainSettings};
use fabric::models::unet::UNet;

/// Task that trains the U-Net with velocity prediction (Salimans and Ho 2022) at all noise levels.
#[derive(Debug)]
pub struct UNetTask {
    settings: TrainSettings,
    options: StageOptions,
    text: ClipText,
    tokenizer: ClipTokenizer,
    /// Encoded, scaled images, one after the other; number `n` shows the scene of sample `n`.
    latents: Arc<Vec<f32>>,
    /// Shape `[channels, height, width]` of one image's latents.
    shape: [usize; 3],
    /// Noise level of each training timestep.
    levels: Arc<Vec<NoiseLevel>>,
    identity: Value,
}

/// Batch of noised latents, velocities, timesteps and captions.
#[derive(Debug)]
pub struct LatentBatch {
    noised: Vec<f32>,
    velocity: Vec<f32>,
    /// Loss weight for each spatial position of each image.
    weights: Vec<f32>,
    timesteps: Vec<f64>,
    ids: Vec<Vec<u32>>,
}

impl UNetTask {
    /// Creates a task for this network, from a pool of encoded images (samples `0..` of the settings' seed) and
    /// the training noise levels.
    ///
    /// # Errors
    ///
    /// Returns an error if a weight in the options is negative or not finite.
    pub fn new(
        config: &WorldConfig,
        settings: &TrainSettings,
        options: &StageOptions,
        (tokenizer, text): (ClipTokenizer, ClipText),
        (latents, shape): (Vec<f32>, [usize; 3]),
        levels: Vec<NoiseLevel>,
    ) -> Result<Self, TrainError> {
        let expected = [("min_snr", options.min_snr), ("least_weight", options.least_weight), ("focus", options.focus)];
        if let Some((what, got)) = expected.into_iter().find(|(_, got)| !got.is_finite() || *got < 0.0) {
            return Err(TrainError::Settings(InvalidValue {
                what: what.to_owned(),
                got: got.to_string(),
                expected: "a number of 0 or more".to_owned(),
                help: "take 5 for min_snr, 0.2 for least_weight, 3 for focus".to_owned(),
            }));
        }
        let identity = json!({ "stage": "unet", "unet": config.unet, "options": {
            "drop_captions": options.drop_captions, "min_snr": options.min_snr, "least_weight": options.least_weight,
            "focus": options.focus, "pool": options.pool } });
        let (latents, levels) = (Arc::new(latents), Arc::new(levels));
        let (settings, options) = (settings.clone(), options.clone());
        Ok(Self { settings, options, text, tokenizer, latents, shape, levels, identity })
    }
}

impl Task for UNetTask {
    type Model = UNet;
    type Batch = LatentBatch;

    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> LatentBatch + Send + Sync> {
        let (seed, size, options) = (self.settings.seed, self.settings.batch, self.options.clone());
        let (latents, levels, tokenizer) = (self.latents.clone(), self.levels.clone(), self.tokenizer.clone());
        let [channels, height, width] = self.shape;
        let each = channels * height * width;
        Arc::new(move |number| {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let noise = normal(seed.wrapping_add(1), number, size * each);
            let mut batch = LatentBatch {
                noised: Vec::with_capacity(noise.len()),
                velocity: Vec::with_capacity(noise.len()),
                weights: Vec::with_capacity(size * height * width),
                timesteps: Vec::with_capacity(size),
                ids: Vec::with_capacity(size),
            };
            for noise in noise.chunks_exact(each) {
                let chosen = rng.next_u64() as usize % (latents.len() / each);
                let level = levels[rng.next_u64() as usize % levels.len()];
                let keeps_caption = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 >= options.drop_captions;
                // Draws a new wording each time.
                let scene = sample(seed, chosen as u64, Split::Train).scene;
                let said = caption(&scene, &mut rng);
                let said = if keeps_caption { said.text } else { String::new() };
                for (clean, noise) in latents[chosen * each..][..each].iter().zip(noise) {
                    let (clean, noise) = (f64::from(*clean), f64::from(*noise));
                    batch.noised.push((level.alpha * clean + level.sigma * noise) as f32);
                    batch.velocity.push((level.alpha * noise - level.sigma * clean) as f32);
                }
                let [far, near] = weights(&level, &options);
                let cells = (0..height * width).map(|cell| [cell % width, cell / width]);
                let cells = cells.map(|cell| if is_near(&scene, cell, [width, height]) { near } else { far });
                batch.weights.extend(cells.map(|weight| weight as f32));
                batch.timesteps.push(level.timestep);
                batch.ids.push(padded(&tokenizer, &said));
            }
            batch
        })
    }

    fn loss(&self, model: &UNet, batch: LatentBatch, device: &Device) -> Result<Tensor<1>, String> {
        let rows = batch.ids.len();
        let [channels, height, width] = self.shape;
        let shape = [rows, channels, height, width];
        // The text encoder is frozen, so no gradient flows into it.
        let read = self.text.forward(&batch.ids).map_err(|error| error.to_string())?;
        let context = Tensor::from_inner(read.last_hidden_state);
        let upload = |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, shape), device);
        let input = UNetInput::new(upload(batch.noised), &batch.timesteps, context);
        let predicted = model.forward(input).sample.expect("a pass that was not asked to record only predicts");
        let weights = Tensor::<4>::from_data(TensorData::new(batch.weights, [rows, 1, height, width]), device);
        Ok(((predicted - upload(batch.velocity)).square() * weights).mean())
    }
}

/// Signal-to-noise ratio above which a noised image reveals the position of its thing. Below it, a higher loss
/// weight near the thing would make the network predict things everywhere.
const PLACE_SHOWS: f64 = 0.1;

/// Returns whether the centre of a latent pixel lies within the circle around the scene's thing.
fn is_near(scene: &Scene, cell: [usize; 2], cells: [usize; 2]) -> bool {
    let pixels = [0, 1].map(|axis| SIDE as f32 / cells[axis] as f32);
    let offset = [0, 1].map(|axis| (cell[axis] as f32 + 0.5) * pixels[axis] - scene.center()[axis]);
    // Half a latent pixel of tolerance, because things are shifted slightly.
    offset[0].hypot(offset[1]) <= scene.size.radius() + pixels[0] / 2.0
}

/// Returns the loss weights of a noise level, far from the thing and near it: min-SNR for velocity prediction,
/// `min(snr, limit) / (snr + 1)`, or 1 if the limit is 0.
fn weights(level: &NoiseLevel, options: &StageOptions) -> [f64; 2] {
    let snr = (level.alpha / level.sigma).powi(2);
    let published = if options.min_snr == 0.0 { 1.0 } else { snr.min(options.min_snr) / (snr + 1.0) };
    let far = published.max(options.least_weight);
    [far, if snr < PLACE_SHOWS { far } else { far * options.focus }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::sketches;

    #[test]
    fn latents_near_the_thing_are_those_that_show_it() {
        let samples: Vec<_> = (0..100).map(|index| sample(5, index, Split::Train)).collect();
        for (sample, sketch) in samples.iter().zip(sketches(&samples, 8).chunks_exact(64 * 64)) {
            let cell = |at: usize| [at % 8, at / 8];
            let near = (0..64).filter(|at| is_near(&sample.scene, cell(*at), [8, 8])).count();
            // Black is 0.08; a cell that is lit throughout shows the thing.
            let shown = |at: usize| sketch[at * 64..(at + 1) * 64].iter().filter(|pixel| **pixel > 0.2).count();
            let missed = (0..64).filter(|at| shown(*at) == 64 && !is_near(&sample.scene, cell(*at), [8, 8])).count();
            assert_eq!(missed, 0, "{:?}", sample.scene);
            assert!((4..=45).contains(&near), "{near} of 64: {:?}", sample.scene);
        }
    }

    #[test]
    fn levels_weigh_as_published_but_for_the_floor_and_the_thing() {
        let level = |snr: f64| {
            let (alpha, sigma) = ((snr / (snr + 1.0)).sqrt(), (1.0 / (snr + 1.0)).sqrt());
            NoiseLevel { timestep: 0.0, alpha, sigma }
        };
        let options = |least_weight, focus| StageOptions { least_weight, focus, ..StageOptions::default() };
        let near = |got: [f64; 2], expected: [f64; 2]| {
            assert!(
                got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-9),
                "{got:?} {expected:?}"
            );
        };
        for (snr, published) in [(1.0, 0.5), (5.0, 5.0 / 6.0), (99.0, 0.05), (0.0, 0.0)] {
            near(weights(&level(snr), &options(0.0, 1.0)), [published; 2]);
            let flat = StageOptions { min_snr: 0.0, ..options(0.0, 1.0) };
            near(weights(&level(snr), &flat), [1.0; 2]);
        }
        near(weights(&level(1.0), &options(0.2, 3.0)), [0.5, 1.5]);
        near(weights(&level(99.0), &options(0.2, 3.0)), [0.2, 0.6]);
        // Where the thing does not show, no place counts more.
        near(weights(&level(0.05), &options(0.2, 3.0)), [0.2, 0.2]);
    }
}
