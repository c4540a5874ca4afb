use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::linear;

use super::{uniform_param, value_as};

/// `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as in the published files. The product reads the transposed view: turning it once would cost
    /// more than all the rest of loading.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A layer with PyTorch's initial values, drawn when first used.
    pub fn new(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: uniform_param([outputs, inputs], inputs, device),
            bias: bias.then(|| uniform_param([outputs], inputs, device)),
        }
    }

    /// # Shapes
    ///
    /// - `x`: `[.., in]`
    /// - returns: `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = value_as(&self.weight, x.dtype());
        let bias = self.bias.as_ref().map(|bias| value_as(bias, x.dtype()));
        linear(x, weight, bias)
    }
}
