//! Layers shared by all networks.
//!
//! Weights keep the layout and the names of the published files (`[out, in]`, `[out, in, height, width]`; `weight`,
//! `bias`). They are initialised on first use, so building a network of any size costs nothing until it is loaded. A
//! layer computes in the data type of its input: half-precision weights are cast layer by layer for an f32
//! computation, without a second copy of the network. On CPUs, all networks compute in f32.

mod activation;
mod conv;
mod count;
mod embedding;
mod linear;
mod norm;
mod resample;
mod resnet;

pub use activation::Activation;
pub use conv::Conv2d;
pub use count::{ParameterCount, count_parameters};
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use resample::Downsample;
pub(crate) use resample::Upsample;
pub use resnet::{Resnet, ResnetConfig};

use burn::module::Param;
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Tensor};
pub(crate) use fabric_backends::ops::cast;

/// Callback that receives the name and the output of each part of a network.
pub(crate) type Trace<'a> = Option<&'a mut dyn FnMut(&str, &Tensor<4>)>;

/// Calls the tracer, if there is one; the name is built only then.
pub(crate) fn show(trace: &mut Trace<'_>, name: impl FnOnce() -> String, x: &Tensor<4>) {
    if let Some(trace) = trace {
        trace(&name(), x);
    }
}

/// Returns the parameter's value in the data type of a computation.
pub(crate) fn value_as<const D: usize>(param: &Param<Tensor<D>>, dtype: DType) -> Tensor<D> {
    cast(param.val(), dtype)
}

/// Returns the data type in which a network with this weight computes.
pub(crate) fn computes_in<const D: usize>(weight: &Param<Tensor<D>>) -> DType {
    let weight = weight.val();
    fabric_backends::ops::computes_in(&weight.device(), weight.dtype())
}

/// Returns whether a type is too narrow for statistics and sums of exponentials.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Returns a parameter with PyTorch's initial values of linear layers and convolutions: uniform within
/// `±1/sqrt(fan_in)`.
fn uniform_param<const D: usize>(shape: [usize; D], fan_in: usize, device: &Device) -> Param<Tensor<D>> {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Initializer::Uniform { min: -bound, max: bound }.init(shape, device)
}

#[cfg(test)]
mod tests;
