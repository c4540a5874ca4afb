//! Training of a resampler on the text encoder's tokens, before an adapter is trained beside the U-Net.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fabric::core::models::{ImageEncoder, TextEncoder, TextOptions};
use fabric::ipadapter::{AdapterConfig, AdapterWeights, Features, IpAdapter};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{Task, TrainSettings};
use serde_json::{Value, json};

use super::{seen, upload};
use crate::{SIDE, Split, full_caption, sample};

/// Task that trains the projection of an adapter to make of an image the tokens that the text encoder makes of its full
/// caption.
///
/// The key and value projections of an untrained adapter are those of the text, so such tokens act like a caption from
/// the first step on. An adapter that starts from random tokens learns for thousands of steps where things are.
pub struct PromptTokensTask {
    config: AdapterConfig,
    vision: Arc<dyn ImageEncoder + Send + Sync>,
    text: Arc<dyn TextEncoder + Send + Sync>,
    tokenizer: ClipTokenizer,
    settings: TrainSettings,
    tokens: usize,
}

impl std::fmt::Debug for PromptTokensTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromptTokensTask").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Batch of images with their captions.
#[derive(Debug)]
pub struct PromptTokensBatch {
    pixels: Vec<f32>,
    captions: Vec<String>,
    /// Position of the first text token that an image's tokens shall match, for each caption.
    starts: Vec<usize>,
}

impl PromptTokensTask {
    /// Creates a task for an adapter that makes `tokens` tokens of an image, with frozen encoders.
    pub fn new(
        config: &AdapterConfig,
        tokens: usize,
        (vision, text): (Arc<dyn ImageEncoder + Send + Sync>, Arc<dyn TextEncoder + Send + Sync>),
        tokenizer: ClipTokenizer,
        settings: &TrainSettings,
    ) -> Self {
        Self { config: config.clone(), vision, text, tokenizer, settings: settings.clone(), tokens }
    }
}

/// Returns the first of `tokens` positions: after the start token, or for a longer caption so that the end token and
/// one token of padding are the last ones. The text encoder is causal, so these have read the whole caption.
fn first_position(words: usize, tokens: usize) -> usize {
    (words + 3).saturating_sub(tokens).max(1)
}

impl Task for PromptTokensTask {
    type Model = AdapterWeights;
    type Batch = PromptTokensBatch;

    fn identity(&self) -> Value {
        json!({ "stage": "prompt tokens", "adapter": format!("{:?}", self.config) })
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> PromptTokensBatch + Send + Sync> {
        let (seed, size, tokens) = (self.settings.seed, self.settings.batch as u64, self.tokens);
        let tokenizer = self.tokenizer.clone();
        Arc::new(move |number| {
            let samples: Vec<_> = (0..size).map(|at| sample(seed, number * size + at, Split::Train)).collect();
            let captions: Vec<String> = samples.iter().map(|sample| full_caption(&sample.scene)).collect();
            let words =
                |caption: &String| tokenizer.encode(caption).expect("captions consist of the world's words").len();
            let starts = captions.iter().map(|caption| first_position(words(caption), tokens)).collect();
            PromptTokensBatch { pixels: seen(&samples), captions, starts }
        })
    }

    fn loss(&self, model: &AdapterWeights, batch: PromptTokensBatch, device: &Device) -> Result<Tensor<1>, String> {
        let plain = device.clone().inner();
        let context = self.text.encode(&batch.captions, &TextOptions::default()).map_err(|error| error.to_string())?;
        let rows = (0..)
            .zip(&batch.starts)
            .map(|(row, &start)| context.context.clone().narrow(0, row, 1).narrow(1, start, self.tokens));
        let expected = Tensor::cat(rows.collect(), 0);
        let features = self.vision.penultimate(upload(batch.pixels, SIDE as usize, &plain));
        let adapter = IpAdapter::new(self.config.clone(), model.clone()).map_err(|error| error.to_string())?;
        let features = Features::Tokens(Tensor::from_inner(features));
        let tokens = adapter.tokens(&features).map_err(|error| error.to_string())?;
        Ok((tokens - Tensor::from_inner(expected)).square().mean())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_captions_begin_after_the_start_token_and_long_ones_end_after_the_end_token() {
        // The end token is at position `words + 1`.
        assert_eq!(first_position(0, 16), 1);
        assert_eq!(first_position(14, 16), 1);
        assert_eq!(first_position(15, 16), 2);
        let first = first_position(30, 16);
        assert_eq!((first + 14, first + 15), (31, 32));
    }
}
