//! Interfaces of the networks that a pipeline runs: U-Net, autoencoder, text encoder, image encoder.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::Error;
use crate::attention::{AttnProcessor, AttnSite};

/// SDXL's additional conditioning, added to the time embedding.
#[derive(Debug, Clone)]
pub struct AddedConditions {
    /// Pooled text embedding `[rows, pooled_dim]`.
    pub pooled: Tensor<2>,
    /// Original height and width, crop top and left, target height and width: `[rows, 6]`.
    pub time_ids: Tensor<2>,
}

/// Residual feature maps that are added to the skip connections and the middle block (ControlNet, T2I-Adapter).
///
/// They cover all rows of the batch, or all except the reference rows ([`UNetInput::reference_rows`]).
#[derive(Debug, Clone, Default)]
pub struct Residuals {
    /// One per skip connection, in the order in which the down path produces them. Empty if there are none.
    pub down: Vec<Tensor<4>>,
    /// Added to the output of the middle block.
    pub mid: Option<Tensor<4>>,
    /// T2I-Adapter features, one per down block: added before the block's downsampler, or to the output of a
    /// block without attention. One more is added after the middle block.
    pub levels: Vec<Tensor<4>>,
}

impl Residuals {
    /// Returns the sum of two sets of residuals for the same network.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        // The operands may have different number types: cast the second to the type of the first.
        let sum = |one: Tensor<4>, two: Tensor<4>| {
            let two = if one.dtype() == two.dtype() { two } else { two.cast(one.dtype()) };
            one + two
        };
        let sums = |one: Vec<Tensor<4>>, two: Vec<Tensor<4>>| {
            let (mut long, short) = if one.len() < two.len() { (two, one) } else { (one, two) };
            for (at, more) in short.into_iter().enumerate() {
                long[at] = sum(long[at].clone(), more);
            }
            long
        };
        let mid = match (self.mid, other.mid) {
            (Some(one), Some(two)) => Some(sum(one, two)),
            (one, two) => one.or(two),
        };
        Self { down: sums(self.down, other.down), mid, levels: sums(self.levels, other.levels) }
    }
}

/// Selects what a forward pass records besides its prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Record {
    /// Nothing; the pass returns only the prediction.
    #[default]
    Nothing,
    /// Keys and values of every self-attention; the pass stops after the last of them and predicts nothing.
    SelfAttentionOnly,
}

/// KV cache of the cross-attention layers: keys and values of a context are the same at every step of a run, so
/// they are computed once.
#[derive(Debug, Default)]
pub struct TextKvCache(RefCell<HashMap<AttnSite, [Tensor<3>; 2]>>);

impl TextKvCache {
    /// Returns the keys and values of this layer, `[rows, tokens, channels]`; computes them with `make` on the
    /// first call.
    pub fn at(&self, site: AttnSite, make: impl FnOnce() -> [Tensor<3>; 2]) -> [Tensor<3>; 2] {
        if let Some(made) = self.0.borrow().get(&site) {
            return made.clone();
        }
        let made = make();
        self.0.borrow_mut().insert(site, made.clone());
        made
    }
}

/// The arguments of one U-Net pass.
#[derive(Debug, Clone)]
pub struct UNetInput<'a> {
    /// Latents `[rows, channels, height, width]`, of any size.
    pub sample: Tensor<4>,
    /// Timesteps: one for all rows, or one per row.
    pub timesteps: &'a [f64],
    /// Text embedding `[rows, tokens, context_dim]`.
    pub context: Tensor<3>,
    /// Cross-attention keys and values, cached across passes of the same network over the same context and rows.
    pub text_kv_cache: Option<&'a TextKvCache>,
    /// Additional conditioning, for networks that need it (SDXL).
    pub added: Option<AddedConditions>,
    /// Guidance scale, for networks that read it ([`UNetModel::reads_guidance_scale`]); others ignore it.
    pub guidance_scale: Option<f64>,
    /// Residuals of ControlNet or T2I-Adapter.
    pub residuals: Option<&'a Residuals>,
    /// Attention processor, which adds tokens to the attention layers.
    pub processor: &'a dyn AttnProcessor,
    /// Number of trailing rows that provide reference keys and values (FABRIC) and receive no prediction: they
    /// are dropped after the keys and values of the last self-attention.
    pub reference_rows: usize,
    /// What to record.
    pub record: Record,
}

impl<'a> UNetInput<'a> {
    /// Creates the arguments of a pass without processor, residuals or recording.
    pub fn new(sample: Tensor<4>, timesteps: &'a [f64], context: Tensor<3>) -> Self {
        Self {
            sample,
            timesteps,
            context,
            text_kv_cache: None,
            added: None,
            guidance_scale: None,
            residuals: None,
            processor: &crate::attention::NoProcessor,
            reference_rows: 0,
            record: Record::Nothing,
        }
    }
}

/// Keys and values of one self-attention layer, `[rows, tokens, channels]`, heads not split.
#[derive(Debug, Clone)]
pub struct RecordedTokens {
    /// The recorded layer.
    pub site: AttnSite,
    /// Height and width of the feature map whose pixels are the tokens.
    pub grid: [usize; 2],
    /// Projected keys.
    pub key: Tensor<3>,
    /// Projected values.
    pub value: Tensor<3>,
}

