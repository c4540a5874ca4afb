//! T2I-Adapters (Mou et al. 2023, 2302.08453), as implemented in diffusers.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ModelError;
use crate::config::{ConfigError, brief, check_count, check_resnets, limits, parse};
use crate::layers::{Conv2d, cast, computes_in};
use crate::load::{ComponentFolder, LoadOptions, LoadReport, TensorSource, load_into};

const MODEL: &str = "T2I-Adapter";

/// Published architectures of T2I-Adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum T2IAdapterKind {
    /// The architecture for Stable Diffusion 1.x.
    #[default]
    FullAdapter,
    /// The architecture for Stable Diffusion XL.
    FullAdapterXl,
    /// The architecture for Stable Diffusion 1.x with a quarter of the inner channels.
    LightAdapter,
}

/// Configuration of a `T2IAdapter` (`config.json`), with the defaults of that class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T2IAdapterConfig {
    /// Architecture.
    pub adapter_type: T2IAdapterKind,
    /// Channels of the control image.
    pub in_channels: usize,
    /// Channels of the features, per level.
    pub channels: Vec<usize>,
    /// Number of residual blocks per level.
    pub num_res_blocks: usize,
    /// Pixels of the control image per position of the first level's features, along each axis.
    pub downscale_factor: usize,
    /// All other fields.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for T2IAdapterConfig {
    fn default() -> Self {
        Self {
            adapter_type: T2IAdapterKind::FullAdapter,
            in_channels: 3,
            channels: vec![320, 640, 1280, 1280],
            num_res_blocks: 2,
            downscale_factor: 8,
            other: BTreeMap::new(),
        }
    }
}

impl T2IAdapterConfig {
    /// Parses and validates the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not a JSON object, or a field is invalid or not supported.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let config: Self = parse(MODEL, json)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Some(class) = self.other.get("_class_name").filter(|class| **class != "T2IAdapter") {
            return Err(ConfigError::unsupported(MODEL, "_class_name", brief(class), "\"T2IAdapter\""));
        }
        check_count(MODEL, "in_channels", self.in_channels, limits::CHANNELS)?;
        check_count(MODEL, "channels", self.channels.len(), limits::LEVELS)?;
        check_count(MODEL, "num_res_blocks", self.num_res_blocks, limits::LAYERS)?;
        // A light adapter has one level more than the configuration lists.
        check_resnets(MODEL, "num_res_blocks", (self.channels.len() + 1) * self.num_res_blocks)?;
        check_count(MODEL, "downscale_factor", self.downscale_factor, 64)?;
        for &channels in &self.channels {
            check_count(MODEL, "channels", channels, limits::CHANNELS)?;
        }
        if self.adapter_type == T2IAdapterKind::FullAdapterXl && self.channels.len() < 3 {
            return Err(ConfigError::invalid(
                MODEL,
                "channels",
                self.channels.len(),
                "3 levels at least in this shape",
            ));
        }
        Ok(())
    }

    /// Builds the network with random weights, which are generated on first use.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is invalid or not supported.
    pub fn init(&self, device: &Device) -> Result<T2IAdapter, ConfigError> {
        self.check()?;
        let light = self.adapter_type == T2IAdapterKind::LightAdapter;
        let unshuffled = self.in_channels * self.downscale_factor.pow(2);
        // The first features of SDXL's adapter belong to the level at which the U-Net has halved the latents once.
        let xl = self.adapter_type == T2IAdapterKind::FullAdapterXl;
        let downscale = if xl { (self.downscale_factor / 2).max(1) } else { self.downscale_factor };
        let mut channels = self.channels.clone();
        let first = channels[0];
        if light {
            // The network has one level more than the configuration lists.
            channels.extend(channels.last().copied());
        }
        let body = channels.iter().enumerate().map(|(level, &outputs)| {
            let before = level.checked_sub(1).map(|before| channels[before]);
            let halves = if xl { level == 2 } else { level > 0 };
            if light {
                Level::light(before.unwrap_or(unshuffled), outputs, self.num_res_blocks, halves, device)
            } else {
                Level::full(before.unwrap_or(first), outputs, self.num_res_blocks, halves, device)
            }
        });
        Ok(T2IAdapter {
            conv_in: (!light).then(|| Conv2d::new(unshuffled, first, 3, device)),
            body: body.collect(),
            inputs: self.in_channels,
            factor: self.downscale_factor,
            downscale,
            channels: channels.clone(),
        })
    }
}

/// T2I-Adapter: computes features of a control image that are added to a U-Net's down path. They are the same in all
/// steps and for all prompts.
#[derive(Module, Debug)]
pub struct T2IAdapter {
    conv_in: Option<Conv2d>,
    body: Vec<Level>,
    inputs: usize,
    factor: usize,
    downscale: usize,
    #[module(skip)]
    channels: Vec<usize>,
}

