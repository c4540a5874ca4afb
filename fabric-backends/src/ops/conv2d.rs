//! Two-dimensional convolution.

use burn::tensor::{Tensor, assert_shape, module, ops::ConvOptions};

use crate::device::is_cpu;

/// Computes a two-dimensional convolution without groups or dilation.
///
/// # Shapes
///
/// - `x`: `[rows, in, height, width]`
/// - `weight`: `[out, in, kernel height, kernel width]`
/// - `bias`: `[out]`
/// - `stride`: for both axes; `padding`: zeros before and after, along both axes
/// - returns: `[rows, out, (height + before + after - kernel height) / stride + 1, ..]`, rounded down
///
/// # Panics
///
/// If the shapes do not match, or the kernel is larger than the padded image.
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
    if super::flex::is_supported(&x)
        && super::flex::is_supported(&weight)
        && bias.as_ref().is_none_or(super::flex::is_supported)
    {
        let bias = bias.unwrap_or_else(|| super::flex::no_bias(&x));
        return super::flex::weighted(x, weight, bias, super::flex::Weighted::Conv2d { stride, padding });
    }
    plain(x, weight, bias, stride, padding)
}

/// Returns the tensor in the memory layout that the device's convolution kernels read.
///
/// On a GPU, input channels become innermost; otherwise its kernels would copy the weight into that order on
/// each call. 1x1 kernels, tensors that are not 4D and tensors on a CPU are returned unchanged. Shape and
/// values never change.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Distribution, Tensor};
/// let weight = Tensor::<4>::random([8, 4, 3, 3], Distribution::Default, &Device::flex());
/// assert_eq!(fabric_backends::ops::to_kernel_layout(weight.clone()).into_data(), weight.into_data());
/// # }
/// ```
pub fn to_kernel_layout<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    let dims = weight.dims();
    if D != 4 || dims[2..] == [1, 1] || is_cpu(&weight.device()) { weight } else { channels_last(weight) }
}

/// Returns a view of the same shape whose memory has the second axis innermost.
pub(super) fn channels_last<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let to: [isize; D] = std::array::from_fn(|axis| if axis == 0 { 0 } else { (axis % (D - 1) + 1) as isize });
    let back: [isize; D] = std::array::from_fn(|axis| match axis {
        0 => 0,
        1 => D as isize - 1,
        _ => axis as isize - 1,
    });
    let x = x.permute(to);
    let dims = x.dims();
    // The reshape forces the copy.
    x.reshape([-1]).reshape(dims).permute(back)
}

/// Implementation with burn's operations.
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
