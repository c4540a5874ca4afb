//! Stable Diffusion's text encoding: tokenizers, encoders, and the choice of hidden state.

use burn::tensor::Tensor;
use fabric_core::Error;
use fabric_core::models::{TextEmbedding, TextEncoder, TextOptions, WeightNormalisation};

use super::fit::TextPart;
use crate::clip::{ClipText, ClipTextOutput};
use crate::tokenizer::{
    Chunks, ClipTokenizer, Emphasis, MAX_PROMPT_BYTES, PadWith, TokenizerError, WeightedPrompt, apply_weights,
};

/// Maximum number of tokenizer windows of a long prompt.
const MAX_WINDOWS: usize = 32;
/// Maximum length in bytes of a prompt with its brackets, weights and backslashes; its text is limited to
/// [`MAX_PROMPT_BYTES`].
const MAX_WEIGHTED_BYTES: usize = 4 * MAX_PROMPT_BYTES;

/// Default hidden state of a text encoder that the U-Net attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The last hidden state, after the final norm: Stable Diffusion 1 and 2.
    Last,
    /// The penultimate hidden state, without the final norm: Stable Diffusion XL.
    Penultimate,
}

/// Text encoder with its tokenizer.
#[derive(Debug)]
pub(super) struct Tower {
    pub(super) tokenizer: ClipTokenizer,
    pub(super) pad: PadWith,
    pub(super) encoder: ClipText,
    pub(super) state: State,
}

/// Text encoder of Stable Diffusion: one CLIP encoder, or SDXL's two with concatenated channels.
#[derive(Debug)]
pub struct StableDiffusionText {
    pub(super) towers: Vec<Tower>,
    /// Whether the projected pooled embedding of the last encoder is an added condition (SDXL).
    pub(super) pooled: bool,
    pub(super) force_zeros_for_empty_prompt: bool,
}

impl TextEncoder for StableDiffusionText {
    fn encode(&self, prompts: &[String], options: &TextOptions) -> Result<TextEmbedding, Error> {
        let mut contexts = Vec::new();
        let mut pooled = None;
        let mut truncated = vec![String::new(); prompts.len()];
        for tower in &self.towers {
            let encoded = tower.encode(prompts, options, tower.state)?;
            contexts.push(encoded.context);
            pooled = encoded.pooled;
            for (all, more) in truncated.iter_mut().zip(encoded.truncated) {
                if all.is_empty() {
                    *all = more;
                }
            }
        }
        // SDXL's two encoders read the same prompt; their channels are concatenated.
        let context = if contexts.len() == 1 { contexts.remove(0) } else { Tensor::cat(contexts, 2) };
        Ok(TextEmbedding { context, pooled: pooled.filter(|_| self.pooled), truncated })
    }

    fn without_words(
        &self,
        prompt: &str,
        options: &TextOptions,
        keep: &mut dyn FnMut() -> bool,
    ) -> Result<String, Error> {
        let kept = parse(prompt, options).map_err(model)?.without_words(keep);
        Ok(if options.weights { kept.to_text() } else { kept.runs.into_iter().map(|run| run.text).collect() })
    }

    fn last_hidden(&self, prompts: &[String], options: &TextOptions) -> Result<Tensor<3>, Error> {
        let first = self.towers.first().expect("every model has a text encoder");
        Ok(first.encode(prompts, options, State::Last)?.context)
    }

    fn force_zeros_for_empty_prompt(&self) -> bool {
        self.force_zeros_for_empty_prompt
    }
}

fn model(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Model(Box::new(error))
}

/// Parses a prompt, with its weights if the options say so. One that is far too long is refused before it is copied.
fn parse(prompt: &str, options: &TextOptions) -> Result<WeightedPrompt, TokenizerError> {
    let limit = if options.weights { MAX_WEIGHTED_BYTES } else { MAX_PROMPT_BYTES };
    if prompt.len() > limit {
        return Err(TokenizerError::PromptTooLong { got: prompt.len(), limit });
    }
    if options.weights { WeightedPrompt::parse(prompt) } else { Ok(WeightedPrompt::plain(prompt)) }
}

impl Tower {
    /// Returns the parts that are checked against the U-Net.
    pub(super) fn as_part(&self) -> TextPart<'_> {
        TextPart { encoder: &self.encoder, window: self.window() }
    }

    /// Length of the tokenizer window, limited to the encoder's maximum number of tokens.
    fn window(&self) -> usize {
        self.tokenizer.window().min(self.encoder.max_tokens())
    }

    fn encode(&self, prompts: &[String], options: &TextOptions, state: State) -> Result<TextEmbedding, Error> {
        let max_windows = if options.long_prompts { MAX_WINDOWS } else { 1 };
        let size = self.window();
        let read = |text: &String| self.tokenizer.chunks(&parse(text, options)?, size, self.pad, max_windows);
        let mut chunks: Vec<Chunks> = prompts.iter().map(read).collect::<Result<_, _>>().map_err(model)?;
        let windows = chunks.iter().map(|chunks| chunks.windows.len()).max().unwrap_or(1);
        chunks.iter_mut().for_each(|chunks| chunks.lengthen(windows));

        let emphasis = match chunks.iter().find(|chunks| chunks.is_weighted()) {
            Some(weighted) => Some(self.emphasis(weighted.blank(), options, state)?),
            None => None,
        };
        let mut contexts = Vec::with_capacity(windows);
        let mut pooled = None;
        for window in 0..windows {
            let ids: Vec<Vec<u32>> = chunks.iter().map(|chunks| chunks.windows[window].clone()).collect();
            let output = self.encoder.forward(&ids).map_err(model)?;
            let mut context = self.state(&output, state, options.clip_skip)?;
            if let Some(emphasis) = &emphasis {
                let weights: Vec<Vec<f32>> = chunks.iter().map(|chunks| chunks.weights[window].clone()).collect();
                context = apply_weights(context, &weights, emphasis);
            }
            contexts.push(context);
            // The pooled embedding is that of the first window.
            pooled = pooled.or(output.text_embeds);
        }
        let context = Tensor::cat(contexts, 1);
        let truncated = chunks.into_iter().map(|chunks| chunks.truncated.unwrap_or_default()).collect();
        Ok(TextEmbedding { context, pooled, truncated })
    }

    /// Returns how prompt weights are applied; `blank` is a window without text, for ComfyUI's interpolation.
    fn emphasis(&self, blank: &[u32], options: &TextOptions, state: State) -> Result<Emphasis, Error> {
        Ok(match options.weight_normalisation {
            WeightNormalisation::None => Emphasis::Plain,
            WeightNormalisation::Mean => Emphasis::MeanRestored,
            WeightNormalisation::Comfy => {
                let output = self.encoder.forward(&[blank.to_vec()]).map_err(model)?;
                Emphasis::FromEmpty(self.state(&output, state, options.clip_skip)?)
            }
        })
    }

    /// Returns the hidden state, as in diffusers: `clip_skip` counts back from the family's default state, and SDXL's
    /// has no final norm.
    fn state(&self, output: &ClipTextOutput, state: State, clip_skip: Option<usize>) -> Result<Tensor<3>, Error> {
        let skip = clip_skip.unwrap_or(0);
        match state {
            State::Last => self.encoder.skip_layers(output, skip).map_err(model),
            State::Penultimate => {
                let layers = self.encoder.layers();
                let layer = layers.checked_sub(skip.saturating_add(1)).ok_or_else(|| {
                    Error::settings("clip_skip", skip, format!("at most {}", layers - 1), "skip fewer layers")
                })?;
                Ok(output.hidden[layer].clone())
            }
        }
    }
}
