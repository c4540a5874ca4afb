//! Two-dimensional convolution.

use burn::tensor::{Tensor, assert_shape, module, ops::ConvOptions};

/// A convolution without groups or dilation.
///
/// # Shapes
///
/// - `x`: `[rows, in, height, width]`
/// - `weight`: `[out, in, kernel height, kernel width]`
/// - `bias`: `[out]`
/// - `stride`: of both axes; `padding`: zeros before and after, along both axes
/// - returns: `[rows, out, (height + before + after - kernel height) / stride + 1, ..]`, rounded down
///
/// # Panics
///
/// If the shapes do not fit together, or the kernel is larger than the padded picture.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
) -> Tensor<4> {
    assert_shape!(x, [_, weight.dims()[1], _, _]);
    if let Some(bias) = &bias {
        assert_shape!(bias, [weight.dims()[0]]);
    }
    #[cfg(feature = "flex")]
    if super::flex::serves(&x) && super::flex::serves(&weight) && bias.as_ref().is_none_or(super::flex::serves) {
        let bias = bias.unwrap_or_else(|| super::flex::no_bias(&x));
        return super::flex::weighted(x, weight, bias, super::flex::Weighted::Conv2d { stride, padding });
    }
    plain(x, weight, bias, stride, padding)
}

/// Of burn's operations.
pub(super) fn plain(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: (usize, usize),
) -> Tensor<4> {
    let options = ConvOptions::new_with_padding([stride; 2], [padding; 2], [1, 1], 1);
    module::conv2d(x, weight, bias, options)
}