/// One level of the adapter: downsampling, a change of channels, and residual blocks.
#[derive(Module, Debug)]
struct Level {
    in_conv: Option<Conv2d>,
    resnets: Vec<Residual>,
    out_conv: Option<Conv2d>,
    halves: bool,
}

/// Two convolutions with a residual connection.
#[derive(Module, Debug)]
struct Residual {
    block1: Conv2d,
    block2: Conv2d,
}

impl Level {
    fn full(inputs: usize, outputs: usize, blocks: usize, halves: bool, device: &Device) -> Self {
        let conv = |kernel| Conv2d::new(outputs, outputs, kernel, device);
        let block = || Residual { block1: conv(3), block2: conv(1) };
        let in_conv = (inputs != outputs).then(|| Conv2d::new(inputs, outputs, 1, device));
        Self { in_conv, resnets: (0..blocks).map(|_| block()).collect(), out_conv: None, halves }
    }

    fn light(inputs: usize, outputs: usize, blocks: usize, halves: bool, device: &Device) -> Self {
        let within = (outputs / 4).max(1);
        let conv = || Conv2d::new(within, within, 3, device);
        Self {
            in_conv: Some(Conv2d::new(inputs, within, 1, device)),
            resnets: (0..blocks).map(|_| Residual { block1: conv(), block2: conv() }).collect(),
            out_conv: Some(Conv2d::new(within, outputs, 1, device)),
            halves,
        }
    }

    fn forward(&self, mut x: Tensor<4>) -> Tensor<4> {
        if self.halves {
            x = halved(x);
        }
        if let Some(conv) = &self.in_conv {
            x = conv.forward(x);
        }
        for block in &self.resnets {
            x = x.clone() + block.block2.forward(relu(block.block1.forward(x)));
        }
        match &self.out_conv {
            Some(conv) => conv.forward(x),
            None => x,
        }
    }
}

/// Averages blocks of 2x2 pixels; at an odd edge, averages the existing pixels.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let [rows, channels, height, width] = x.dims();
    // Repeating the last row or column gives the mean of the existing pixels at the edge.
    let even = |x: Tensor<4>, axis: usize, side: usize| {
        if side.is_multiple_of(2) { x } else { Tensor::cat(vec![x.clone(), x.narrow(axis, side - 1, 1)], axis) }
    };
    let x = even(even(x, 2, height), 3, width);
    let (height, width) = (height.div_ceil(2), width.div_ceil(2));
    x.reshape([rows * channels, height, 2, width, 2]).mean_dims(&[2, 4]).reshape([rows, channels, height, width])
}

impl T2IAdapter {
    /// Loads a folder in the diffusers layout.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, damaged, or of another kind.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self, ModelError> {
        let folder = ComponentFolder::open(path, None)?;
        let config = T2IAdapterConfig::from_json(&folder.config::<Value>()?.to_string())?;
        Ok(Self::load(&config, &*folder.weights()?, &LoadOptions::default(), device)?.0)
    }

    /// Loads the weights of a network with this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing, unexpected, of another shape, or not finite.
    pub fn load(
        config: &T2IAdapterConfig,
        source: &dyn TensorSource,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        Ok(load_into(config.init(device)?, source, options)?)
    }

    /// Returns the pixels of the control image per latent, along each axis.
    pub fn downscale(&self) -> usize {
        self.downscale
    }

    /// Returns the channels of the control image: 3, or 1 for adapters of sketches and edges.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns the number of which the sides of the control image must be multiples.
    pub fn factor(&self) -> usize {
        self.factor
    }

    /// Returns the channels of the features, one per level.
    pub fn channels(&self) -> &[usize] {
        &self.channels
    }

    /// Returns the device of the weights.
    pub fn device(&self) -> Device {
        self.body[0].resnets[0].block1.weight.lazy_device()
    }

    /// Computes the features of control images, one tensor per level.
    ///
    /// # Shapes
    ///
    /// - `images`: from 0 to 1, `[images, channels, height, width]`, sides multiples of [`Self::factor`]
    /// - returns: `[images, channels, height / factor, width / factor]`, halved at later levels
    pub fn forward(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let [count, channels, height, width] = images.dims();
        let compute = computes_in(&self.body[0].resnets[0].block1.weight);
        let (factor, rows, columns) = (self.factor, height / self.factor, width / self.factor);
        // Move blocks of `factor` x `factor` pixels to channels (pixel unshuffle).
        let mut x = cast(images, compute)
            .reshape([count, channels, rows, factor, columns, factor])
            .permute([0, 1, 3, 5, 2, 4])
            .reshape([count, channels * factor * factor, rows, columns]);
        if let Some(conv) = &self.conv_in {
            x = conv.forward(x);
        }
        let levels = self.body.iter().map(|level| {
            x = level.forward(x.clone());
            x.clone()
        });
        levels.collect()
    }
}
