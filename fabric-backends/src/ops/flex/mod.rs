//! Operations on burn's CPU backend Flex: wraps [`crate::kernels`] for its tensors, with gradients.

mod attention;
#[cfg(feature = "autodiff")]
mod autodiff;
mod groups;
mod halves;
mod memory;
mod operation;
mod unary;
mod weighted;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, DType, Shape, Tensor};

use crate::kernels::isa::arch;
use groups::Groups;

pub(super) use attention::Attention;
pub(crate) use memory::kept_bytes;
pub(super) use unary::Unary;
pub(super) use weighted::Weighted;

/// Whether these kernels support the tensor: on the Flex backend, f32, not empty, and on a processor with fused
/// multiply-add.
pub(super) fn is_supported<const D: usize>(x: &Tensor<D>) -> bool {
    is_here(x) && x.dtype() == DType::F32 && !x.dims().contains(&0) && has_fused_multiply_add()
}

/// Whether the tensor is f16 or bf16 on the Flex backend, so that [`widened`] can convert it.
pub(super) fn widens<const D: usize>(x: &Tensor<D>) -> bool {
    is_here(x) && matches!(x.dtype(), DType::F16 | DType::BF16)
}

/// Whether the tensor is on the Flex backend. With autodiff it counts only if the kernels have their gradients: the
/// program may have enabled burn's autodiff without this crate's, and burn's own operations have gradients then.
fn is_here<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    #[cfg(feature = "autodiff")]
    let device = device.inner();
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// Converts f16 or bf16 to f32.
pub(super) fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Kernels>::widened(x.into_dispatch()))
}

/// Whether the processor has the fused multiply-add instruction that the kernels use. Without it, each one is a
/// slow function call, and burn's own operations are faster.
fn has_fused_multiply_add() -> bool {
    cfg!(not(any(target_arch = "x86", target_arch = "x86_64"))) || !matches!(arch(), pulp::Arch::Scalar)
}

/// Returns the empty tensor that stands for no bias.
pub(super) fn no_bias<const D: usize>(beside: &Tensor<D>) -> Tensor<1> {
    Tensor::zeros([0], (&beside.device(), DType::F32))
}

/// Runs an operation on one tensor.
pub(super) fn unary<const D: usize>(x: Tensor<D>, operation: Unary) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Kernels>::unary(x.into_dispatch(), operation))
}

/// Runs an operation on a tensor with a weight and a bias.
pub(super) fn weighted<const D: usize, const W: usize>(
    x: Tensor<D>,
    weight: Tensor<W>,
    bias: Tensor<1>,
    operation: Weighted,
) -> Tensor<D> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::weighted(x, weight, bias, operation))
}

/// Computes attention over the keys of all groups in one softmax.
pub(super) fn attend(
    query: Tensor<4>,
    keys: Vec<Tensor<4>>,
    values: Vec<Tensor<4>>,
    operation: Attention,
) -> Tensor<4> {
    let groups = keys.into_iter().zip(values).map(|(key, value)| [key, value].map(Tensor::into_dispatch));
    let groups = Groups(groups.collect());
    Tensor::from_dispatch(<Dispatch as Kernels>::attend(query.into_dispatch(), groups, operation))
}

/// Operations that burn's dispatch routes to this backend.
#[backend_extension(Flex, Autodiff: cfg(feature = "autodiff"))]
trait Kernels: Backend {
    fn widened(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn unary(x: FloatTensor<Self>, operation: Unary) -> FloatTensor<Self>;

    fn weighted(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        operation: Weighted,
    ) -> FloatTensor<Self>;

    fn attend(
        query: FloatTensor<Self>,
        #[extension_type] groups: Groups<Self>,
        operation: Attention,
    ) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn widened(x: FlexTensor) -> FlexTensor {
        halves::widened(x)
    }

    fn unary(x: FlexTensor, operation: Unary) -> FlexTensor {
        operation::without_gradients([x], operation)
    }

    fn weighted(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, operation: Weighted) -> FlexTensor {
        operation::without_gradients([x, weight, bias], operation)
    }

    fn attend(query: FlexTensor, groups: Groups<Self>, operation: Attention) -> FlexTensor {
        operation.of_groups(query, groups.0)
    }
}

/// Returns the values of a contiguous tensor.
fn numbers(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("a tensor that was laid out in one piece")
}

/// Creates a tensor from these values.
fn tensor(numbers: Vec<f32>, shape: Shape) -> FlexTensor {
    let layout = Layout::contiguous(shape);
    FlexTensor::new(Bytes::from_elems(numbers), layout, DType::F32)
}

/// Creates a tensor of this shape. The values that `f` receives are arbitrary, so it must write all of them.
fn filled(shape: Shape, f: impl FnOnce(&mut [f32])) -> FlexTensor {
    memory::filled(shape.num_elements(), Layout::contiguous(shape), f)
}

/// Creates a tensor of the shape of `x`. The values that `f` receives are arbitrary, so it must write all of
/// them.
fn like(x: &FlexTensor, f: impl FnOnce(&mut [f32])) -> FlexTensor {
    filled(x.shape(), f)
}
