//! Convolutional network that predicts the factors of an image of this world.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::factor_heads::most_likely;
use super::{FactorHeads, Named, SIDE};
use fabric::models::layers::{Activation, Conv2d, Downsample, Embedding, Resnet, ResnetConfig};
use fabric::models::load::PublishedNames;

/// Channels of each level; each level after the first halves height and width.
const CHANNELS: [usize; 4] = [16, 48, 96, 128];

/// Residual blocks of each level: texture is detected at a quarter of the resolution, shape at an eighth.
const BLOCKS: [usize; 4] = [1, 1, 2, 2];

/// Network that predicts every factor of an image of this world: residual convolutions to 8x8 tokens, then
/// [`FactorHeads`].
///
/// It evaluates every model of this world, so it shares no weights with the evaluated networks, neither with
/// the image encoder, on which an IP-Adapter is conditioned, nor with the VAE.
#[derive(Module, Debug)]
pub struct Readers {
    conv_in: Conv2d,
    levels: Vec<Level>,
    /// One position embedding for each of the 8x8 tokens.
    positions: Embedding,
    heads: FactorHeads,
}

#[derive(Module, Debug)]
struct Level {
    resnets: Vec<Resnet>,
    downsampler: Option<Downsample>,
}

impl PublishedNames for Readers {
    fn published_name(path: &str) -> String {
        path.to_owned()
    }
}

impl Readers {
    /// Creates readers with random weights.
    pub fn new(device: &Device) -> Self {
        let resnet = ResnetConfig { time_dim: None, groups: 8, epsilon: 1e-6, act: Activation::Silu };
        let level = |at: usize| {
            let inputs = |block: usize| CHANNELS[if block == 0 { at.saturating_sub(1) } else { at }];
            Level {
                resnets: (0..BLOCKS[at]).map(|block| resnet.init(inputs(block), CHANNELS[at], device)).collect(),
                downsampler: (at + 1 < CHANNELS.len()).then(|| Downsample::new(CHANNELS[at], 1, device)),
            }
        };
        let side = SIDE as usize >> (CHANNELS.len() - 1);
        let channels = CHANNELS[CHANNELS.len() - 1];
        Self {
            conv_in: Conv2d::new(3, CHANNELS[0], 3, device),
            levels: (0..CHANNELS.len()).map(level).collect(),
            positions: Embedding::new(side * side, channels, device),
            heads: FactorHeads::new(channels, device),
        }
    }

    /// Computes the logits of the values of each factor.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, 64, 64]` in [-1, 1]
    /// - returns: for each of [`Attribute::ALL`](super::Attribute::ALL), `[images, values]`
    pub fn forward(&self, pixels: Tensor<4>) -> Vec<Tensor<2>> {
        let mut x = self.conv_in.forward(pixels);
        for level in &self.levels {
            x = level.resnets.iter().fold(x, |x, resnet| resnet.forward(x, None));
            if let Some(downsampler) = &level.downsampler {
                x = downsampler.forward(x);
            }
        }
        let [images, channels, height, width] = x.dims();
        let tokens = x.reshape([images, channels, height * width]).swap_dims(1, 2);
        self.heads.forward(tokens + self.positions.weight.val().unsqueeze::<3>())
    }

    /// Returns the most likely value of each factor, for each image.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, 64, 64]` in [-1, 1]
    pub fn read(&self, pixels: Tensor<4>) -> Vec<Named> {
        most_likely(self.forward(pixels))
    }
}
