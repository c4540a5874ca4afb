use burn::tensor::Device;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::layer::LayerConfig;
use super::{ClipText, whole_model};
use crate::config::{ConfigError, check_count, limits, parse};
use crate::layers::Activation;

const MODEL: &str = "CLIP text encoder";
const WITH_PROJECTION: &str = "CLIPTextModelWithProjection";

/// Configuration of a `CLIPTextModel` or `CLIPTextModelWithProjection` (`config.json`), with the defaults of that
/// class. The configuration of a whole `CLIPModel` (`"model_type": "clip"`) is accepted too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, remote = "Self")]
pub struct ClipTextConfig {
    /// Published class; `CLIPTextModelWithProjection` has a projection of the pooled state.
    pub architectures: Vec<String>,
    /// Model type, `clip_text_model`.
    pub model_type: String,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Hidden width of the MLPs.
    pub intermediate_size: usize,
    /// Width of the projected pooled embedding.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads of every attention layer.
    pub num_attention_heads: usize,
    /// Maximum number of tokens of a prompt, including begin and end tokens.
    pub max_position_embeddings: usize,
    /// Activation function of the MLPs.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// Id of the end-of-text token, at whose position the prompt is pooled. 2 is a mistake in the published files and
    /// means "the first token with the highest id".
    pub eos_token_id: u32,
}

impl<'de> Deserialize<'de> for ClipTextConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = whole_model::part(Map::<String, Value>::deserialize(deserializer)?, "text_config");
        Self::deserialize(fields).map_err(D::Error::custom)
    }
}

impl Serialize for ClipTextConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            architectures: vec!["CLIPTextModel".to_owned()],
            model_type: "clip_text_model".to_owned(),
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

impl ClipTextConfig {
    /// Returns the configuration of OpenAI's ViT-L/14: Stable Diffusion 1.x, and the first encoder of SDXL.
    pub fn vit_l() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 768,
            num_attention_heads: 12,
            eos_token_id: 2,
            ..Self::default()
        }
    }

    /// Returns the configuration of OpenCLIP's ViT-H/14 without its last layer: Stable Diffusion 2.x.
    pub fn vit_h() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 23,
            num_attention_heads: 16,
            hidden_act: Activation::Gelu,
            eos_token_id: 2,
            ..Self::default()
        }
    }

    /// Returns the configuration of OpenCLIP's ViT-bigG/14: the second encoder of SDXL.
    pub fn big_g() -> Self {
        Self {
            architectures: vec![WITH_PROJECTION.to_owned()],
            hidden_size: 1280,
            intermediate_size: 5120,
            projection_dim: 1280,
            num_hidden_layers: 32,
            num_attention_heads: 20,
            hidden_act: Activation::Gelu,
            ..Self::default()
        }
    }

    /// Returns whether the pooled state is projected.
    pub fn has_projection(&self) -> bool {
        self.architectures.iter().any(|name| name == WITH_PROJECTION || name == whole_model::CLASS)
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
        if self.model_type != "clip_text_model" {
            return Err(ConfigError::unsupported(MODEL, "model_type", &self.model_type, "clip_text_model"));
        }
        check_count(MODEL, "vocab_size", self.vocab_size, limits::CHANNELS)?;
        check_count(MODEL, "max_position_embeddings", self.max_position_embeddings, limits::CHANNELS)?;
        check_count(MODEL, "projection_dim", self.projection_dim, limits::CHANNELS)?;
        self.layer().check(MODEL, self.num_hidden_layers)
    }

    /// Builds the network with random weights, which are generated on first use.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`ClipTextConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<ClipText, ConfigError> {
        self.validate()?;
        Ok(ClipText::new(self, device))
    }

    pub(super) fn layer(&self) -> LayerConfig {
        LayerConfig {
            channels: self.hidden_size,
            hidden: self.intermediate_size,
            heads: self.num_attention_heads,
            epsilon: self.layer_norm_eps,
            act: self.hidden_act,
            causal: true,
        }
    }
}
