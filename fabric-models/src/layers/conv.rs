use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::conv2d;

use super::{uniform_param, value_as};

/// Two-dimensional convolution.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    /// Zero padding before and after, along both axes.
    padding: (usize, usize),
}

impl Conv2d {
    /// Creates a convolution with stride 1 that keeps the size (odd `kernel`), with PyTorch's initial values,
    /// generated on first use.
    pub fn new(inputs: usize, outputs: usize, kernel: usize, device: &Device) -> Self {
        let fan_in = inputs * kernel * kernel;
        Self {
            weight: uniform_param([outputs, inputs, kernel, kernel], fan_in, device),
            bias: Some(uniform_param([outputs], fan_in, device)),
            stride: 1,
            padding: (kernel / 2, kernel / 2),
        }
    }

    /// Sets the stride, and the zero padding before and after along both axes.
    #[must_use]
    pub fn with_stride(self, stride: usize, padding: (usize, usize)) -> Self {
        Self { stride, padding, ..self }
    }

    /// Removes the bias.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// Applies the convolution.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, in, height, width]`
    /// - returns: `[rows, out, height / stride, width / stride]`, rounded as the padding determines
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = value_as(&self.weight, x.dtype());
        let bias = self.bias.as_ref().map(|bias| value_as(bias, x.dtype()));
        conv2d(x, weight, bias, self.stride, self.padding)
    }
}
