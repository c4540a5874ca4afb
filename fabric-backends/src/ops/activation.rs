//! Activation functions.

use burn::tensor::activation::{gelu, sigmoid, silu};
use burn::tensor::{Tensor, s};

/// Pointwise activation function with a specialised kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pointwise {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` with the exact cumulative normal distribution function.
    Gelu,
    /// `x · sigmoid(1.702 x)`, as in OpenAI's CLIP.
    QuickGelu,
}

/// Applies an activation function to every element.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use fabric_backends::ops::{Pointwise, pointwise};
/// let x = Tensor::<1>::from_floats([0.0, 50.0], &Device::flex());
/// assert_eq!(pointwise(x, Pointwise::Silu).into_data().as_slice::<f32>().unwrap(), [0.0, 50.0]);
/// # }
/// ```
pub fn pointwise<const D: usize>(x: Tensor<D>, kind: Pointwise) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if super::flex::is_supported(&x) {
        return super::flex::unary(x, super::flex::Unary::Pointwise(kind));
    }
    plain(x, kind)
}

/// Implementation with burn's operations.
pub(super) fn plain<const D: usize>(x: Tensor<D>, kind: Pointwise) -> Tensor<D> {
    match kind {
        Pointwise::Silu => silu(x),
        Pointwise::Gelu => gelu(x),
        Pointwise::QuickGelu => x.clone() * sigmoid(x * 1.702),
    }
}

/// Computes the gated GELU: the first half of the channels times the (exact) GELU of the second half.
///
/// # Shapes
///
/// - `x`: `[rows, tokens, 2 * channels]`
/// - returns: `[rows, tokens, channels]`
///
/// # Panics
///
/// If the number of channels is odd.
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    let [_, _, channels] = x.dims();
    assert!(channels.is_multiple_of(2), "geglu: {channels} channels, expected an even number");
    #[cfg(feature = "flex")]
    if super::flex::is_supported(&x) {
        return super::flex::unary(x, super::flex::Unary::Geglu);
    }
    plain_geglu(x)
}

/// Implementation with burn's operations.
pub(super) fn plain_geglu(x: Tensor<3>) -> Tensor<3> {
    let half = x.dims()[2] / 2;
    let value = x.clone().slice(s![.., .., ..half]);
    value * gelu(x.slice(s![.., .., half..]))
}
