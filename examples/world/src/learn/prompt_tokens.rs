//! Training of an adapter's projection on the text encoder's tokens, before it is trained beside the U-Net.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fabric::core::models::{ImageEncoder, TextEncoder, TextOptions};
use fabric::ipadapter::{AdapterConfig, AdapterWeights, Features, IpAdapter};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::train::{Task, TrainSettings};
use serde_json::{Value, json};

use super::{seen, upload};
use crate::{Curriculum, Factor, Pair, SIDE, Split, Wording, full_caption, sample};

/// Task that trains the projection of an adapter to make of an image the tokens that the text encoder makes of a caption:
/// the full caption of the image, or for Instruct one of the factors that the instruction asks for.
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
    curriculum: Curriculum,
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
    examples: Vec<Example>,
    /// Position of the first text token that an image's tokens shall match, for each caption.
    starts: Vec<usize>,
}

/// Caption that the tokens of an image shall match, and for Instruct the text and the instruction beside the image.
#[derive(Debug)]
struct Example {
    caption: String,
    text: String,
    instruction: String,
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
        let (config, settings) = (config.clone(), settings.clone());
        Self { config, vision, text, tokenizer, settings, tokens, curriculum: Curriculum::default() }
    }

    /// Trains an Instruct adapter on these tasks and wordings.
    #[must_use]
    pub fn with_curriculum(mut self, curriculum: Curriculum) -> Self {
        self.curriculum = curriculum;
        self
    }

    /// Encodes one text of each example for the U-Net and for the projection, `[examples, 77, channels]` each.
    fn encode(&self, examples: &[Example], of: fn(&Example) -> &String) -> Result<[Tensor<3>; 2], String> {
        let (texts, options) = (examples.iter().map(|one| of(one).clone()).collect::<Vec<_>>(), TextOptions::default());
        let context = self.text.encode(&texts, &options).map_err(|error| error.to_string())?.context;
        Ok([context, self.text.last_hidden(&texts, &options).map_err(|error| error.to_string())?])
    }
}

/// Returns the first of `tokens` positions: after the start token, or for a longer caption so that the end token and
/// one token of padding are the last ones. The text encoder is causal, so these have read the whole caption.
fn first_position(words: usize, tokens: usize) -> usize {
    (words + 3).saturating_sub(tokens).max(1)
}

/// Returns example number `index` of an Instruct adapter, one task after the other, with its image.
fn instructed(curriculum: &Curriculum, seed: u64, index: u64) -> (Example, Pair) {
    let tasks = &curriculum.tasks;
    let pair = curriculum.pair(seed, index, tasks[(index % tasks.len() as u64) as usize]);
    let caption = pair.asked().caption(Wording::VALUES[0]);
    (Example { caption, text: pair.text.clone(), instruction: pair.instruction.clone() }, pair)
}

impl Task for PromptTokensTask {
    type Model = AdapterWeights;
    type Batch = PromptTokensBatch;

    fn identity(&self) -> Value {
        json!({
            "stage": "prompt tokens",
            "adapter": format!("{:?}", self.config),
            "curriculum": self.curriculum,
        })
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> PromptTokensBatch + Send + Sync> {
        let (seed, size, tokens) = (self.settings.seed, self.settings.batch as u64, self.tokens);
        let (tokenizer, is_instruct) = (self.tokenizer.clone(), self.config.is_instruct());
        let curriculum = self.curriculum.clone();
        Arc::new(move |number| {
            let indices = number * size..(number + 1) * size;
            let (examples, drawn): (Vec<Example>, Vec<_>) = if is_instruct {
                let instructed = indices.map(|index| instructed(&curriculum, seed, index));
                instructed.map(|(example, pair)| (example, pair.condition)).unzip()
            } else {
                let samples = indices.map(|index| sample(seed, index, Split::Train));
                let plain = |caption| Example { caption, text: String::new(), instruction: String::new() };
                samples.map(|it| (plain(full_caption(&it.scene)), (it.scene, it.variation))).unzip()
            };
            let words = |text: &String| tokenizer.encode(text).expect("captions consist of the world's words").len();
            let starts = examples.iter().map(|one| first_position(words(&one.caption), tokens)).collect();
            let pixels = seen(drawn.iter().map(|(scene, variation)| (scene, variation)));
            PromptTokensBatch { pixels, examples, starts }
        })
    }

    fn loss(&self, model: &AdapterWeights, batch: PromptTokensBatch, device: &Device) -> Result<Tensor<1>, String> {
        let [captions, _] = self.encode(&batch.examples, |one| &one.caption)?;
        let rows = (0..)
            .zip(&batch.starts)
            .map(|(row, &start)| captions.clone().narrow(0, row, 1).narrow(1, start, self.tokens));
        let expected = Tensor::from_inner(Tensor::cat(rows.collect(), 0));
        let pixels = upload(batch.pixels, SIDE as usize, &device.clone().inner());
        let tokens = Tensor::from_inner(self.vision.penultimate(pixels));
        let features = if self.config.is_instruct() {
            let [_, prompt] = self.encode(&batch.examples, |one| &one.text)?;
            let [_, instruction] = self.encode(&batch.examples, |one| &one.instruction)?;
            let (prompt, instruction) = (Tensor::from_inner(prompt), Tensor::from_inner(instruction));
            Features::Instructed { tokens, prompt, instruction }
        } else {
            Features::Tokens(tokens)
        };
        let adapter = IpAdapter::new(self.config.clone(), model.clone()).map_err(|error| error.to_string())?;
        let got = adapter.tokens(&features).map_err(|error| error.to_string())?;
        Ok((got - expected).square().mean())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_of_instructions_name_what_is_asked_and_nothing_else() {
        for index in 0..200 {
            let (example, pair) = instructed(&Curriculum::default(), 5, index);
            let named = crate::parse_caption(&example.caption);
            assert!(named.is_true_of(&pair.condition.0), "{example:?}");
            for attribute in named.attributes() {
                assert!(pair.task.shared().contains(&attribute), "{example:?}");
                assert_eq!(pair.named.index_of(attribute), None, "{example:?}");
            }
        }
    }

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