/// Address and sizes of a cross-attention layer of a U-Net, as adapters need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossAttention {
    /// The layer's address.
    pub site: AttnSite,
    /// Channels of its queries, keys and values, all heads together.
    pub channels: usize,
    /// Channels of the text embedding (context).
    pub context: usize,
}

/// Result of one U-Net pass.
#[derive(Debug, Clone)]
pub struct UNetOutput {
    /// Prediction `[rows - reference_rows, channels, height, width]`; `None` if the pass only recorded.
    pub sample: Option<Tensor<4>>,
    /// Recorded keys and values, in the order in which the layers run; empty unless requested.
    pub recorded: Vec<RecordedTokens>,
}

/// U-Net: predicts noise (or velocity, or the clean image), conditioned on text and on the tokens that processors
/// add.
pub trait UNetModel {
    /// Runs one forward pass.
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput;

    /// Returns the addresses of all attention layers, in the order in which they run.
    fn attention_sites(&self) -> Vec<AttnSite>;

    /// Returns the cross-attention layers with their sizes.
    fn cross_attentions(&self) -> Vec<CrossAttention>;

    /// Returns the channels of the skip connections, in the order in which the down path produces them: the
    /// shapes to which control networks add.
    fn skip_channels(&self) -> Vec<usize>;

    /// Returns the channels of the down blocks.
    fn level_channels(&self) -> Vec<usize>;

    /// Returns the number of down blocks (equal to that of up blocks): 4 for Stable Diffusion 1.5.
    fn levels(&self) -> usize;

    /// Returns the number of input channels: those of the latents, or for inpainting networks twice those plus
    /// one for the mask.
    fn in_channels(&self) -> usize;

    /// Whether the network reads the guidance scale ([`UNetInput::guidance_scale`]), as latent consistency models do: it
    /// was distilled with guidance, so that a run has no unconditional branch.
    fn reads_guidance_scale(&self) -> bool {
        false
    }

    /// Returns a lower estimate of the bytes that a pass over `[rows, height, width]` latents takes beside the
    /// weights; 0 if unknown.
    fn working_bytes(&self, shape: [usize; 3]) -> u64 {
        let _ = shape;
        0
    }

    /// Returns the device of the weights.
    fn device(&self) -> Device;
}

/// Selects the latents that an encoder returns: its distribution's mean, or a sample from given noise.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a tensor is a handle, and one of these lives for one call")]
pub enum Posterior {
    /// The mean of the distribution.
    Mean,
    /// A sample, `mean + std * noise`, with noise `[images, channels, height, width]`. For a single image, the
    /// noise may have several rows: one sample per row.
    Sample(Tensor<4>),
}

/// Autoencoder (VAE) between images and latents, including the model's scaling factor.
pub trait Autoencoder {
    /// Encodes pixels in [-1, 1], `[images, 3, height, width]`, to scaled latents, one row per image or sample.
    fn encode(&self, pixels: Tensor<4>, posterior: Posterior) -> Tensor<4>;

    /// Decodes scaled latents to pixels, approximately in [-1, 1].
    fn decode(&self, latents: Tensor<4>) -> Tensor<4>;

    /// Decodes like [`Self::decode`], but in f32; `None` if [`Self::decode`] computes in f32 already. Called for an image
    /// that was not finite: some networks overflow f16.
    fn decode_in_f32(&self, latents: Tensor<4>) -> Option<Tensor<4>> {
        let _ = latents;
        None
    }

    /// Returns the pixels per latent along each axis: 8 for Stable Diffusion.
    fn scale_factor(&self) -> usize;

    /// Returns the number of latent channels.
    fn latent_channels(&self) -> usize;

    /// Returns a lower estimate of the bytes that decoding one image of `[height, width]` latents takes beside
    /// the weights; 0 if unknown.
    fn working_bytes(&self, latents: [usize; 2]) -> u64 {
        let _ = latents;
        0
    }
}

/// Decoder of latents alone, for previews during a run: a small network such as the decoder of a tiny autoencoder.
pub trait LatentDecoder {
    /// Decodes latents, scaled as the U-Net uses them, to pixels, approximately in [-1, 1].
    fn decode(&self, latents: Tensor<4>) -> Tensor<4>;

    /// Returns the pixels per latent along each axis.
    fn scale_factor(&self) -> usize;

    /// Returns the number of latent channels.
    fn latent_channels(&self) -> usize;
}

/// Encoded prompts, as a U-Net takes them.
#[derive(Debug, Clone)]
pub struct TextEmbedding {
    /// Context for cross-attention, `[prompts, tokens, context_dim]`.
    pub context: Tensor<3>,
    /// Pooled text `[prompts, pooled_dim]`, for networks that need it (SDXL).
    pub pooled: Option<Tensor<2>>,
    /// The part of each prompt that did not fit the tokenizer window and was dropped; empty if nothing was.
    pub truncated: Vec<String>,
}

