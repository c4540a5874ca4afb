//! What a pipeline needs of its networks.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::tensor::{Device, Tensor};

use crate::Error;
use crate::attention::{AttnProcessor, AttnSite};

/// SDXL's second conditioning, added to the time embedding.
#[derive(Debug, Clone)]
pub struct AddedConditions {
    /// Pooled text `[rows, pooled_dim]`.
    pub pooled: Tensor<2>,
    /// Original height and width, crop top and left, target height and width: `[rows, 6]`.
    pub time_ids: Tensor<2>,
}

/// Feature maps added to the skip connections and the middle block (ControlNet, T2I-Adapter).
///
/// For all rows of the batch, or for all but those that only lend their keys and values.
#[derive(Debug, Clone, Default)]
pub struct Residuals {
    /// One per skip connection, in the order in which the down path makes them. Empty = none.
    pub down: Vec<Tensor<4>>,
    /// Added after the middle block.
    pub mid: Option<Tensor<4>>,
    /// One per down block, added before it halves the size, or behind a block without attention; one more is added after
    /// the middle block (T2I-Adapter).
    pub levels: Vec<Tensor<4>>,
}

impl Residuals {
    /// The sum of two, which are for the same network.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        // Networks of different number types: the first one's counts.
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

/// What a forward pass should bring back besides its prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Record {
    /// Only the prediction.
    #[default]
    Nothing,
    /// Keys and values of every self-attention; the pass stops after the last of them and predicts nothing.
    SelfAttentionOnly,
}

/// Keys and values that a network's cross-attentions made of a context: the same at every step of a run, so they are made
/// once.
#[derive(Debug, Default)]
pub struct TextKvCache(RefCell<HashMap<AttnSite, [Tensor<3>; 2]>>);

impl TextKvCache {
    /// Keys and values of this layer, `[rows, tokens, channels]`, made now if they have not been made before.
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
    /// `[rows, channels, height, width]`, of any size.
    pub sample: Tensor<4>,
    /// One for all rows, or one per row.
    pub timesteps: &'a [f64],
    /// Text `[rows, tokens, context_dim]`.
    pub context: Tensor<3>,
    /// What earlier passes of the same network over the same context and rows left here.
    pub text_kv_cache: Option<&'a TextKvCache>,
    /// For networks that want it (SDXL).
    pub added: Option<AddedConditions>,
    /// For ControlNet and its like.
    pub residuals: Option<&'a Residuals>,
    /// What steers the attention layers.
    pub processor: &'a dyn AttnProcessor,
    /// So many rows at the end of the batch only lend their keys and values to the others (FABRIC's
    /// references): they are dropped after the last self-attention's keys and values, and not predicted.
    pub reference_rows: usize,
    /// What to bring back.
    pub record: Record,
}

impl<'a> UNetInput<'a> {
    /// A plain pass.
    pub fn new(sample: Tensor<4>, timesteps: &'a [f64], context: Tensor<3>) -> Self {
        Self {
            sample,
            timesteps,
            context,
            text_kv_cache: None,
            added: None,
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
    /// Where they were recorded.
    pub site: AttnSite,
    /// Height and width of the feature map whose pixels are the tokens.
    pub grid: [usize; 2],
    /// Projected keys.
    pub key: Tensor<3>,
    /// Projected values.
    pub value: Tensor<3>,
}

/// A cross-attention layer of a U-Net, as adapters need to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossAttention {
    /// Which layer.
    pub site: AttnSite,
    /// Channels of its queries, keys and values, all heads together.
    pub channels: usize,
    /// Channels of the text that it reads.
    pub context: usize,
}

/// What one U-Net pass returns.
#[derive(Debug, Clone)]
pub struct UNetOutput {
    /// `[rows - reference_rows, channels, height, width]`; absent when the pass only recorded.
    pub sample: Option<Tensor<4>>,
    /// In the order in which the layers run; empty unless asked for.
    pub recorded: Vec<RecordedTokens>,
}

/// A U-Net: predicts noise (or velocity, or the image) under text and what processors add.
pub trait UNetModel {
    /// One pass.
    fn forward(&self, input: UNetInput<'_>) -> UNetOutput;

    /// Every attention layer, in the order in which they run.
    fn attention_sites(&self) -> Vec<AttnSite>;

    /// The cross-attention layers among them, with their sizes.
    fn cross_attentions(&self) -> Vec<CrossAttention>;

    /// Channels of the skip connections, in the order in which the way down makes them: what control networks add to.
    fn skip_channels(&self) -> Vec<usize>;

    /// Channels of the down blocks.
    fn level_channels(&self) -> Vec<usize>;

    /// Down blocks (and up blocks) of the network: 4 for Stable Diffusion 1.5.
    fn levels(&self) -> usize;

    /// Channels of its input: those of the latents, or for inpainting networks those twice and a mask.
    fn in_channels(&self) -> usize;

    /// Bytes that a pass over `[rows, height, width]` latents takes beside the weights, estimated from below; 0 is
    /// unknown.
    fn working_bytes(&self, shape: [usize; 3]) -> u64 {
        let _ = shape;
        0
    }

    /// Where its weights live.
    fn device(&self) -> Device;
}

/// Which latents an encoder returns: its distribution's mean, or a sample made with given noise.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a tensor is a handle, and one of these lives for one call")]
pub enum Posterior {
    /// The most likely latents.
    Mean,
    /// `mean + std * noise`, noise `[images, channels, height, width]`; with one image, noise for as many samples of it as
    /// are wanted.
    Sample(Tensor<4>),
}

/// Between images and latents (a VAE), including the model's scaling factor.
pub trait Autoencoder {
    /// Pixels in [-1, 1] `[images, 3, height, width]` to scaled latents, one row for each image or sample.
    fn encode(&self, pixels: Tensor<4>, posterior: Posterior) -> Tensor<4>;

