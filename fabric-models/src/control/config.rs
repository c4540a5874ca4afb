//! Configuration of a ControlNet, as read from `config.json`.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::ControlNet;
use crate::config::{ConfigError, OneOrMany, brief, check_count, limits, parse};
use crate::unet::{Plan, UNetConfig, UpBlockType};

const MODEL: &str = "ControlNet";

/// Channel order of a network's control image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// Configuration of a `ControlNetModel` (`config.json`), with the defaults of that class.
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
    /// Channels of the control image.
    pub conditioning_channels: usize,
    /// Channels of the layers that reduce the control image to the size of the latents; each but the first halves it.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// Channel order of the control image.
    pub controlnet_conditioning_channel_order: ChannelOrder,
    /// Whether the residuals are averaged over all positions (the shuffle network). Such a network runs on the
    /// conditional branch only.
    pub global_pool_conditions: bool,
    /// Configuration of the down path and the middle block, which are those of a U-Net.
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
    /// Returns the configuration for Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Self { network: UNetConfig::sd15(), ..Self::default() }
    }

    /// Returns the configuration for Stable Diffusion XL.
    pub fn sdxl() -> Self {
        Self { network: UNetConfig::sdxl(), ..Self::default() }
    }

    /// Parses and validates the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not a JSON object, or a field is invalid or not supported.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(MODEL, json)?;
        config.plan()?;
        Ok(config)
    }

    /// Builds the network with random weights, which are generated on first use.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid or not supported.
    pub fn init(&self, device: &Device) -> Result<ControlNet, ConfigError> {
        let (network, plan) = self.plan()?;
        Ok(ControlNet::new(self, &network, &plan, device))
    }

    /// Returns the validated plan of a U-Net with this down path.
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
        // A plan needs an up path, which a ControlNet lacks: use the simplest.
        let levels = network.block_out_channels.len();
        network.up_block_types = vec![UpBlockType::UpBlock2D; levels];
        network.reverse_transformer_layers_per_block = Some(vec![OneOrMany::One(1); levels]);
        let plan = Plan::new(&network).map_err(|error| error.of(MODEL))?;
        Ok((network, plan))
    }
}