/// Normalisation of the embedding of a prompt with weights: the published rules, by name.
///
/// ```
/// use fabric_core::models::WeightNormalisation;
///
/// let rule: WeightNormalisation = "mean".parse()?;
/// assert_eq!((rule, rule.to_string().as_str()), (WeightNormalisation::Mean, "mean"));
/// # Ok::<(), fabric_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightNormalisation {
    /// Multiplies each token's embedding by its weight, without further normalisation (AUTOMATIC1111's "No
    /// norm").
    None,
    /// As [`Self::None`], then multiplies the embedding of the whole prompt by a factor that restores its mean
    /// (AUTOMATIC1111's "Original"). The factor is limited to 0.5 to 2, and is 1 if the weights change the sign
    /// of the mean.
    Mean,
    /// Scales each token's difference from the embedding of the empty prompt at the same position by the token's
    /// weight; no other token changes (ComfyUI).
    #[default]
    Comfy,
}

impl WeightNormalisation {
    const NAMES: [(Self, &'static str); 3] = [(Self::None, "none"), (Self::Mean, "mean"), (Self::Comfy, "comfy")];
}

impl std::fmt::Display for WeightNormalisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::NAMES.iter().find(|(rule, _)| rule == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl std::str::FromStr for WeightNormalisation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = Self::NAMES.iter().find(|(_, name)| *name == text).map(|(rule, _)| *rule);
        known.ok_or_else(|| {
            let names = Self::NAMES.map(|(_, name)| name).join(", ");
            Error::settings("text.weight_normalisation", format!("`{text}`"), names, "`comfy` is the default")
        })
    }
}

/// Options for reading prompts. The default is the published behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextOptions {
    /// Number of final text encoder layers to skip; `None` uses the model's own setting.
    pub clip_skip: Option<usize>,
    /// Splits a prompt that exceeds the tokenizer window into several windows instead of truncating it.
    pub long_prompts: bool,
    /// Parses `(word:1.2)` and `[word]` as weights instead of literal text.
    pub weights: bool,
    /// How weights are applied to the embedding.
    pub weight_normalisation: WeightNormalisation,
}

/// Text encoder: turns prompts into context for the U-Net's cross-attention.
pub trait TextEncoder {
    /// Encodes prompts into one batch with the same number of tokens each.
    ///
    /// # Errors
    ///
    /// Returns an error if a prompt or an option cannot be used.
    fn encode(&self, prompts: &[String], options: &TextOptions) -> Result<TextEmbedding, Error>;

    /// Returns the prompt without the words for which `keep` returns false. `keep` is called once per word, in
    /// order. Words are separated by white space and rejoined by single spaces. In a prompt with weights, the
    /// remaining words keep their weights.
    ///
    /// # Errors
    ///
    /// Returns an error if the prompt cannot be parsed under these options.
    fn without_words(
        &self,
        prompt: &str,
        options: &TextOptions,
        keep: &mut dyn FnMut() -> bool,
    ) -> Result<String, Error> {
        let _ = options;
        Ok(prompt.split_whitespace().filter(|_| keep()).collect::<Vec<_>>().join(" "))
    }

    /// Returns the last layer of the first text encoder, after the final layer norm,
    /// `[prompts, tokens, channels]`. IPAdapter-Instruct reads it; SDXL's U-Net attends to another layer.
    ///
    /// # Errors
    ///
    /// Returns an error like [`Self::encode`].
    fn last_hidden(&self, prompts: &[String], options: &TextOptions) -> Result<Tensor<3>, Error> {
        Ok(self.encode(prompts, options)?.context)
    }

    /// Returns whether an absent negative prompt means zeros (SDXL) instead of the empty prompt.
    fn force_zeros_for_empty_prompt(&self) -> bool {
        false
    }
}

/// Image encoder (CLIP): turns images into features.
pub trait ImageEncoder {
    /// Encodes preprocessed pixels `[images, 3, size, size]` to pooled, projected features
    /// `[images, feature_dim]`.
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2>;

    /// Encodes preprocessed pixels to the hidden states of the penultimate layer, `[images, tokens, hidden_dim]`.
    fn penultimate(&self, pixels: Tensor<4>) -> Tensor<3>;

    /// Returns the side of the square input images.
    fn image_size(&self) -> usize;

    /// Returns the device that holds the weights and takes the pixels.
    fn device(&self) -> Device;

    /// Returns whether the encoder projects pooled features. Without a projection, adapters of pooled features
    /// cannot use the result of [`Self::embed`].
    fn has_projection(&self) -> bool {
        true
    }
}

impl<T: ImageEncoder + ?Sized> ImageEncoder for Arc<T> {
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
        (**self).embed(pixels)
    }

    fn penultimate(&self, pixels: Tensor<4>) -> Tensor<3> {
        (**self).penultimate(pixels)
    }

    fn image_size(&self) -> usize {
        (**self).image_size()
    }

    fn device(&self) -> Device {
        (**self).device()
    }

    fn has_projection(&self) -> bool {
        (**self).has_projection()
    }
}
