//! Linear layers.

use burn::tensor::{Tensor, assert_shape, module};

/// Computes a linear layer, `y = x · weightᵀ + bias`.
///
/// # Shapes
///
/// - `x`: `[.., in]`
/// - `weight`: `[out, in]`, as in published checkpoints
/// - `bias`: `[out]`
/// - returns: `[.., out]`
///
/// # Panics
///
/// If the shapes do not match.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    assert_shape!(x, [.., weight.dims()[1]]);
    if let Some(bias) = &bias {
        assert_shape!(bias, [weight.dims()[0]]);
    }
    #[cfg(feature = "flex")]
    if super::flex::is_supported(&x)
        && super::flex::is_supported(&weight)
        && bias.as_ref().is_none_or(super::flex::is_supported)
    {
        let bias = bias.unwrap_or_else(|| super::flex::no_bias(&x));
        return super::flex::weighted(x, weight, bias, super::flex::Weighted::Linear);
    }
    plain(x, weight, bias)
}

/// Implementation with burn's operations.
pub(super) fn plain<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let [outputs, inputs] = weight.dims();
    let mut shape = x.dims();
    shape[D - 1] = outputs;
    // Flattens all leading axes: one large product is faster than a batch of small ones.
    let flat = x.reshape([-1, inputs as i64]);
    module::linear(flat, weight.transpose(), bias).reshape(shape)
}
