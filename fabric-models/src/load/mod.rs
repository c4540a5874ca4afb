//! Weights and settings: from files into modules, and back.
//!
//! A file is a [`TensorSource`]: names with shapes and types, read one tensor at a time. A network says under
//! which names its parameters are published ([`PublishedNames`]), and [`load_into`] joins the two: it compares
//! every name and every shape before it reads anything, then fills the module and returns a [`LoadReport`].
//!
//! | on disk | read with |
//! |---|---|
//! | one `.safetensors` file | [`SafetensorsFile`] |

mod apply;
mod convert;
mod error;
mod header;
mod mismatch;
mod options;
mod parameters;
mod safetensors_file;
mod source;

pub use apply::{LoadReport, load_into};
pub use error::LoadError;
pub use mismatch::{Mismatch, MissingTensor, ShapeMismatch};
pub use options::{LoadDtype, LoadOptions, LoadProgress, ProgressCallback};
pub use parameters::{ParameterInfo, PublishedNames, parameters};
pub use safetensors::Dtype;
pub use safetensors_file::SafetensorsFile;
pub use source::{HostTensor, TensorInfo, TensorSource};
