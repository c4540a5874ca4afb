//! `config.json` of a U-Net.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::UNet;
use super::plan::Plan;
use crate::config::{ConfigError, OneOrMany, parse};
use crate::layers::Activation;

pub(super) const MODEL: &str = "U-Net";

/// A down block of the published configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum DownBlockType {
    DownBlock2D,
    CrossAttnDownBlock2D,
}

/// An up block of the published configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum UpBlockType {
    UpBlock2D,
    CrossAttnUpBlock2D,
}

/// The middle block of the published configurations: with a transformer, or the one resnet of distilled networks such as
/// SSD-1B; others have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum MidBlockType {
    UNetMidBlock2DCrossAttn,
    UNetMidBlock2D,
}

/// A second conditioning that is added to the time embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionEmbedType {
    /// SDXL: pooled text and image sizes.
    TextTime,
}

/// Transformer layers: the same everywhere, or per level the same after every resnet, or listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "one value, a list with one value per level, or a list of lists")]
pub enum Depths {
    /// The same everywhere.
    Same(usize),
    /// One entry per level, from full resolution down.
    PerLevel(Vec<OneOrMany<usize>>),
}

/// `config.json` of a `UNet2DConditionModel`, with the defaults of its class.
///
/// ```
/// use fabric_models::unet::UNetConfig;
/// let config = UNetConfig::from_json(r#"{"cross_attention_dim": 768, "attention_head_dim": 8}"#)?;
/// assert_eq!(config, UNetConfig::sd15());
/// # Ok::<(), fabric_models::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNetConfig {
    /// Height and width of the latents it was trained on, where the file tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<OneOrMany<usize>>,
    /// Channels of its input: 4, or 9 with a mask and a masked image.
    pub in_channels: usize,
    /// Channels of its prediction.
    pub out_channels: usize,
    /// Whether the input is shifted to [-1, 1] first.
    pub center_input_sample: bool,
    /// Whether cosines come before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies.
    pub freq_shift: f64,
    /// From full resolution down.
    pub down_block_types: Vec<DownBlockType>,
    /// Between the way down and the way up.
    pub mid_block_type: Option<MidBlockType>,
    /// From the lowest resolution up.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels per level.
    pub block_out_channels: Vec<usize>,
    /// Resnets per down block; up blocks have one more.
    pub layers_per_block: OneOrMany<usize>,
    /// Zeros around the input of the strided convolutions; 0 pads below and on the right only.
    pub downsample_padding: usize,
    /// Nonlinearity of resnets and time embedding.
    pub act_fn: Activation,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Epsilon of the resnets' norms; those before the transformers have 1e-6.
    pub norm_eps: f64,
    /// Width of the text.
    pub cross_attention_dim: OneOrMany<usize>,
    /// Transformer layers per level.
    pub transformer_layers_per_block: Depths,
    /// The same for the way up, from the lowest resolution; absent = mirrored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_transformer_layers_per_block: Option<Vec<OneOrMany<usize>>>,
    /// The NUMBER of heads, in spite of its name (an old mistake of the format, kept by all published files).
    pub attention_head_dim: OneOrMany<usize>,
    /// The number of heads, where a file says so by its proper name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<OneOrMany<usize>>,
    /// Whether the transformers are entered by a linear layer instead of a 1x1 convolution.
    pub use_linear_projection: bool,
    /// Whether attention is computed in f32 when the weights are half precision.
    #[serde(deserialize_with = "null_is_default")]
    pub upcast_attention: bool,
    /// A second conditioning.
    pub addition_embed_type: Option<AdditionEmbedType>,
    /// Width of the embedding of each time id.
    pub addition_time_embed_dim: Option<usize>,
    /// Width of the pooled text and all time ids together.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Width of the time embedding; absent = four times the first level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_embedding_dim: Option<usize>,
    /// Side of the first convolution.
    pub conv_in_kernel: usize,
    /// Side of the last convolution.
    pub conv_out_kernel: usize,
    /// What else the file says. Settings that ask for other layers are refused, the rest is kept for saving.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Some files write `null` for `false`.
fn null_is_default<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Option::<bool>::deserialize(value).map(Option::unwrap_or_default)
}

impl Default for UNetConfig {
    fn default() -> Self {
        use DownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlockType::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            mid_block_type: Some(MidBlockType::UNetMidBlock2DCrossAttn),
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrMany::One(2),
            downsample_padding: 1,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: OneOrMany::One(1280),
            transformer_layers_per_block: Depths::Same(1),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: OneOrMany::One(8),
            num_attention_heads: None,
            use_linear_projection: false,
            upcast_attention: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            time_embedding_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            other: BTreeMap::new(),
        }
    }
}

impl UNetConfig {
    /// Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Self { cross_attention_dim: OneOrMany::One(768), ..Self::default() }
    }

    /// Stable Diffusion 2.x (the 768-v model; 2.1-base does without `upcast_attention`).
    pub fn sd21() -> Self {
        Self {
            cross_attention_dim: OneOrMany::One(1024),
            attention_head_dim: OneOrMany::Many(vec![5, 10, 20, 20]),
            use_linear_projection: true,
            upcast_attention: true,
            ..Self::default()
        }
    }

    /// Stable Diffusion XL base.
    pub fn sdxl() -> Self {
        use DownBlockType::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlockType::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            down_block_types: vec![DownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D],
            up_block_types: vec![CrossAttnUpBlock2D, CrossAttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![320, 640, 1280],
            cross_attention_dim: OneOrMany::One(2048),
            transformer_layers_per_block: Depths::PerLevel([1, 2, 10].map(OneOrMany::One).to_vec()),
            attention_head_dim: OneOrMany::Many(vec![5, 10, 20]),
            use_linear_projection: true,
            addition_embed_type: Some(AdditionEmbedType::TextTime),
            addition_time_embed_dim: Some(256),
            projection_class_embeddings_input_dim: Some(2816),
            ..Self::default()
        }
    }

    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// When it is no JSON, or a field has a value that is wrong or not supported.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(MODEL, json)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks that a network can be built.
    ///
    /// # Errors
    ///
    /// When a field has a value that is wrong or not supported; fields are named as in the file.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Plan::new(self).map(|_| ())
    }

    /// Builds the network; weights are random, and drawn when first used.
    ///
    /// # Errors
    ///
    /// As [`UNetConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<UNet, ConfigError> {
        Ok(UNet::new(self, &Plan::new(self)?, device))
    }
}
