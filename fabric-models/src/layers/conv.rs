use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::conv2d;

use super::{uniform_param, value_as};

/// A two-dimensional convolution.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    /// Zeros before and after, along both axes.
    padding: (usize, usize),
}

impl Conv2d {
    /// A convolution with stride 1 that keeps the size (odd `kernel`), with PyTorch's initial values, drawn
    /// when first used.
    pub fn new(inputs: usize, outputs: usize, kernel: usize, device: &Device) -> Self {
        let fan_in = inputs * kernel * kernel;
        Self {
            weight: uniform_param([outputs, inputs, kernel, kernel], fan_in, device),
            bias: Some(uniform_param([outputs], fan_in, device)),
            stride: 1,
            padding: (kernel / 2, kernel / 2),
        }
    }

    /// The same with another stride, and zeros before and after along both axes.
    #[must_use]
    pub fn with_stride(self, stride: usize, padding: (usize, usize)) -> Self {
        Self { stride, padding, ..self }
    }

    /// The same without bias.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// # Shapes
    ///
    /// - `x`: `[rows, in, height, width]`
    /// - returns: `[rows, out, height / stride, width / stride]`, rounded as the padding has it
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = value_as(&self.weight, x.dtype());
        let bias = self.bias.as_ref().map(|bias| value_as(bias, x.dtype()));
        conv2d(x, weight, bias, self.stride, self.padding)
    }
}
