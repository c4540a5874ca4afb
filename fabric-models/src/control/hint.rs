//! Encoder of control images.

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use crate::layers::Conv2d;

/// Encodes a control image to the size of the latents with convolutions, every second of which halves the image.
#[derive(Module, Debug)]
pub(super) struct HintEncoder {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl HintEncoder {
    /// Creates an encoder of images with `inputs` channels, layers of these widths, and `outputs` channels.
    pub(super) fn new(inputs: usize, widths: &[usize], outputs: usize, device: &Device) -> Self {
        let conv = |from, to| Conv2d::new(from, to, 3, device);
        let blocks =
            widths.windows(2).flat_map(|pair| [conv(pair[0], pair[0]), conv(pair[0], pair[1]).with_stride(2, (1, 1))]);
        Self {
            conv_in: conv(inputs, widths[0]),
            blocks: blocks.collect(),
            conv_out: conv(widths[widths.len() - 1], outputs),
        }
    }

    /// Returns the channels of the images.
    pub(super) fn inputs(&self) -> usize {
        self.conv_in.weight.lazy_shape()[1]
    }

    /// Returns the pixels per latent along each axis.
    pub(super) fn downscale(&self) -> usize {
        1 << (self.blocks.len() / 2)
    }

    /// Maps `[images, inputs, height, width]` to `[images, outputs, height / downscale, width / downscale]`.
    pub(super) fn forward(&self, image: Tensor<4>) -> Tensor<4> {
        let mut x = silu(self.conv_in.forward(image));
        for block in &self.blocks {
            x = silu(block.forward(x));
        }
        self.conv_out.forward(x)
    }
}
