//! Where tensors come from.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use safetensors::Dtype;

use super::LoadError;

/// What is known of a stored tensor without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of its values.
    pub dtype: Dtype,
    /// Its shape, PyTorch's axis order.
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size of the values in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bitsize() / 8
    }
}

/// A tensor's values in host memory, as they were stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTensor {
    /// Type and shape.
    pub info: TensorInfo,
    /// The values, little-endian, last axis fastest.
    pub bytes: Vec<u8>,
}

/// Named tensors that can be read one at a time: a file, several files, or a part of one under other names.
///
/// Whoever implements it has checked everything that can be checked without reading values: sizes fit the
/// shapes, nothing lies outside the file.
pub trait TensorSource: Debug + Send + Sync {
    /// Where the tensors come from, for messages: the path of a file.
    fn place(&self) -> String;

    /// All tensors, by name.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;

    /// Reads one tensor.
    ///
    /// # Errors
    ///
    /// When there is no such tensor, or its file cannot be read (it may have been cut since it was opened).
    fn read(&self, name: &str) -> Result<HostTensor, LoadError>;

    /// What the file says beside its tensors under this name: an entry of a safetensors header's `__metadata__`, or a
    /// number or text at the top of a training checkpoint (`global_step`). `None` where it says nothing.
    fn note(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

impl<S: TensorSource + ?Sized> TensorSource for &S {
    fn place(&self) -> String {
        (**self).place()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        (**self).tensors()
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        (**self).read(name)
    }

    fn note(&self, name: &str) -> Option<String> {
        (**self).note(name)
    }
}

impl<S: TensorSource + ?Sized> TensorSource for Arc<S> {
    fn place(&self) -> String {
        (**self).place()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        (**self).tensors()
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        (**self).read(name)
    }

    fn note(&self, name: &str) -> Option<String> {
        (**self).note(name)
    }
}
