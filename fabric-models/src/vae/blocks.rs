//! Encoder and decoder of a VAE.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use fabric_backends::ops::computes_in;

use super::VaeConfig;
use super::attention::MidAttention;
use crate::layers::{Activation, Conv2d, Downsample, GroupNorm, Resnet, ResnetConfig, Trace, Upsample, show};

/// Epsilon of every norm of a VAE.
const EPSILON: f64 = 1e-6;

/// Encoder: maps images to the mean and log-variance of their latents.
#[derive(Module, Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<EncoderBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    act: Activation,
}

#[derive(Module, Debug)]
struct EncoderBlock {
    resnets: Vec<Resnet>,
    downsampler: Option<Downsample>,
}

/// Decoder: maps latents to images.
#[derive(Module, Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<DecoderBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    act: Activation,
}

#[derive(Module, Debug)]
struct DecoderBlock {
    resnets: Vec<Resnet>,
    upsampler: Option<Upsample>,
}

/// Middle block: two resnets with an attention layer between them.
#[derive(Module, Debug)]
struct MidBlock {
    resnets: Vec<Resnet>,
    attention: Option<MidAttention>,
}

fn resnets(config: &VaeConfig, count: usize, inputs: usize, outputs: usize, device: &Device) -> Vec<Resnet> {
    let resnet = ResnetConfig { time_dim: None, groups: config.norm_num_groups, epsilon: EPSILON, act: config.act_fn };
    (0..count).map(|index| resnet.init(if index == 0 { inputs } else { outputs }, outputs, device)).collect()
}

impl MidBlock {
    fn new(config: &VaeConfig, channels: usize, device: &Device) -> Self {
        Self {
            resnets: resnets(config, 2, channels, channels, device),
            attention: config
                .mid_block_add_attention
                .then(|| MidAttention::new(channels, config.norm_num_groups, EPSILON, device)),
        }
    }

    fn forward(&self, mut x: Tensor<4>) -> Tensor<4> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            if let (1, Some(attention)) = (index, &self.attention) {
                x = attention.forward(x);
            }
            x = resnet.forward(x, None);
        }
        x
    }
}

impl Encoder {
    pub(super) fn new(config: &VaeConfig, device: &Device) -> Self {
        let channels = &config.block_out_channels;
        let levels = channels.len();
        let last = channels[levels - 1];
        let block = |level: usize| EncoderBlock {
            resnets: resnets(
                config,
                config.layers_per_block,
                channels[level.saturating_sub(1)],
                channels[level],
                device,
            ),
            downsampler: (level + 1 < levels).then(|| Downsample::new(channels[level], 0, device)),
        };
        Self {
            conv_in: Conv2d::new(config.in_channels, channels[0], 3, device),
            down_blocks: (0..levels).map(block).collect(),
            mid_block: MidBlock::new(config, last, device),
            conv_norm_out: GroupNorm::new(config.norm_num_groups, last, EPSILON, device),
            conv_out: Conv2d::new(last, 2 * config.latent_channels, 3, device),
            act: config.act_fn,
        }
    }

    /// Maps `[rows, 3, height, width]` to means and log-variances, `[rows, 2 * latent_channels, ..]`.
    pub(super) fn forward(&self, pixels: Tensor<4>, trace: &mut Trace<'_>) -> Tensor<4> {
        let mut x = self.conv_in.forward(pixels);
        show(trace, || "encoder.conv_in".to_owned(), &x);
        for (index, block) in self.down_blocks.iter().enumerate() {
            for resnet in &block.resnets {
                x = resnet.forward(x, None);
            }
            if let Some(downsampler) = &block.downsampler {
                x = downsampler.forward(x);
            }
            show(trace, || format!("encoder.down_blocks.{index}"), &x);
        }
        x = self.mid_block.forward(x);
        show(trace, || "encoder.mid_block".to_owned(), &x);
        self.conv_out.forward(self.conv_norm_out.forward_then(x, self.act))
    }
}

impl Decoder {
    pub(super) fn new(config: &VaeConfig, device: &Device) -> Self {
        let channels = &config.block_out_channels;
        let levels = channels.len();
        let last = channels[levels - 1];
        let block = |level: usize| DecoderBlock {
            resnets: resnets(
                config,
                config.layers_per_block + 1,
                channels[(level + 1).min(levels - 1)],
                channels[level],
                device,
            ),
            upsampler: (level > 0).then(|| Upsample::new(channels[level], device)),
        };
        Self {
            conv_in: Conv2d::new(config.latent_channels, last, 3, device),
            mid_block: MidBlock::new(config, last, device),
            up_blocks: (0..levels).rev().map(block).collect(),
            conv_norm_out: GroupNorm::new(config.norm_num_groups, channels[0], EPSILON, device),
            conv_out: Conv2d::new(channels[0], config.out_channels, 3, device),
            act: config.act_fn,
        }
    }

    /// Returns the data type in which the network computes on this device by default.
    pub(super) fn computes_in(&self, device: &Device) -> DType {
        computes_in(device, self.conv_in.weight.val().dtype())
    }

    pub(super) fn device(&self) -> Device {
        self.conv_in.weight.lazy_device()
    }

    /// Maps `[rows, latent_channels, height, width]` to `[rows, 3, ..]`.
    pub(super) fn forward(&self, latents: Tensor<4>, trace: &mut Trace<'_>) -> Tensor<4> {
        let mut x = self.conv_in.forward(latents);
        show(trace, || "decoder.conv_in".to_owned(), &x);
        x = self.mid_block.forward(x);
        show(trace, || "decoder.mid_block".to_owned(), &x);
        for (index, block) in self.up_blocks.iter().enumerate() {
            for resnet in &block.resnets {
                x = resnet.forward(x, None);
            }
            if let Some(upsampler) = &block.upsampler {
                let [_, _, height, width] = x.dims();
                x = upsampler.forward(x, [2 * height, 2 * width]);
            }
            show(trace, || format!("decoder.up_blocks.{index}"), &x);
        }
        self.conv_out.forward(self.conv_norm_out.forward_then(x, self.act))
    }
}