    /// Scaled latents to pixels, about [-1, 1].
    fn decode(&self, latents: Tensor<4>) -> Tensor<4>;

    /// Pixels per latent along each axis: 8 for Stable Diffusion.
    fn scale_factor(&self) -> usize;

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// Bytes that decoding one image of these many latents, `[height, width]`, takes beside the weights, estimated
    /// from below; 0 is unknown.
    fn working_bytes(&self, latents: [usize; 2]) -> u64 {
        let _ = latents;
        0
    }
}

/// Text as a U-Net wants it.
#[derive(Debug, Clone)]
pub struct TextEmbedding {
    /// `[prompts, tokens, context_dim]`.
    pub context: Tensor<3>,
    /// `[prompts, pooled_dim]`, for networks that want it (SDXL).
    pub pooled: Option<Tensor<2>>,
    /// Per prompt, what did not fit the encoder's window and was left out; empty where nothing was.
    pub truncated: Vec<String>,
}

/// What keeps a weighted prompt in the range that the U-Net knows: the published rules, by name.
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
    /// A token's encoding is multiplied by its weight, and nothing else happens (AUTOMATIC1111's "No norm").
    None,
    /// Then the prompt as a whole is multiplied by a factor that restores its mean (AUTOMATIC1111's "Original"). The factor stays
    /// within 0.5 and 2, and is 1 where the weights change the mean's sign.
    Mean,
    /// A token's encoding moves away from the encoding that the empty prompt has at its place, and the others stay as
    /// they are (ComfyUI).
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

/// How prompts are read. The default is the published behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextOptions {
    /// Layers to leave out at the end of the text encoder; none is the model's own choice.
    pub clip_skip: Option<usize>,
    /// Reads a prompt that is longer than the encoder's window in several windows, instead of cutting it off.
    pub long_prompts: bool,
    /// Reads `(word:1.2)` and `[word]` as weights, instead of as they are written.
    pub weights: bool,
    /// How weights act.
    pub weight_normalisation: WeightNormalisation,
}

/// Turns prompts into what the U-Net attends to.
pub trait TextEncoder {
    /// Encodes prompts into one batch of equal length.
    ///
    /// # Errors
    ///
    /// When a prompt or an option cannot be used.
    fn encode(&self, prompts: &[String], options: &TextOptions) -> Result<TextEmbedding, Error>;

    /// The prompt without those of its words for which `keep`, asked once for each in their order, says false: what white space
    /// parts, joined by single spaces. What is left of a prompt with weights has the weights that it had.
    ///
    /// # Errors
    ///
    /// When the prompt cannot be read under these options.
    fn without_words(
        &self,
        prompt: &str,
        options: &TextOptions,
        keep: &mut dyn FnMut() -> bool,
    ) -> Result<String, Error> {
        let _ = options;
        Ok(prompt.split_whitespace().filter(|_| keep()).collect::<Vec<_>>().join(" "))
    }

    /// The last layer of the first text encoder, normed, `[prompts, tokens, channels]`: what IPAdapter-Instruct reads, which is
    /// not what SDXL's U-Net attends to.
    ///
    /// # Errors
    ///
    /// As [`Self::encode`].
    fn last_hidden(&self, prompts: &[String], options: &TextOptions) -> Result<Tensor<3>, Error> {
        Ok(self.encode(prompts, options)?.context)
    }

    /// Whether an absent negative prompt means zeros (SDXL) instead of the empty prompt.
    fn absent_is_zero(&self) -> bool {
        false
    }
}

/// Turns images into features (a CLIP image encoder).
pub trait ImageEncoder {
    /// Preprocessed pixels `[images, 3, size, size]` to pooled, projected features `[images, feature_dim]`.
    fn embed(&self, pixels: Tensor<4>) -> Tensor<2>;

    /// Preprocessed pixels to the tokens of the last layer but one, `[images, tokens, hidden_dim]`.
    fn penultimate(&self, pixels: Tensor<4>) -> Tensor<3>;

    /// Side of the square images it takes.
    fn image_size(&self) -> usize;

    /// Whether it projects pooled features; without, [`Self::embed`] gives what adapters of pooled features do not read.
    fn has_projection(&self) -> bool {
        true
    }
}
