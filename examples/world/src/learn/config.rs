//! Configuration of the small networks and of the training stages.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::words;
use fabric::models::clip::{ClipTextConfig, ClipVisionConfig};
use fabric::models::layers::Activation;
use fabric::models::tiny_vae::TinyAutoencoderConfig;
use fabric::models::tokenizer::{ClipTokenizer, TokenizerConfig, TokenizerError};
use fabric::models::train::TrainSettings;
use fabric::models::unet::{DownBlockType as Down, UNetConfig, UpBlockType as Up};
use fabric::models::vae::{DecoderBlockType, EncoderBlockType, VaeConfig};

/// Training stages, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Readers of the world's factors, for evaluation of the others.
    Readers,
    /// Text encoder.
    Text,
    /// Image encoder.
    Clip,
    /// Autoencoder.
    Vae,
    /// Tiny autoencoder, for previews.
    TinyVae,
    /// U-Net.
    Unet,
}

/// Settings of a stage, as in its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Stage.
    pub stage: Stage,
    /// General training settings.
    pub training: TrainSettings,
    /// Options of this stage.
    #[serde(default)]
    pub options: StageOptions,
    /// Fields of the network's configuration that differ from [`WorldConfig::small`].
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub network: Map<String, Value>,
}

impl StageConfig {
    /// Returns the network's configuration with the changes of this stage.
    ///
    /// # Errors
    ///
    /// Returns an error if a field has another type than in the network's configuration.
    pub fn with_changes<C: Serialize + DeserializeOwned>(&self, network: &C) -> Result<C, serde_json::Error> {
        let mut fields = serde_json::to_value(network)?;
        if let Some(fields) = fields.as_object_mut() {
            fields.extend(self.network.clone());
        }
        serde_json::from_value(fields)
    }
}

/// Options of the individual stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageOptions {
    /// CLIP, VAE: freezes the part that the U-Net depends on (the text encoder, the VAE's encoder), so that the
    /// rest can be trained further after the U-Net.
    pub fixed: bool,
    /// VAE: weight of the KL divergence from a normal distribution.
    pub kl: f64,
    /// VAE, tiny VAE: weight of the error in differences between neighbouring pixels.
    pub edges: f64,
    /// VAE, tiny VAE: weight of the absolute error, whose gradient stays large where the squared error is small, so that
    /// flat areas become exactly flat.
    pub absolute: f64,
    /// VAE: side of crops around the things, which make up every second batch; 0 disables them.
    pub crop: usize,
    /// Readers: largest standard deviation of the noise added to every second image, for pixels in [-1, 1].
    pub noise: f64,
    /// U-Net: share of captions that are dropped, for classifier-free guidance.
    pub drop_captions: f64,
    /// U-Net: signal-to-noise ratio above which a noise level gets less weight (Hang et al. 2023); 0 disables
    /// the weighting.
    pub min_snr: f64,
    /// U-Net: smallest weight of a noise level. Without it, levels with almost no signal would have almost no
    /// weight, but they determine the layout.
    pub least_weight: f64,
    /// U-Net: factor on the loss weight of latents near the thing, at noise levels where its position is
    /// visible; 1 disables it. Most latents are background, which is learned quickly.
    pub focus: f64,
    /// U-Net: number of encoded images that batches are drawn from.
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

/// Configurations of the networks of this world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorldConfig {
    /// Text encoder, for the image encoder and for the U-Net.
    pub text: ClipTextConfig,
    /// Image encoder.
    pub vision: ClipVisionConfig,
    /// Autoencoder.
    pub vae: VaeConfig,
    /// Tiny autoencoder, distilled from the autoencoder.
    pub tiny_vae: TinyAutoencoderConfig,
    /// U-Net.
    pub unet: UNetConfig,
}

/// Tokenizer window, including the start and end tokens: the longest caption needs 30 tokens.
const WINDOW: usize = 40;

/// Returns the tokenizer of this world: each word of the vocabulary is one token.
///
/// # Errors
///
/// Returns an error if the vocabulary is invalid, which cannot happen, as the words are fixed.
pub fn world_tokenizer() -> Result<ClipTokenizer, TokenizerError> {
    ClipTokenizer::learned(&words(), &TokenizerConfig { model_max_length: WINDOW, ..TokenizerConfig::default() })
}

impl WorldConfig {
    /// Returns the small configuration, which can be trained on a CPU: 64x64 pixels, 16x16 latents of 4
    /// channels.
    ///
    /// # Errors
    ///
    /// Same as [`world_tokenizer`].
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
        // The decoder has most of the weights: previews do not need the encoder.
        let tiny_vae = TinyAutoencoderConfig {
            encoder_block_out_channels: vec![12; 3],
            decoder_block_out_channels: vec![32; 3],
            num_encoder_blocks: vec![1; 3],
            num_decoder_blocks: vec![2, 1, 1],
            ..TinyAutoencoderConfig::default()
        };
        let unet = UNetConfig {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![64, 128, 192],
            layers_per_block: 1.into(),
            // Attention at 16x16 would cost more than all other layers.
            down_block_types: vec![Down::DownBlock2D, Down::CrossAttnDownBlock2D, Down::CrossAttnDownBlock2D],
            up_block_types: vec![Up::CrossAttnUpBlock2D, Up::CrossAttnUpBlock2D, Up::UpBlock2D],
            cross_attention_dim: 128.into(),
            attention_head_dim: 4.into(),
            norm_num_groups: 16,
            sample_size: Some(16.into()),
            ..UNetConfig::sd15()
        };
        Ok(Self { text, vision, vae, tiny_vae, unet })
    }
}
