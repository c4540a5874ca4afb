//! CLIP's text encoder.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::ClipTextConfig;
use super::layer::ClipLayer;
use crate::layers::{Embedding, LayerNorm, Linear};

/// Incorrect end-of-text id in published files, which selects the legacy pooling rule.
const LEGACY_EOS: u32 = 2;

/// CLIP text encoder: a causal transformer over the tokens of a prompt.
#[derive(Module, Debug)]
pub struct ClipText {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos_token_id: u32,
}

/// Output of the text encoder for a batch of prompts.
#[derive(Debug, Clone)]
pub struct ClipTextOutput {
    /// Token embeddings followed by the hidden state after each layer, `[prompts, tokens, channels]`, without the
    /// final norm.
    pub hidden: Vec<Tensor<3>>,
    /// The last hidden state after the final norm, used by Stable Diffusion 1 and 2.
    pub last_hidden_state: Tensor<3>,
    /// The final-norm hidden state at the end-of-text token, `[prompts, channels]`.
    pub pooled: Tensor<2>,
    /// Projection of `pooled`, `[prompts, projection_dim]`, in encoders with a projection (SDXL's second).
    pub text_embeds: Option<Tensor<2>>,
}

/// Error while encoding prompts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClipTextError {
    /// The batch or its prompts are empty.
    #[error("no tokens to encode: give at least one prompt with its begin and end markers")]
    Empty,
    /// The prompts of a batch differ in length.
    #[error("prompt {prompt} has {got} tokens, the first has {expected}: pad all prompts to one length")]
    Ragged {
        /// Index of the prompt, from 0.
        prompt: usize,
        /// Number of tokens of the prompt.
        got: usize,
        /// Number of tokens of the first prompt.
        expected: usize,
    },
    /// A prompt is longer than the maximum of the encoder.
    #[error("a prompt has {got} tokens, this encoder takes {most}: truncate it, or encode it in windows")]
    TooLong {
        /// Number of tokens of the prompt.
        got: usize,
        /// Maximum number of tokens.
        most: usize,
    },
    /// A token id is not in the encoder's vocabulary.
    #[error(
        "token {id} of prompt {prompt} is beyond this encoder's vocabulary of {vocabulary}: use the tokenizer of the same model folder"
    )]
    Unknown {
        /// Index of the prompt, from 0.
        prompt: usize,
        /// The token id.
        id: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// `clip_skip` is greater than the number of layers.
    #[error("clip_skip {got}: this encoder has {layers} layers; skip at most so many")]
    Skip {
        /// The requested number of layers to skip.
        got: usize,
        /// Number of layers of the encoder.
        layers: usize,
    },
}

impl ClipText {
    pub(super) fn new(config: &ClipTextConfig, device: &Device) -> Self {
        let channels = config.hidden_size;
        let layer = config.layer();
        Self {
            token_embedding: Embedding::new(config.vocab_size, channels, device),
            position_embedding: Embedding::new(config.max_position_embeddings, channels, device),
            layers: (0..config.num_hidden_layers).map(|_| layer.init(device)).collect(),
            final_layer_norm: LayerNorm::new(channels, config.layer_norm_eps, device),
            text_projection: config
                .has_projection()
                .then(|| Linear::new(channels, config.projection_dim, false, device)),
            eos_token_id: config.eos_token_id,
        }
    }

    /// Encodes prompts of equal length, including begin and end tokens and padding.
    ///
    /// There is no padding mask: Stable Diffusion was trained to attend to the padding.
    ///
    /// # Errors
    ///
    /// Returns an error if prompts are empty, of different lengths or too long, or if a token id is not in the
    /// vocabulary.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Result<ClipTextOutput, ClipTextError> {
        let mut x = self.embed(ids)?;
        let mut hidden = vec![x.clone()];
        for layer in &self.layers {
            x = layer.forward(x);
            hidden.push(x.clone());
        }
        let last_hidden_state = self.final_layer_norm.forward(x);
        let pooled = self.pool(ids, &last_hidden_state);
        let text_embeds = self.text_projection.as_ref().map(|proj| proj.forward(pooled.clone()));
        Ok(ClipTextOutput { hidden, last_hidden_state, pooled, text_embeds })
    }

    /// Returns the hidden state `skip` layers before the last, after the final norm (diffusers' `clip_skip`); 0
    /// returns [`ClipTextOutput::last_hidden_state`].
    ///
    /// # Errors
    ///
    /// Returns an error if `skip` is greater than the number of layers.
    pub fn skip_layers(&self, output: &ClipTextOutput, skip: usize) -> Result<Tensor<3>, ClipTextError> {
        let layers = self.layers.len();
        match layers.checked_sub(skip) {
            Some(layer) => Ok(self.final_layer_norm.forward(output.hidden[layer].clone())),
            None => Err(ClipTextError::Skip { got: skip, layers }),
        }
    }

    /// Returns the maximum number of tokens of a prompt, including begin and end tokens: 77.
    pub fn max_tokens(&self) -> usize {
        self.position_embedding.weight.lazy_shape()[0]
    }

    /// Returns the number of layers of the encoder.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Returns the number of channels of a token.
    pub(crate) fn channels(&self) -> usize {
        self.token_embedding.weight.lazy_shape()[1]
    }

    /// Returns the number of channels of the projected pooled embedding, in encoders with a projection.
    pub(crate) fn projection(&self) -> Option<usize> {
        self.text_projection.as_ref().map(|projection| projection.weight.lazy_shape()[0])
    }

    fn embed(&self, ids: &[Vec<u32>]) -> Result<Tensor<3>, ClipTextError> {
        let tokens = ids.first().map_or(0, Vec::len);
        if tokens == 0 {
            return Err(ClipTextError::Empty);
        }
        if tokens > self.max_tokens() {
            return Err(ClipTextError::TooLong { got: tokens, most: self.max_tokens() });
        }
        let vocabulary = self.token_embedding.weight.lazy_shape()[0];
        for (prompt, row) in ids.iter().enumerate() {
            if row.len() != tokens {
                return Err(ClipTextError::Ragged { prompt, got: row.len(), expected: tokens });
            }
            if let Some(&id) = row.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(ClipTextError::Unknown { prompt, id, vocabulary });
            }
        }
        let device = self.token_embedding.weight.lazy_device();
        let flat: Vec<i64> = ids.iter().flatten().map(|&id| i64::from(id)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(flat, [ids.len(), tokens]), &device);
        let positions = Tensor::<1, Int>::arange(0..tokens as i64, &device).unsqueeze::<2>();
        Ok(self.token_embedding.forward(ids) + self.position_embedding.forward(positions))
    }

    /// Returns the hidden state at the end of each prompt.
    fn pool(&self, ids: &[Vec<u32>], states: &Tensor<3>) -> Tensor<2> {
        let [_, _, channels] = states.dims();
        let rows = ids.iter().enumerate().map(|(row, ids)| {
            let at = end_of_prompt(ids, self.eos_token_id);
            states.clone().slice([row..row + 1, at..at + 1]).reshape([1, channels])
        });
        Tensor::cat(rows.collect(), 0)
    }
}

/// Returns the position where a prompt ends: the first end-of-text token, or by the legacy rule the first token with
/// the highest id. Without an end-of-text token it is the first token, as in transformers.
fn end_of_prompt(ids: &[u32], eos: u32) -> usize {
    let marker = if eos == LEGACY_EOS { ids.iter().copied().max().unwrap_or(eos) } else { eos };
    ids.iter().position(|&id| id == marker).unwrap_or(0)
}
