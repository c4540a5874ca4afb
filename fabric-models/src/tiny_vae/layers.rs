//! Encoder and decoder of a tiny autoencoder: residual blocks of three convolutions, without norms and attention.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{DType, Device, Tensor, assert_shape};
use fabric_core::models::LatentDecoder;

use super::TinyAutoencoderConfig;
use crate::layers::{Activation, Conv2d, cast, computes_in, is_half};

/// Magnitude towards which the decoder compresses latents: `3 tanh(x / 3)`.
const SOFT_CLAMP: f64 = 3.0;

/// Encoder: maps images to latents.
#[derive(Module, Debug)]
pub struct TinyEncoder {
    layers: Vec<Layer>,
    #[module(skip)]
    scale: Scale,
    scale_factor: usize,
}

/// Decoder: maps latents to images. Previews need no more of a tiny autoencoder.
#[derive(Module, Debug)]
pub struct TinyDecoder {
    layers: Vec<Layer>,
    #[module(skip)]
    scale: Scale,
    scale_factor: usize,
    latent_channels: usize,
}

/// Relation of the network's latents to those of the U-Net, `(z - shift) * factor`, and the type of computation.
#[derive(Debug, Clone, PartialEq)]
struct Scale {
    shift: f64,
    factor: f64,
    upcast: bool,
}

impl Scale {
    fn new(config: &TinyAutoencoderConfig) -> Self {
        Self { shift: config.shift_factor.unwrap_or(0.0), factor: config.scaling_factor, upcast: config.force_upcast }
    }
}

/// One element of the published `Sequential`, in which activations and upsampling have numbers too.
#[derive(Module, Debug)]
enum Layer {
    Conv(Conv2d),
    Block(Block),
    Activation(Pointwise),
    Upsample(Nearest),
}

/// Residual block: three convolutions with activations between them. The activation after the sum is always
/// `max(x, 0)`, whatever the configuration says.
#[derive(Module, Debug)]
struct Block {
    conv: Vec<Conv2d>,
    #[module(skip)]
    act: Activation,
}

/// Activation function as a layer of its own.
#[derive(Module, Debug)]
struct Pointwise {
    #[module(skip)]
    act: Activation,
}

/// Repeats each pixel `factor` times along both axes.
#[derive(Module, Debug)]
struct Nearest {
    factor: usize,
}

impl Layer {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Block(block) => block.forward(x),
            Self::Activation(layer) => layer.act.forward(x),
            Self::Upsample(layer) => {
                let [_, _, height, width] = x.dims();
                let options = InterpolateOptions::new(InterpolateMode::Nearest);
                interpolate(x, options.with_output_size([layer.factor * height, layer.factor * width]))
            }
        }
    }
}

impl Block {
    fn new(channels: usize, act: Activation, device: &Device) -> Self {
        Self { conv: (0..3).map(|_| Conv2d::new(channels, channels, 3, device)).collect(), act }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [first, second, last] = &self.conv[..] else { unreachable!("a block has three convolutions") };
        let inner = self.act.forward(first.forward(x.clone()));
        let inner = self.act.forward(second.forward(inner));
        relu(last.forward(inner) + x)
    }
}

impl TinyEncoder {
    pub(super) fn new(config: &TinyAutoencoderConfig, device: &Device) -> Self {
        let channels = config.encoder_block_out_channels[0];
        let mut layers = Vec::new();
        for (stage, &blocks) in config.num_encoder_blocks.iter().enumerate() {
            layers.push(Layer::Conv(if stage == 0 {
                Conv2d::new(config.in_channels, channels, 3, device)
            } else {
                Conv2d::new(channels, channels, 3, device).with_stride(2, (1, 1)).without_bias()
            }));
            layers.extend((0..blocks).map(|_| Layer::Block(Block::new(channels, config.act_fn, device))));
        }
        layers.push(Layer::Conv(Conv2d::new(channels, config.latent_channels, 3, device)));
        Self { layers, scale: Scale::new(config), scale_factor: config.scale_factor() }
    }

    /// Encodes pixels in [-1, 1], `[images, 3, height, width]`, to latents scaled for the U-Net.
    pub(super) fn encode(&self, pixels: Tensor<4>) -> Tensor<4> {
        assert_shape!(pixels, [_, 3, _, _]);
        let [_, _, height, width] = pixels.dims();
        let scale = self.scale_factor;
        assert!(
            height >= scale && width >= scale,
            "tiny autoencoder: {height}x{width} pixels, expected at least {scale}x{scale}"
        );
        let latents = run(&self.layers, pixels, &self.scale, |pixels| (pixels + 1.0) / 2.0);
        (latents - self.scale.shift) * self.scale.factor
    }
}

impl TinyDecoder {
    pub(super) fn new(config: &TinyAutoencoderConfig, device: &Device) -> Self {
        let channels = config.decoder_block_out_channels[0];
        let stages = config.num_decoder_blocks.len();
        let mut layers = vec![
            Layer::Conv(Conv2d::new(config.latent_channels, channels, 3, device)),
            Layer::Activation(Pointwise { act: config.act_fn }),
        ];
        for (stage, &blocks) in config.num_decoder_blocks.iter().enumerate() {
            layers.extend((0..blocks).map(|_| Layer::Block(Block::new(channels, config.act_fn, device))));
            layers.extend(if stage + 1 < stages {
                let conv = Conv2d::new(channels, channels, 3, device).without_bias();
                vec![Layer::Upsample(Nearest { factor: config.upsampling_scaling_factor }), Layer::Conv(conv)]
            } else {
                vec![Layer::Conv(Conv2d::new(channels, config.out_channels, 3, device))]
            });
        }
        let (scale, scale_factor) = (Scale::new(config), config.scale_factor());
        Self { layers, scale, scale_factor, latent_channels: config.latent_channels }
    }
}

impl LatentDecoder for TinyDecoder {
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        assert_shape!(latents, [_, self.latent_channels, _, _]);
        let latents = latents / self.scale.factor + self.scale.shift;
        run(&self.layers, latents, &self.scale, |x| (x / SOFT_CLAMP).tanh() * SOFT_CLAMP) * 2.0 - 1.0
    }

    fn scale_factor(&self) -> usize {
        self.scale_factor
    }

    fn latent_channels(&self) -> usize {
        self.latent_channels
    }
}

/// Runs all layers on `enter(x)`, in the data type of the computation.
fn run(layers: &[Layer], x: Tensor<4>, scale: &Scale, enter: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    let dtype = x.dtype();
    let own = layers.iter().find_map(|layer| match layer {
        Layer::Conv(conv) => Some(computes_in(&conv.weight)),
        _ => None,
    });
    let own = own.expect("the first layer is a convolution");
    let compute = if scale.upcast && is_half(own) { DType::F32 } else { own };
    let out = layers.iter().fold(enter(cast(x, compute)), |x, layer| layer.forward(x));
    cast(out, dtype)
}
