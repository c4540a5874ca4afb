//! Downsampling and upsampling layers.

use burn::module::Module;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};

use super::Conv2d;

/// Halves height and width with a strided convolution.
#[derive(Module, Debug)]
pub struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// Creates the layer with initial weights.
    ///
    /// `padding` 0 pads one row of zeros below and one column on the right (the VAE's encoder), as in diffusers.
    #[must_use]
    pub fn new(channels: usize, padding: usize, device: &Device) -> Self {
        let padding = if padding == 0 { (0, 1) } else { (padding, padding) };
        Self { conv: Conv2d::new(channels, channels, 3, device).with_stride(2, padding) }
    }

    /// Applies the layer: `[rows, channels, height, width]` to half the height and width, rounded up.
    #[must_use]
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(x)
    }
}

/// Upsamples to the nearest pixel, then convolves.
#[derive(Module, Debug)]
pub(crate) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self { conv: Conv2d::new(channels, channels, 3, device) }
    }

    /// Upsamples to exactly `size`: twice the height and width, or one less where the down path rounded up.
    pub(crate) fn forward(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size);
        self.conv.forward(interpolate(x, options))
    }
}
