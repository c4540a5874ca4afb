//! Published names of parameters, and traversal of networks by these names.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::{Renamed, TensorInfo};

/// Mapping from the parameters of a network to their names in published files.
///
/// Fields of modules have descriptive names; only implementations of this trait depend on the names on disk.
pub trait PublishedNames {
    /// Returns the published name of the parameter at `path`.
    ///
    /// `path` is the path of burn's module traversal: field names, list indices and names of enum variants, joined
    /// with dots (`down_blocks.0.resnets.1.conv1.weight`).
    fn published_name(path: &str) -> String;

    /// Maps the names of a file in another published layout, or of a file that contains other networks as well. Tensors
    /// that are not listed belong to the other networks. `None` (the default) uses the names of the file unchanged.
    fn layout(&self, stored: &BTreeMap<String, TensorInfo>) -> Option<Vec<Renamed>> {
        let _ = stored;
        None
    }

    /// Returns the network without the optional parts that a file lacks; by default no part is optional.
    #[must_use]
    fn without_absent(self, stored: &BTreeMap<String, TensorInfo>) -> Self
    where
        Self: Sized,
    {
        let _ = stored;
        self
    }
}

/// Float parameter of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Path in the module.
    pub path: String,
    /// Name in published files.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
}

/// Lists all float parameters of a module in the order of its fields, without initialising them.
pub fn parameters<M: Module + PublishedNames>(module: &M) -> Vec<ParameterInfo> {
    struct Lister<F> {
        path: ModulePath,
        name: F,
        got: Vec<ParameterInfo>,
    }
    impl<F: Fn(&str) -> String> ModuleVisitor for Lister<F> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.exit();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.path.join();
            let name = (self.name)(&path);
            self.got.push(ParameterInfo { path, name, shape: param.lazy_shape().to_vec() });
        }
    }
    let mut lister = Lister { path: ModulePath::default(), name: M::published_name, got: Vec::new() };
    module.visit(&mut lister);
    lister.got
}

/// Current path of a module traversal.
#[derive(Debug, Default)]
pub(crate) struct ModulePath(Vec<String>);

impl ModulePath {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    pub(crate) fn join(&self) -> String {
        self.0.join(".")
    }
}
