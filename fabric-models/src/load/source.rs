//! The interface for reading tensors from files.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use safetensors::Dtype;

use super::LoadError;

/// Type and shape of a stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of the values.
    pub dtype: Dtype,
    /// Shape, in PyTorch's axis order.
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

/// Tensor in host memory, in the type in which it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTensor {
    /// Type and shape.
    pub info: TensorInfo,
    /// Values in little-endian byte order, row-major (last axis fastest).
    pub bytes: Vec<u8>,
}

/// Named tensors that can be read one at a time: a file, several files, or part of a file under other names.
///
/// Implementations check everything that can be checked without reading values: sizes match shapes, and no tensor
/// lies outside its file.
pub trait TensorSource: Debug + Send + Sync {
    /// Path of the file, for messages.
    fn place(&self) -> String;

    /// All tensors, by name.
    fn tensors(&self) -> &BTreeMap<String, TensorInfo>;

    /// Reads one tensor.
    ///
    /// # Errors
    ///
    /// Returns an error if the tensor does not exist or its file cannot be read (for example, it was truncated after
    /// it was opened).
    fn read(&self, name: &str) -> Result<HostTensor, LoadError>;

    /// Returns a metadata entry of the file: an entry of `__metadata__` in a safetensors header, or an integer or text
    /// at the top level of a training checkpoint (`global_step`). `None` if there is no such entry.
    fn note(&self, name: &str) -> Option<String> {
        self.notes().remove(name)
    }

    /// Returns all metadata entries of the file that [`Self::note`] returns; by default there are none.
    fn notes(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
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

    fn notes(&self) -> BTreeMap<String, String> {
        (**self).notes()
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

    fn notes(&self) -> BTreeMap<String, String> {
        (**self).notes()
    }
}
