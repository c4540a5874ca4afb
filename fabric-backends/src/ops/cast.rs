//! Number types.

use burn::tensor::{DType, Device, Tensor};

/// Converts the tensor to another number type; free if it already has that type.
///
/// On the CPU, f16 and bf16 are converted to f32 on all cores. Networks with 16-bit weights, which take half
/// the memory, compute this way.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{DType, Device, Tensor};
/// use fabric_backends::ops::cast;
/// let half = cast(Tensor::<1>::from_floats([0.1, 65504.0], &Device::flex()), DType::F16);
/// assert_eq!(cast(half, DType::F32).into_data().as_slice::<f32>().unwrap(), [0.099975586, 65504.0]);
/// # }
/// ```
pub fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype {
        return x;
    }
    #[cfg(feature = "flex")]
    if dtype == DType::F32 && super::flex::widens(&x) {
        return super::flex::widened(x);
    }
    x.cast(dtype)
}

/// Returns the number type in which a network with weights of this type computes on this device: f32 for f16
/// and bf16 weights on CPUs, which have hardly any 16-bit arithmetic, otherwise the type of the weights.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{DType, Device};
/// assert_eq!(fabric_backends::ops::computes_in(&Device::flex(), DType::F16), DType::F32);
/// # }
/// ```
pub fn computes_in(device: &Device, weights: DType) -> DType {
    let is_half = matches!(weights, DType::F16 | DType::BF16);
    if is_half && crate::device::is_cpu(device) { DType::F32 } else { weights }
}
