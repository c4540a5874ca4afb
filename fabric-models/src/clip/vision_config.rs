use burn::tensor::Device;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::layer::LayerConfig;
use super::{ClipVision, whole_model};
use crate::config::{ConfigError, check_count, limits, parse};
use crate::layers::Activation;

const MODEL: &str = "CLIP image encoder";

/// Configuration of a `CLIPVisionModelWithProjection` (`config.json`), with the defaults of that class. The
/// configuration of a whole `CLIPModel` (`"model_type": "clip"`) is accepted too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct ClipVisionConfig {
    /// Model type, `clip_vision_model`.
    pub model_type: String,
    /// Width of a token.
    pub hidden_size: usize,
    /// Hidden width of the MLPs.
    pub intermediate_size: usize,
    /// Width of the projected features.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads of every attention layer.
    pub num_attention_heads: usize,
    /// Colour channels.
    pub num_channels: usize,
    /// Side of the square images.
    pub image_size: usize,
    /// Side of the square patches, one per token.
    pub patch_size: usize,
    /// Activation function of the MLPs.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

impl<'de> Deserialize<'de> for ClipVisionConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = whole_model::part(Map::<String, Value>::deserialize(deserializer)?, "vision_config");
        Self::deserialize(fields).map_err(D::Error::custom)
    }
}

impl Serialize for ClipVisionConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            model_type: "clip_vision_model".to_owned(),
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipVisionConfig {
    /// Returns the configuration of OpenCLIP's ViT-H/14: IP-Adapter for Stable Diffusion 1.5, and the plus models for
    /// SDXL.
    pub fn vit_h() -> Self {
        Self {
            hidden_size: 1280,
            intermediate_size: 5120,
            projection_dim: 1024,
            num_hidden_layers: 32,
            num_attention_heads: 16,
            patch_size: 14,
            hidden_act: Activation::Gelu,
            ..Self::default()
        }
    }

    /// Returns the configuration of OpenCLIP's ViT-bigG/14: the first IP-Adapter for SDXL.
    pub fn big_g() -> Self {
        Self {
            hidden_size: 1664,
            intermediate_size: 8192,
            projection_dim: 1280,
            num_hidden_layers: 48,
            num_attention_heads: 16,
            patch_size: 14,
            hidden_act: Activation::Gelu,
            ..Self::default()
        }
    }

    /// Parses and validates the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not a JSON object, or a field is invalid or not supported.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(MODEL, json)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks that a network can be built from this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.model_type != "clip_vision_model" {
            return Err(ConfigError::unsupported(MODEL, "model_type", &self.model_type, "clip_vision_model"));
        }
        check_count(MODEL, "projection_dim", self.projection_dim, limits::CHANNELS)?;
        check_count(MODEL, "image_size", self.image_size, 1 << 14)?;
        check_count(MODEL, "patch_size", self.patch_size, self.image_size)?;
        if self.num_channels != 3 {
            return Err(ConfigError::unsupported(MODEL, "num_channels", self.num_channels, "3"));
        }
        self.layer().check(MODEL, self.num_hidden_layers)
    }

    /// Builds the network with random weights, which are generated on first use.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`ClipVisionConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<ClipVision, ConfigError> {
        self.validate()?;
        Ok(ClipVision::new(self, device))
    }

    /// Returns the number of tokens: the patches of an image and the class token.
    pub(super) fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    pub(super) fn layer(&self) -> LayerConfig {
        LayerConfig {
            channels: self.hidden_size,
            hidden: self.intermediate_size,
            heads: self.num_attention_heads,
            epsilon: self.layer_norm_eps,
            act: self.hidden_act,
            causal: false,
        }
    }
}
