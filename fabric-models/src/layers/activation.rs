use burn::tensor::activation::{gelu_approximate, relu};
use burn::tensor::{DType, Tensor};
use fabric_backends::ops::{Pointwise, pointwise};
use serde::{Deserialize, Serialize};

use super::cast;

/// Activation function, with the names used in configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(x)`; also called swish.
    #[serde(alias = "swish")]
    Silu,
    /// `x · Φ(x)` with the exact normal distribution function.
    Gelu,
    /// `x · sigmoid(1.702 x)`, as in OpenAI's CLIP.
    QuickGelu,
    /// The tanh approximation of [`Activation::Gelu`].
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// Applies the function to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => pointwise(x, Pointwise::Silu),
            Self::Gelu => pointwise(x, Pointwise::Gelu),
            Self::QuickGelu => pointwise(x, Pointwise::QuickGelu),
            Self::GeluNew => gelu_approximate(x),
            Self::Relu => relu(x),
        }
    }
}

/// Runs `f` in f32 and casts its result back.
pub(crate) fn in_f32<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    cast(f(cast(x, DType::F32)), dtype)
}
