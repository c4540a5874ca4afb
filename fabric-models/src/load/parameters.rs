//! Published names, and walks over a network by them.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::{Renamed, TensorInfo};

/// A network that knows under which names its weights are published.
///
/// Fields are named for what they are; this table is the one place that knows what they are called on disk.
pub trait PublishedNames {
    /// The name in the published file of the parameter at `path`.
    ///
    /// `path` is what burn's module traversal gives: field names, indices of lists and names of enum variants,
    /// joined with dots (`down_blocks.0.resnets.1.conv1.weight`).
    fn published_name(path: &str) -> String;

    /// Where this network's tensors are in a file that names them in another published way, or holds other networks too;
    /// tensors that are not listed belong to those. `None` (the default) takes the file as it is.
    fn layout(&self, stored: &BTreeMap<String, TensorInfo>) -> Option<Vec<Renamed>> {
        let _ = stored;
        None
    }

    /// The same network without the optional parts that a file lacks; by default none is optional.
    #[must_use]
    fn without_absent(self, stored: &BTreeMap<String, TensorInfo>) -> Self
    where
        Self: Sized,
    {
        let _ = stored;
        self
    }
}

/// A float parameter of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its place in the module.
    pub path: String,
    /// Its name in published files.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Every float parameter of a module, in the order of its fields, without initialising any.
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

/// Where a traversal is.
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
