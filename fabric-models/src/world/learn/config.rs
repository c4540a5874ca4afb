//! The small networks, and the settings of each stage.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::words;
use crate::clip::{ClipTextConfig, ClipVisionConfig};
use crate::layers::Activation;
use crate::tokenizer::{ClipTokenizer, TokenizerConfig, TokenizerError};
use crate::train::TrainSettings;
use crate::unet::{DownBlockType as Down, UNetConfig, UpBlockType as Up};
use crate::vae::{DecoderBlockType, EncoderBlockType, VaeConfig};

/// What is trained, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Readers of the world's factors, which measure the others.
    Readers,
    /// Text encoder.
    Text,
    /// Image encoder.
    Clip,
    /// Images to latents and back.
    Vae,
    /// Latents from text.
    Unet,
}

/// A stage's settings, as its file says them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Which stage.
    pub stage: Stage,
    /// How it is trained.
    pub training: TrainSettings,
    /// What is special about the stage.
    #[serde(default)]
    pub options: StageOptions,
    /// Fields of the stage's network that differ from [`WorldConfig::small`].
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub network: Map<String, Value>,
}

impl StageConfig {
    /// The network's configuration with this stage's changes.
    ///
    /// # Errors
    ///
    /// When a field has another type than the network's.
    pub fn with_changes<C: Serialize + DeserializeOwned>(&self, network: &C) -> Result<C, serde_json::Error> {
        let mut fields = serde_json::to_value(network)?;
        if let Some(fields) = fields.as_object_mut() {
            fields.extend(self.network.clone());
        }
        serde_json::from_value(fields)
    }
}

/// What one stage or another needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageOptions {
    /// CLIP, VAE: leaves what the U-Net learns from as it is (the text encoder, the VAE's encoder), so that the rest can
    /// go on learning after it.
    pub fixed: bool,
    /// VAE: weight of the divergence from a normal distribution.
    pub kl: f64,
    /// VAE: weight of differences between neighbouring pixels.
    pub edges: f64,
    /// VAE: weight of the absolute difference, which still pulls where the squared one has become small: flat areas become
    /// exactly flat.
    pub absolute: f64,
    /// VAE: side of cut-outs around the things, of which every second batch consists; 0 is none.
    pub crop: usize,
    /// Readers: largest standard deviation of the noise that every second image carries, of pixels in [-1, 1].
    pub noise: f64,
    /// U-Net: share of captions that are left out, for guidance.
    pub drop_captions: f64,
    /// U-Net: signal-to-noise ratio beyond which a level counts less (Hang et al. 2023); 0 is no such weighting.
    pub min_snr: f64,
    /// U-Net: weight below which no level falls. Without it, levels of hardly any signal would count for nothing, and
    /// there it is decided what lies where.
    pub least_weight: f64,
    /// U-Net: how many times latents near the thing count, at levels where its place shows; 1 is as others. Most latents
    /// are background, which is soon learned.
    pub focus: f64,
    /// U-Net: encoded images that batches draw from.
    pub pool: usize,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            fixed: false,
            kl: 1e-6,
            edges: 0.5,
            absolute: 0.0,
            crop: 0,
            noise: 0.0,
            drop_captions: 0.1,
            min_snr: 5.0,
            least_weight: 0.0,
            focus: 1.0,
            pool: 100_000,
        }
    }
}

/// The networks of the small world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorldConfig {
    /// Reads captions, for the image encoder and for the U-Net.
    pub text: ClipTextConfig,
    /// Sees images.
    pub vision: ClipVisionConfig,
    /// Between images and latents.
    pub vae: VaeConfig,
    /// Makes latents.
    pub unet: UNetConfig,
}

/// Tokens of a caption, markers included: the longest needs 30.
const WINDOW: usize = 40;

/// The tokenizer of this world: each of its words is one token.
///
/// # Errors
///
/// Never, as the words are fixed.
pub fn world_tokenizer() -> Result<ClipTokenizer, TokenizerError> {
    ClipTokenizer::learned(&words(), &TokenizerConfig { model_max_length: WINDOW, ..TokenizerConfig::default() })
}

impl WorldConfig {
    /// Small enough to be trained on a CPU: 64x64 pixels, 16x16 latents of 4 channels.
    ///
    /// # Errors
    ///
    /// As [`world_tokenizer`].
    pub fn small() -> Result<Self, TokenizerError> {
        let tokenizer = world_tokenizer()?;
        let text = ClipTextConfig {
            architectures: vec!["CLIPTextModelWithProjection".to_owned()],
            vocab_size: tokenizer.vocabulary_size(),
            hidden_size: 128,
            intermediate_size: 512,
            projection_dim: 128,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            max_position_embeddings: WINDOW,
            eos_token_id: tokenizer.eos(),
            ..ClipTextConfig::default()
        };
        let vision = ClipVisionConfig {
            hidden_size: 192,
            intermediate_size: 768,
            projection_dim: 128,
            num_hidden_layers: 4,
            num_attention_heads: 6,
            image_size: 64,
            patch_size: 8,
            hidden_act: Activation::Gelu,
            ..ClipVisionConfig::default()
        };
        let vae = VaeConfig {
            block_out_channels: vec![24, 48, 96],
            down_block_types: vec![EncoderBlockType::DownEncoderBlock2D; 3],
            up_block_types: vec![DecoderBlockType::UpDecoderBlock2D; 3],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 8,
            sample_size: 64.into(),
            scaling_factor: 1.0,
            mid_block_add_attention: false,
            ..VaeConfig::default()
        };
        let unet = UNetConfig {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![64, 128, 192],
            layers_per_block: 1.into(),
            // Attention at 16x16 would cost more than everything else.
            down_block_types: vec![Down::DownBlock2D, Down::CrossAttnDownBlock2D, Down::CrossAttnDownBlock2D],
            up_block_types: vec![Up::CrossAttnUpBlock2D, Up::CrossAttnUpBlock2D, Up::UpBlock2D],
            cross_attention_dim: 128.into(),
            attention_head_dim: 4.into(),
            norm_num_groups: 16,
            sample_size: Some(16.into()),
            ..UNetConfig::sd15()
        };
        Ok(Self { text, vision, vae, unet })
    }
}
