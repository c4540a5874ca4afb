//! One way for all operations into burn's tape.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};

/// An operation on `N` tensors with a derivative of its own.
pub(super) trait Operation<const N: usize>: Debug + Clone + Send + 'static {
    /// An input as the kernels can read it: in one piece.
    fn readable(x: FlexTensor) -> FlexTensor {
        x.to_contiguous()
    }

    /// The result, of readable inputs.
    fn forward(&self, inputs: [FlexTensor; N]) -> FlexTensor;

    /// What [`backward`](Self::backward) will ask for.
    fn keep(&self, inputs: [FlexTensor; N], _output: &FlexTensor) -> Vec<FlexTensor> {
        inputs.to_vec()
    }

    /// The gradients of the inputs that are wanted, from a readable gradient of the result.
    fn backward(&self, kept: Vec<FlexTensor>, gradient: FlexTensor, expected: [bool; N]) -> [Option<FlexTensor>; N];
}

/// An operation's place on the tape.
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

/// Runs an operation, and notes it on the tape where an input wants a gradient.
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
