//! `config.json` of a ControlNet.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::ControlNet;
use crate::config::{ConfigError, OneOrMany, brief, check_count, limits, parse};
use crate::unet::{Plan, UNetConfig, UpBlockType};

const MODEL: &str = "ControlNet";

/// The order in which a network reads the colours of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// `config.json` of a `ControlNetModel`, with the defaults of its class.
///
/// ```
/// use fabric_models::control::ControlNetConfig;
/// let config = ControlNetConfig::from_json(r#"{"cross_attention_dim": 768}"#)?;
/// assert_eq!(config, ControlNetConfig::sd15());
/// # Ok::<(), fabric_models::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlNetConfig {
    /// Channels of its image.
    pub conditioning_channels: usize,
    /// Channels of the layers that bring the image to the latents' size; each but the first halves it.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// Of the image.
    pub controlnet_conditioning_channel_order: ChannelOrder,
    /// Whether it says the same of all places (the shuffle network); it then runs under the prompt alone.
    pub global_pool_conditions: bool,
    /// The way down and the middle, which are a U-Net's.
    #[serde(flatten)]
    pub network: UNetConfig,
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        Self {
            conditioning_channels: 3,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            controlnet_conditioning_channel_order: ChannelOrder::Rgb,
            global_pool_conditions: false,
            network: UNetConfig::default(),
        }
    }
}

impl ControlNetConfig {
    /// For Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Self { network: UNetConfig::sd15(), ..Self::default() }
    }

    /// For Stable Diffusion XL.
    pub fn sdxl() -> Self {
        Self { network: UNetConfig::sdxl(), ..Self::default() }
    }

    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// When it is no JSON, or a field has a value that is wrong or not supported.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(MODEL, json)?;
        config.plan()?;
        Ok(config)
    }

    /// Builds the network; weights are random, and drawn when first used.
    ///
    /// # Errors
    ///
    /// When a field has a value that is wrong or not supported.
    pub fn init(&self, device: &Device) -> Result<ControlNet, ConfigError> {
        let (network, plan) = self.plan()?;
        Ok(ControlNet::new(self, &network, &plan, device))
    }

    /// The checked plan of a U-Net with this way down.
    fn plan(&self) -> Result<(UNetConfig, Plan), ConfigError> {
        let mut network = self.network.clone();
        if let Some(class) = network.other.remove("_class_name").filter(|class| *class != "ControlNetModel") {
            return Err(ConfigError::unsupported(MODEL, "_class_name", brief(&class), "\"ControlNetModel\""));
        }
        let widths = &self.conditioning_embedding_out_channels;
        check_count(MODEL, "conditioning_channels", self.conditioning_channels, limits::CHANNELS)?;
        check_count(MODEL, "conditioning_embedding_out_channels", widths.len(), limits::LEVELS)?;
        for &width in widths {
            check_count(MODEL, "conditioning_embedding_out_channels", width, limits::CHANNELS)?;
        }
        // It has no way up; a plan has one, so it gets the plainest.
        let levels = network.block_out_channels.len();
        network.up_block_types = vec![UpBlockType::UpBlock2D; levels];
        network.reverse_transformer_layers_per_block = Some(vec![OneOrMany::One(1); levels]);
        let plan = Plan::new(&network).map_err(|error| error.of(MODEL))?;
        Ok((network, plan))
    }
}
