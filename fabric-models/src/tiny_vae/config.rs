//! Configuration of a tiny autoencoder, as read from `config.json`.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TinyAutoencoder;
use super::layers::{TinyDecoder, TinyEncoder};
use crate::config::{ConfigError, brief, check_count, check_resnets, limits, parse};
use crate::layers::Activation;
use crate::vae::{MAX_SHIFT, SCALES};

const MODEL: &str = "tiny autoencoder";

/// Configuration of diffusers' `AutoencoderTiny` (`config.json`), with the defaults of that class: those of TAESD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TinyAutoencoderConfig {
    /// Colour channels of the encoder's input.
    pub in_channels: usize,
    /// Colour channels of the decoder's output.
    pub out_channels: usize,
    /// Channels of each stage of the encoder, from full resolution down; all equal.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of each stage of the decoder, from the lowest resolution up; all equal.
    pub decoder_block_out_channels: Vec<usize>,
    /// Activation function. The last one of each block is always `max(x, 0)`.
    pub act_fn: Activation,
    /// Upsampling of the decoder; only `nearest` is supported.
    pub upsample_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Factor by which each stage of the decoder but the last enlarges height and width.
    pub upsampling_scaling_factor: usize,
    /// Residual blocks of each stage of the encoder.
    pub num_encoder_blocks: Vec<usize>,
    /// Residual blocks of each stage of the decoder.
    pub num_decoder_blocks: Vec<usize>,
    /// Half of the range of latents that programs store as bytes; kept for them.
    pub latent_magnitude: f64,
    /// Offset of latents that programs store as bytes; kept for them.
    pub latent_shift: f64,
    /// Whether half-precision weights are computed in f32.
    pub force_upcast: bool,
    /// Factor that scales the latents for the U-Net. It is 1 in published files: they read the U-Net's latents.
    pub scaling_factor: f64,
    /// Value subtracted from the latents before scaling; `None` is 0.
    pub shift_factor: Option<f64>,
    /// All other fields, kept for saving.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for TinyAutoencoderConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: Activation::Relu,
            upsample_fn: "nearest".to_owned(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            force_upcast: false,
            scaling_factor: 1.0,
            shift_factor: Some(0.0),
            other: BTreeMap::new(),
        }
    }
}

impl TinyAutoencoderConfig {
    /// Returns the configuration of TAESD and TAESDXL, for Stable Diffusion 1, 2 and XL.
    pub fn taesd() -> Self {
        Self::default()
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

    /// Returns the pixels per latent along each axis.
    pub fn scale_factor(&self) -> usize {
        1 << self.num_encoder_blocks.len().saturating_sub(1)
    }

    /// Checks that a network can be built from this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(class) = self.other.get("_class_name").filter(|class| *class != "AutoencoderTiny") {
            return Err(ConfigError::unsupported(MODEL, "_class_name", brief(class), "AutoencoderTiny"));
        }
        let sides = [
            ("encoder_block_out_channels", &self.encoder_block_out_channels, "num_encoder_blocks"),
            ("decoder_block_out_channels", &self.decoder_block_out_channels, "num_decoder_blocks"),
        ];
        for ((field, channels, blocks_field), blocks) in
            sides.into_iter().zip([&self.num_encoder_blocks, &self.num_decoder_blocks])
        {
            check_count(MODEL, field, channels.len(), limits::LEVELS)?;
            if blocks.len() != channels.len() {
                let expected = format!("{}, one for each of {field}", channels.len());
                return Err(ConfigError::invalid(MODEL, blocks_field, format!("{} numbers", blocks.len()), expected));
            }
            check_count(MODEL, field, channels[0], limits::CHANNELS)?;
            if channels.iter().any(|other| *other != channels[0]) {
                let got = format!("{channels:?}");
                return Err(ConfigError::unsupported(MODEL, field, got, "equal numbers"));
            }
            if let Some(most) = blocks.iter().find(|count| **count > limits::LAYERS) {
                return Err(ConfigError::invalid(MODEL, blocks_field, most, format!("0 to {}", limits::LAYERS)));
            }
            check_resnets(MODEL, blocks_field, blocks.iter().sum())?;
        }
        check_count(MODEL, "latent_channels", self.latent_channels, limits::CHANNELS)?;
        for (field, channels) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if channels != 3 {
                return Err(ConfigError::unsupported(MODEL, field, channels, "3"));
            }
        }
        if self.upsample_fn != "nearest" {
            return Err(ConfigError::unsupported(MODEL, "upsample_fn", &self.upsample_fn, "nearest"));
        }
        let (factor, stages) = (self.upsampling_scaling_factor, self.num_decoder_blocks.len());
        if factor.checked_pow(stages as u32 - 1) != Some(self.scale_factor()) {
            let got = format!("{factor} in {} of the decoder's stages", stages - 1);
            let expected = format!("{} in all, by which the encoder divides", self.scale_factor());
            return Err(ConfigError::unsupported(MODEL, "upsampling_scaling_factor", got, expected));
        }
        if !SCALES.contains(&self.scaling_factor) {
            let expected = format!("a number from {:e} to {:e}", SCALES.start(), SCALES.end());
            return Err(ConfigError::invalid(MODEL, "scaling_factor", self.scaling_factor, expected));
        }
        if let Some(shift) = self.shift_factor.filter(|shift| !(-MAX_SHIFT..=MAX_SHIFT).contains(shift)) {
            let expected = format!("a number from -{MAX_SHIFT:e} to {MAX_SHIFT:e}");
            return Err(ConfigError::invalid(MODEL, "shift_factor", shift, expected));
        }
        Ok(())
    }

    /// Builds the network with random weights, which are generated on first use.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Self::validate`].
    pub fn init(&self, device: &Device) -> Result<TinyAutoencoder, ConfigError> {
        Ok(TinyAutoencoder::new(TinyEncoder::new(self, device), self.init_decoder(device)?))
    }

    /// Builds the decoder alone.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Self::validate`].
    pub fn init_decoder(&self, device: &Device) -> Result<TinyDecoder, ConfigError> {
        self.validate()?;
        Ok(TinyDecoder::new(self, device))
    }
}
