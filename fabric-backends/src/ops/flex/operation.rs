//! Operation of the CPU kernels, with and without gradients.

use std::fmt::Debug;

use burn::backend::flex::FlexTensor;

/// Operation on `N` tensors with its own gradient.
#[cfg_attr(not(feature = "autodiff"), allow(dead_code, reason = "gradients need the feature"))]
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

/// Runs an operation without gradients.
pub(super) fn without_gradients<O: Operation<N>, const N: usize>(inputs: [FlexTensor; N], operation: O) -> FlexTensor {
    operation.forward(inputs.map(O::readable))
}
