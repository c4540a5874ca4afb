use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use fabric_backends::ops::linear;

use super::{uniform_param, value_as};

/// Linear layer: `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as in the published files. The product reads a transposed view: transposing the weights at load
    /// would cost more than the rest of loading.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Creates a layer with PyTorch's initial values, generated on first use.
    pub fn new(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: uniform_param([outputs, inputs], inputs, device),
            bias: bias.then(|| uniform_param([outputs], inputs, device)),
        }
    }

    /// Applies the layer to the last dimension.
    ///
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
