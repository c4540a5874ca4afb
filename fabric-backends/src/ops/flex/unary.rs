//! Operations on one tensor.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::operation::Operation;
use super::{filled, like, numbers};
use crate::kernels::{activation, softmax};
use crate::ops::Pointwise;

/// An operation on one tensor.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) enum Unary {
    Pointwise(Pointwise),
    Geglu,
    Softmax,
}

/// Returns the length of the last axis.
fn last(x: &FlexTensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}

impl Operation<1> for Unary {
    fn forward(&self, [x]: [FlexTensor; 1]) -> FlexTensor {
        match self {
            Self::Pointwise(kind) => like(&x, |out| activation::forward(*kind, numbers(&x), out)),
            Self::Geglu => {
                let (mut shape, channels) = (x.shape(), last(&x) / 2);
                let axis = shape.num_dims() - 1;
                shape[axis] = channels;
                filled(shape, |out| activation::geglu(channels, numbers(&x), out))
            }
            Self::Softmax => like(&x, |out| softmax::forward(last(&x), numbers(&x), out)),
        }
    }

    fn keep(&self, [x]: [FlexTensor; 1], output: &FlexTensor) -> Vec<FlexTensor> {
        match self {
            Self::Pointwise(_) | Self::Geglu => vec![x],
            Self::Softmax => vec![output.clone()],
        }
    }

    fn backward(&self, kept: Vec<FlexTensor>, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let (kept, gradient) = (&kept[0], numbers(&gradient));
        [Some(like(kept, |out| match self {
            Self::Pointwise(kind) => activation::backward(*kind, numbers(kept), gradient, out),
            Self::Geglu => activation::geglu_backward(last(kept) / 2, numbers(kept), gradient, out),
            Self::Softmax => softmax::backward(last(kept), numbers(kept), gradient, out),
        }))]
    }
}
