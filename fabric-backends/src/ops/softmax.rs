//! Softmax over the last axis.

use burn::tensor::{Tensor, activation};

/// Computes the softmax over the last axis.
///
/// # Shapes
///
/// - `x`: `[.., elements]`
/// - returns: same shape; each row of elements sums to 1
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if super::flex::is_supported(&x) {
        return super::flex::unary(x, super::flex::Unary::Softmax);
    }
    activation::softmax(x, D - 1)
}
