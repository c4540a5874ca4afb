//! Configuration of a U-Net, as read from `config.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::OneOrMany;
use crate::layers::Activation;

pub(super) const MODEL: &str = "U-Net";

/// Class of a down block in the published configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum DownBlockType {
    DownBlock2D,
    CrossAttnDownBlock2D,
}

/// Class of an up block in the published configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum UpBlockType {
    UpBlock2D,
    CrossAttnUpBlock2D,
}

/// Class of the middle block in the published configurations: resnets with a transformer, or the single resnet of
/// distilled networks such as SSD-1B. Some networks have no middle block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum MidBlockType {
    UNetMidBlock2DCrossAttn,
    UNetMidBlock2D,
}

/// Type of the conditions that are added to the time embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionEmbedType {
    /// SDXL: pooled text embedding and image sizes.
    TextTime,
}

/// Number of layers per transformer: one value for all, or per level either one value or a list with one value per
/// transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "one value, a list with one value per level, or a list of lists")]
pub enum Depths {
    /// The same number in every transformer.
    Same(usize),
    /// One entry per level, from full resolution down.
    PerLevel(Vec<OneOrMany<usize>>),
}

/// Configuration of a `UNet2DConditionModel` (`config.json`), with the defaults of that class.
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
    /// Height and width of the training latents, if the file specifies them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<OneOrMany<usize>>,
    /// Channels of the input: 4, or 9 with a mask and the latents of a masked image.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether the input is mapped from [0, 1] to [-1, 1] first.
    pub center_input_sample: bool,
    /// Whether cosines come before sines in the time embedding.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies.
    pub freq_shift: f64,
    /// Down blocks, from full resolution down.
    pub down_block_types: Vec<DownBlockType>,
    /// Middle block, between the down path and the up path.
    pub mid_block_type: Option<MidBlockType>,
    /// Up blocks, from the lowest resolution up.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels per level.
    pub block_out_channels: Vec<usize>,
    /// Resnets per down block; up blocks have one more.
    pub layers_per_block: OneOrMany<usize>,
    /// Padding of the strided convolutions; 0 pads one row and one column, below and on the right only.
    pub downsample_padding: usize,
    /// Activation function of the resnets and the time embedding.
    pub act_fn: Activation,
    /// Number of groups of every group norm.
    pub norm_num_groups: usize,
    /// Epsilon of the resnets' norms; the norms before the transformers use 1e-6.
    pub norm_eps: f64,
    /// Width of the text embeddings.
    pub cross_attention_dim: OneOrMany<usize>,
    /// Layers per transformer.
    pub transformer_layers_per_block: Depths,
    /// Layers per transformer of the up path, from the lowest resolution; if absent, the down path mirrored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_transformer_layers_per_block: Option<Vec<OneOrMany<usize>>>,
    /// The NUMBER of heads, despite the name (a mistake in the format that all published files keep).
    pub attention_head_dim: OneOrMany<usize>,
    /// The number of heads in files that use the correct name; takes precedence over `attention_head_dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<OneOrMany<usize>>,
    /// Whether the transformers' input and output projections are linear layers instead of 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Whether attention is computed in f32 when the weights are half precision.
    #[serde(deserialize_with = "null_is_default")]
    pub upcast_attention: bool,
    /// Type of the added conditions; `None` in networks without.
    pub addition_embed_type: Option<AdditionEmbedType>,
    /// Width of the embedding of each time id.
    pub addition_time_embed_dim: Option<usize>,
    /// Width of the pooled text embedding and all embedded time ids together.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Width of the time embedding; if absent, four times the channels of the first level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_embedding_dim: Option<usize>,
    /// Width of the embedded guidance scale in latent consistency models; `None` in networks that read no such scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_cond_proj_dim: Option<usize>,
    /// Kernel size of the first convolution.
    pub conv_in_kernel: usize,
    /// Kernel size of the last convolution.
    pub conv_out_kernel: usize,
    /// All other fields. Settings that require unsupported layers are refused, the rest is kept for saving.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Deserializes `null` as `false`, as some files contain it.
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
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            other: BTreeMap::new(),
        }
    }
}

impl UNetConfig {
    /// Returns the configuration of Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Self { cross_attention_dim: OneOrMany::One(768), ..Self::default() }
    }

    /// Returns the configuration of Stable Diffusion 2.x (the 768-v model; 2.1-base does not set `upcast_attention`).
    pub fn sd21() -> Self {
        Self {
            cross_attention_dim: OneOrMany::One(1024),
            attention_head_dim: OneOrMany::Many(vec![5, 10, 20, 20]),
            use_linear_projection: true,
            upcast_attention: true,
            ..Self::default()
        }
    }

    /// Returns the configuration of Stable Diffusion XL base.
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
}
