use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// Number of parameters and tensors of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParameterCount {
    /// Number of elements of all tensors.
    pub parameters: usize,
    /// Number of tensors.
    pub tensors: usize,
}

/// Counts a network's parameters from their shapes; no weights are initialised or allocated.
pub fn count_parameters<M: Module>(module: &M) -> ParameterCount {
    let mut count = ParameterCount::default();
    module.visit(&mut count);
    count
}

impl ModuleVisitor for ParameterCount {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.parameters += param.lazy_shape().num_elements();
        self.tensors += 1;
    }
}
