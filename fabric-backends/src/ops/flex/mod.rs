//! Operations on burn's own CPU backend: [`crate::kernels`] behind its tensors, with their derivatives.

mod attention;
mod derivative;
mod one;
mod three;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchDevice, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};

pub(super) use attention::Attention;
pub(super) use one::One;
pub(super) use three::Three;

/// Whether a tensor is where these kernels are, and of their number type.
pub(super) fn serves<const D: usize>(x: &Tensor<D>) -> bool {
    // Other features of burn bring other devices.
    #[allow(unreachable_patterns, reason = "some builds have this backend alone")]
    let here = match x.device().inner().as_dispatch() {
        DispatchDevice::Flex(_) => true,
        _ => false,
    };
    here && x.dtype() == DType::F32
}

/// An operation on one tensor.
pub(super) fn one<const D: usize>(x: Tensor<D>, operation: One) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Kernels>::one(x.into_dispatch(), operation))
}

/// An operation on a tensor with a weight and a bias.
pub(super) fn three<const D: usize, const W: usize>(
    x: Tensor<D>,
    weight: Tensor<W>,
    bias: Tensor<1>,
    operation: Three,
) -> Tensor<D> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::three(x, weight, bias, operation))
}

/// Attention.
pub(super) fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, operation: Attention) -> Tensor<4> {
    let (query, key, value) = (query.into_dispatch(), key.into_dispatch(), value.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::attend(query, key, value, operation))
}

/// What burn's dispatch routes to this backend.
#[backend_extension(Flex, Autodiff)]
trait Kernels: Backend {
    fn one(x: FloatTensor<Self>, operation: One) -> FloatTensor<Self>;

    fn three(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        operation: Three,
    ) -> FloatTensor<Self>;

    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        operation: Attention,
    ) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn one(x: FlexTensor, operation: One) -> FlexTensor {
        derivative::Operation::forward(&operation, [x])
    }

    fn three(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, operation: Three) -> FlexTensor {
        derivative::Operation::forward(&operation, [x, weight, bias])
    }

    fn attend(query: FlexTensor, key: FlexTensor, value: FlexTensor, operation: Attention) -> FlexTensor {
        derivative::Operation::forward(&operation, [query, key, value])
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn one(x: FloatTensor<Self>, operation: One) -> FloatTensor<Self> {
        derivative::run::<C, _, 1>([x], operation)
    }

    fn three(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        operation: Three,
    ) -> FloatTensor<Self> {
        derivative::run::<C, _, 3>([x, weight, bias], operation)
    }

    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        operation: Attention,
    ) -> FloatTensor<Self> {
        derivative::run::<C, _, 3>([query, key, value], operation)
    }
}

/// The numbers of a tensor that lies in one piece.
fn numbers(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("a tensor that was laid out in one piece")
}

/// A tensor of these numbers.
fn tensor(numbers: Vec<f32>, shape: burn::tensor::Shape) -> FlexTensor {
    let layout = burn::backend::flex::Layout::contiguous(shape);
    FlexTensor::new(burn::tensor::Bytes::from_elems(numbers), layout, DType::F32)
}

/// The same shape, filled by `f`.
fn like(x: &FlexTensor, f: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut out = vec![0.0; x.shape().num_elements()];
    f(&mut out);
    tensor(out, x.shape())
}
