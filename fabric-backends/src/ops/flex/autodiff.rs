//! Registers the CPU kernels with burn's autodiff.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::FloatDType;

use super::groups::Groups;
use super::operation::Operation;
use super::{Attention, Kernels, Unary, Weighted};

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn widened(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_cast(x, FloatDType::F32)
    }

    fn unary(x: FloatTensor<Self>, operation: Unary) -> FloatTensor<Self> {
        run::<C, _, 1>([x], operation)
    }

    fn weighted(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        operation: Weighted,
    ) -> FloatTensor<Self> {
        run::<C, _, 3>([x, weight, bias], operation)
    }

    fn attend(query: FloatTensor<Self>, groups: Groups<Self>, operation: Attention) -> FloatTensor<Self> {
        // The backward pass needs all keys in one tensor.
        let [key, value] = groups.keys_and_values().map(|mut groups| match groups.len() {
            1 => groups.remove(0),
            _ => Self::float_cat(groups, 2),
        });
        run::<C, _, 3>([query, key, value], operation)
    }
}

/// Node of the autodiff graph.
#[derive(Debug)]
struct Step<O>(O);

impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Step<O> {
    type State = Vec<FlexTensor>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let expected = ops.parents.each_ref().map(Option::is_some);
        let got = self.0.backward(ops.state, O::readable(gradient), expected);
        for (parent, gradient) in ops.parents.into_iter().zip(got) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, gradient.expect("the gradient of an input that wants one"));
            }
        }
    }
}

/// Runs an operation, and records it in the autodiff graph if an input requires a gradient.
fn run<C: CheckpointStrategy, O: Operation<N>, const N: usize>(
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
    operation: O,
) -> FloatTensor<Autodiff<Flex, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| O::readable(input.into_primitive()));
    match Step(operation.clone()).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let output = operation.forward(inputs.clone());
            prep.finish(operation.keep(inputs, &output), output)
        }
        OpsKind::UnTracked(prep) => prep.finish(operation.forward(inputs)),
    }
}
