use std::path::{Path, PathBuf};

use burn::tensor::DType;
use safetensors::Dtype;

use super::Mismatch;

/// Why weights or settings could not be read or written.
///
/// Every message says what, where, what was found, what was wanted and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing is where something should be.
    #[error("{}: there is no {what}; {next}", path.display())]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where.
        path: PathBuf,
        /// What to do.
        next: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done: "open", "read tensor x".
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file breaks the rules of its format.
    #[error("{}: {what}: expected {expected}, got {got}; {next}", path.display())]
    Malformed {
        /// The file or folder.
        path: PathBuf,
        /// The part of it that is wrong.
        what: String,
        /// What is there.
        got: String,
        /// What would be good.
        expected: String,
        /// What to do.
        next: String,
    },
    /// The names or shapes of a file are not those of the network.
    #[error(transparent)]
    Mismatch(#[from] Box<Mismatch>),
    /// A weight is NaN or infinite.
    #[error(
        "{place}: tensor `{tensor}` has the value {value} at index {index}, expected finite weights; \
         the file is damaged or its training diverged: get it again, or another one"
    )]
    NotFinite {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// Index of the first such value, counted over the flattened tensor.
        index: usize,
        /// That value.
        value: f32,
    },
    /// A weight is finite in the file and infinite in the type asked for.
    #[error(
        "{place}: tensor `{tensor}` has the value {value} at index {index}, too large for {dtype}; \
         load as bf16 or f32"
    )]
    TooLargeForType {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// Index of the first such value, counted over the flattened tensor.
        index: usize,
        /// That value.
        value: f32,
        /// The type asked for.
        dtype: &'static str,
    },
    /// A tensor's type is not one for weights.
    #[error(
        "{place}: tensor `{tensor}` has type {got:?}, expected F32, F16, BF16 or F64; \
         quantised files are not supported: get the f16 or f32 version"
    )]
    WrongType {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        got: Dtype,
    },
    /// A tensor that nobody has was asked for.
    #[error("{place}: there is no tensor `{tensor}`; names are listed by `TensorSource::tensors`")]
    NoSuchTensor {
        /// The file.
        place: String,
        /// The name.
        tensor: String,
    },
    /// A model of another family than the one asked for.
    #[error("{place}: {what}: expected {expected}, got {got}; {next}")]
    WrongFamily {
        /// The file or folder.
        place: String,
        /// What tells the family.
        what: String,
        /// The family found.
        got: String,
        /// The family wanted.
        expected: String,
        /// What to do.
        next: String,
    },
    /// A file that this build cannot read.
    #[error("{}: {what} needs the cargo feature `{feature}`, which is off; build with `--features {feature}`, or convert the file to safetensors", path.display())]
    FeatureOff {
        /// The file.
        path: PathBuf,
        /// What kind of file it is.
        what: String,
        /// The feature that reads it.
        feature: &'static str,
    },
    /// Weights in a type that the device has no arithmetic for.
    #[error(
        "{place}: tensor `{tensor}` would be {dtype:?}, which the device cannot compute with; load as `LoadDtype::F32`, or choose another device"
    )]
    UnsupportedType {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// The type it would have.
        dtype: DType,
    },
    /// The progress callback panicked; the file and the device are as they were.
    #[error("{place}: the progress callback panicked: {message}; mend the callback, or load without one")]
    Callback {
        /// The file that was being loaded.
        place: String,
        /// What it said.
        message: String,
    },
    /// The device failed while taking a tensor.
    #[error("{place}: the device failed while taking tensor `{tensor}`: {message}; is its memory large enough?")]
    Device {
        /// The file.
        place: String,
        /// The tensor.
        tensor: String,
        /// What the device said.
        message: String,
    },
}

impl LoadError {
    /// A failed system call.
    pub(crate) fn io(path: &Path, doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), doing: doing.into(), source }
    }

    /// A broken file.
    pub(crate) fn malformed(
        path: &Path,
        what: impl Into<String>,
        got: impl Into<String>,
        expected: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            what: what.into(),
            got: got.into(),
            expected: expected.into(),
            next: next.into(),
        }
    }
}

impl From<LoadError> for fabric_core::Error {
    fn from(error: LoadError) -> Self {
        Self::Model(Box::new(error))
    }
}
