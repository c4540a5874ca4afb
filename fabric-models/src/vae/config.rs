//! Configuration of a VAE, as read from `config.json`.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Vae;
use crate::config::{ConfigError, OneOrMany, brief, check_count, check_resnets, limits, parse};
use crate::layers::Activation;

pub(super) const MODEL: &str = "VAE";

/// Range of the scaling factor and of the standard deviations of latents. Published are 0.13 to 8.5; quotients of two
/// such numbers stay far within f32.
pub(crate) const SCALES: RangeInclusive<f64> = 1e-6..=1e6;
/// Magnitude of shifts and means of latents; published are up to 3.
pub(crate) const MAX_SHIFT: f64 = 1e6;

/// Class of an encoder block in the published configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum EncoderBlockType {
    DownEncoderBlock2D,
}

/// Class of a decoder block in the published configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names of the published classes")]
pub enum DecoderBlockType {
    UpDecoderBlock2D,
}

/// Configuration of an `AutoencoderKL` (`config.json`), with the defaults of that class except for the blocks, which
/// default to those of Stable Diffusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Colour channels of the encoder's input.
    pub in_channels: usize,
    /// Colour channels of the decoder's output.
    pub out_channels: usize,
    /// Encoder blocks, from full resolution down.
    pub down_block_types: Vec<EncoderBlockType>,
    /// Decoder blocks, from the lowest resolution up.
    pub up_block_types: Vec<DecoderBlockType>,
    /// Channels per level.
    pub block_out_channels: Vec<usize>,
    /// Resnets per block of the encoder; blocks of the decoder have one more.
    pub layers_per_block: usize,
    /// Activation function of the resnets.
    pub act_fn: Activation,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Number of groups of every group norm (their epsilon is 1e-6).
    pub norm_num_groups: usize,
    /// Side of the training images.
    pub sample_size: OneOrMany<usize>,
    /// Factor that scales the latents to about unit variance.
    pub scaling_factor: f64,
    /// Value subtracted from the latents before scaling.
    pub shift_factor: Option<f64>,
    /// Mean of each channel, in files that give statistics instead of a shift.
    pub latents_mean: Option<Vec<f64>>,
    /// Standard deviation of each channel.
    pub latents_std: Option<Vec<f64>>,
    /// Whether half-precision weights are computed in f32. SDXL's VAE overflows f16.
    pub force_upcast: bool,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks have an attention layer.
    pub mid_block_add_attention: bool,
    /// All other fields, kept for saving.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![EncoderBlockType::DownEncoderBlock2D; 4],
            up_block_types: vec![DecoderBlockType::UpDecoderBlock2D; 4],
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: OneOrMany::One(512),
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            other: BTreeMap::new(),
        }
    }
}

impl VaeConfig {
    /// Returns the configuration of Stable Diffusion 1.x and 2.x.
    pub fn sd15() -> Self {
        Self::default()
    }

    /// Returns the configuration of Stable Diffusion XL: the same network with another scaling factor.
    pub fn sdxl() -> Self {
        Self { sample_size: OneOrMany::One(1024), scaling_factor: 0.13025, ..Self::default() }
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
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Checks that a network can be built from this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid or not supported.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid =
            |field: &str, got: String, expected: String| Err(ConfigError::invalid(MODEL, field, got, expected));
        if let Some(class) = self.other.get("_class_name").filter(|class| *class != "AutoencoderKL") {
            return Err(ConfigError::unsupported(MODEL, "_class_name", brief(class), "AutoencoderKL"));
        }
        let levels = self.block_out_channels.len();
        check_count(MODEL, "block_out_channels", levels, limits::LEVELS)?;
        for (field, count) in
            [("down_block_types", self.down_block_types.len()), ("up_block_types", self.up_block_types.len())]
        {
            if count != levels {
                let expected = format!("{levels}, one for each of block_out_channels");
                return invalid(field, format!("{count} blocks"), expected);
            }
        }
        check_count(MODEL, "layers_per_block", self.layers_per_block, limits::LAYERS)?;
        // Those of the encoder, of the decoder, and of the two middle blocks.
        check_resnets(MODEL, "layers_per_block", levels * (2 * self.layers_per_block + 1) + 4)?;
        check_count(MODEL, "norm_num_groups", self.norm_num_groups, limits::CHANNELS)?;
        check_count(MODEL, "latent_channels", self.latent_channels, limits::CHANNELS)?;
        for &channels in &self.block_out_channels {
            check_count(MODEL, "block_out_channels", channels, limits::CHANNELS)?;
            if !channels.is_multiple_of(self.norm_num_groups) {
                let expected = format!("a divisor of {channels} channels");
                return invalid("norm_num_groups", self.norm_num_groups.to_string(), expected);
            }
        }
        for (field, channels) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if channels != 3 {
                return Err(ConfigError::unsupported(MODEL, field, channels, "3"));
            }
        }
        self.check_scale()
    }

    fn check_scale(&self) -> Result<(), ConfigError> {
        let invalid =
            |field: &str, got: String, expected: String| Err(ConfigError::invalid(MODEL, field, got, expected));
        let scales = format!("from {:e} to {:e}", SCALES.start(), SCALES.end());
        let shifts = format!("from -{MAX_SHIFT:e} to {MAX_SHIFT:e}");
        let is_shift = |x: &f64| (-MAX_SHIFT..=MAX_SHIFT).contains(x);
        if !SCALES.contains(&self.scaling_factor) {
            return invalid("scaling_factor", self.scaling_factor.to_string(), format!("a number {scales}"));
        }
        if let Some(shift) = self.shift_factor.filter(|shift| !is_shift(shift)) {
            return invalid("shift_factor", shift.to_string(), format!("a number {shifts}"));
        }
        let one_per_channel = |values: &Vec<f64>| values.len() == self.latent_channels;
        let beside = |field: &str| format!("values, because `{field}` is given");
        match (&self.latents_mean, &self.latents_std) {
            (None, None) => Ok(()),
            (Some(_), None) => invalid("latents_std", "nothing".to_owned(), beside("latents_mean")),
            (None, Some(_)) => invalid("latents_mean", "nothing".to_owned(), beside("latents_std")),
            _ if self.shift_factor.is_some_and(|shift| shift != 0.0) => {
                Err(ConfigError::unsupported(MODEL, "shift_factor", "a shift beside `latents_mean`", "one of the two"))
            }
            (Some(mean), _) if !one_per_channel(mean) || !mean.iter().all(is_shift) => {
                invalid("latents_mean", format!("{mean:?}"), format!("one number {shifts} per latent channel"))
            }
            (_, Some(std)) if !one_per_channel(std) || !std.iter().all(|x| SCALES.contains(x)) => {
                invalid("latents_std", format!("{std:?}"), format!("one number {scales} per latent channel"))
            }
            _ => Ok(()),
        }
    }

    /// Builds the network with random weights, which are generated on first use.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`VaeConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<Vae, ConfigError> {
        self.validate()?;
        Ok(Vae::new(self, device))
    }
}
