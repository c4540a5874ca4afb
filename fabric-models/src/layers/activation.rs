use burn::tensor::activation::{gelu, gelu_approximate, relu, sigmoid, silu};
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::cast;

/// A pointwise nonlinearity, by the name that configurations use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(x)`; also called swish.
    #[serde(alias = "swish")]
    Silu,
    /// `x · Φ(x)` with the exact normal distribution function.
    Gelu,
    /// OpenAI's CLIP: `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// The tanh approximation of [`Activation::Gelu`].
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// Applies it to every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => gelu(x),
            Self::QuickGelu => x.clone() * sigmoid(x * 1.702),
            Self::GeluNew => gelu_approximate(x),
            Self::Relu => relu(x),
        }
    }
}

/// Gated GELU: the first half of the channels times the (exact) GELU of the second.
///
/// # Shapes
///
/// - `x`: `[rows, tokens, 2 * channels]`
/// - returns: `[rows, tokens, channels]`
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    let [_, _, channels] = x.dims();
    assert!(channels.is_multiple_of(2), "geglu: {channels} channels, wanted an even number");
    let half = channels / 2;
    let value = x.clone().narrow(2, 0, half);
    let gate = x.narrow(2, half, half);
    value * gelu(gate)
}

/// Runs `f` in f32 and brings its result back.
pub(crate) fn in_f32<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    cast(f(cast(x, DType::F32)), dtype)
}
