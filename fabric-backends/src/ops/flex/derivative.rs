//! Registers the CPU kernels with burn's autodiff.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};

/// Operation on `N` tensors with its own gradient.
pub(super) trait Operation<const N: usize>: Debug + Clone + Send + 'static {
    /// Returns an input in a layout that the kernels can read, by default contiguous.
    fn readable(x: FlexTensor) -> FlexTensor {
        x.to_contiguous()
    }

    /// Computes the result from readable inputs.
    fn forward(&self, inputs: [FlexTensor; N]) -> FlexTensor;

    /// Returns the tensors that [`backward`](Self::backward) needs.
    fn keep(&self, inputs: [FlexTensor; N], _output: &FlexTensor) -> Vec<FlexTensor> {
        inputs.to_vec()
    }

    /// Computes the gradients of the inputs for which `expected` is set, from a readable gradient of the
    /// result.
    fn backward(&self, kept: Vec<FlexTensor>, gradient: FlexTensor, expected: [bool; N]) -> [Option<FlexTensor>; N];
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

/// Runs an operation without gradients.
pub(super) fn on_cpu<O: Operation<N>, const N: usize>(inputs: [FlexTensor; N], operation: O) -> FlexTensor {
    operation.forward(inputs.map(O::readable))
}

/// Runs an operation, and records it in the autodiff graph if an input requires a gradient.
pub(super) fn run<C: CheckpointStrategy, O: Operation<N>, const N: usize>(
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
