use std::path::{Path, PathBuf};

use burn::tensor::DType;
use fabric_core::{InvalidValue, printable, printable_value};
use safetensors::Dtype;

use super::Mismatch;

/// Error while reading or writing weights or configurations.
///
/// Every message says what failed and where, the expected and the actual value, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file, folder or component does not exist.
    #[error("{}: there is no {what}; {next}", printable_value(path.display()), what = printable_value(.what))]
    NotFound {
        /// Missing item.
        what: String,
        /// Path of the missing item or of the file or folder that lacks it.
        path: PathBuf,
        /// Advice on what to do.
        next: String,
    },
    /// An operation of the operating system failed.
    #[error(
        "{}: cannot {doing}: {source}",
        printable_value(path.display()), doing = printable_value(.doing), source = printable_value(.source)
    )]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Operation that failed: "open", "read tensor x".
        doing: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file violates its format.
    #[error("{}: {value}", printable_value(path.display()))]
    Malformed {
        /// Path of the file or folder.
        path: PathBuf,
        /// The part of the file that is wrong.
        value: InvalidValue,
    },
    /// Tensor names or shapes of a file differ from those of the network.
    #[error(transparent)]
    Mismatch(#[from] Box<Mismatch>),
    /// A weight is NaN or infinite.
    #[error(
        "{place}: tensor `{tensor}` has the value {value} at index {index}, expected finite weights; \
         the file is damaged or its training diverged: get it again, or another one",
        place = printable_value(.place), tensor = printable(.tensor)
    )]
    NotFinite {
        /// Path of the file.
        place: String,
        /// Name of the tensor.
        tensor: String,
        /// Index of the first such value in the flattened tensor.
        index: usize,
        /// Value at this index.
        value: f32,
    },
    /// A weight is finite in the file and overflows in the requested type.
    #[error(
        "{place}: tensor `{tensor}` has the value {value} at index {index}, too large for {dtype}; \
         load as bf16 or f32",
        place = printable_value(.place), tensor = printable(.tensor)
    )]
    TooLargeForType {
        /// Path of the file.
        place: String,
        /// Name of the tensor.
        tensor: String,
        /// Index of the first such value in the flattened tensor.
        index: usize,
        /// Value at this index.
        value: f32,
        /// Requested type.
        dtype: &'static str,
    },
    /// A tensor has a type that is not supported for weights.
    #[error(
        "{place}: tensor `{tensor}` has type {got:?}, expected F32, F16, BF16 or F64; \
         of quantised files, only optimum-quanto's with 8-bit integers are supported: get the f16 or f32 version",
        place = printable_value(.place), tensor = printable(.tensor)
    )]
    WrongType {
        /// Path of the file.
        place: String,
        /// Name of the tensor.
        tensor: String,
        /// Type of the tensor.
        got: Dtype,
    },
    /// A file with quantised weights violates the layout of optimum-quanto, or uses a part of it that is not supported.
    #[error("{place}: {value}", place = printable_value(.place))]
    Quantised {
        /// Path of the file.
        place: String,
        /// The tensor that is wrong.
        value: InvalidValue,
    },
    /// The requested tensor does not exist.
    #[error(
        "{place}: there is no tensor `{tensor}`; names are listed by `TensorSource::tensors`",
        place = printable_value(.place), tensor = printable(.tensor)
    )]
    NoSuchTensor {
        /// Path of the file.
        place: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// The model is of another family than expected, or of a kind that is not supported.
    #[error("{place}: {value}", place = printable_value(.place))]
    WrongFamily {
        /// Path of the file or folder.
        place: String,
        /// The property by which the family was recognized.
        value: InvalidValue,
    },
    /// The file needs a cargo feature that is off.
    #[error(
        "{}: {what} needs the cargo feature `{feature}`, which is off; build with `--features {feature}`, or convert the file to safetensors",
        printable_value(path.display()), what = printable_value(.what)
    )]
    FeatureOff {
        /// Path of the file.
        path: PathBuf,
        /// Kind of file.
        what: String,
        /// Required feature.
        feature: &'static str,
    },
    /// The device does not support the type of the weights.
    #[error(
        "{place}: tensor `{tensor}` would be {dtype:?}, which the device cannot compute with; load as `LoadDtype::F32`, or choose another device",
        place = printable_value(.place), tensor = printable(.tensor)
    )]
    UnsupportedType {
        /// Path of the file.
        place: String,
        /// Name of the tensor.
        tensor: String,
        /// Type that the tensor would have.
        dtype: DType,
    },
    /// The progress callback panicked. The file and the device are not affected.
    #[error(
        "{place}: the progress callback panicked: {message}; mend the callback, or load without one",
        place = printable_value(.place), message = printable_value(.message)
    )]
    Callback {
        /// Path of the file that was being loaded.
        place: String,
        /// Panic message.
        message: String,
    },
    /// The device failed while a tensor was transferred to or from it.
    #[error(
        "{place}: the device failed while taking tensor `{tensor}`: {message}; is its memory large enough?",
        place = printable_value(.place), tensor = printable(.tensor), message = printable_value(.message)
    )]
    Device {
        /// Path of the file.
        place: String,
        /// Name of the tensor.
        tensor: String,
        /// Error message of the device.
        message: String,
    },
}

impl LoadError {
    /// Creates [`LoadError::Io`].
    pub(crate) fn io(path: &Path, doing: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), doing: doing.into(), source }
    }

    /// Creates [`LoadError::Malformed`].
    pub(crate) fn malformed(
        path: &Path,
        what: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::Malformed { path: path.to_owned(), value: InvalidValue::new(what, got, expected, next) }
    }
}

impl From<LoadError> for fabric_core::Error {
    fn from(error: LoadError) -> Self {
        Self::Model(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let (tensor, file) = (|| text.clone(), || "x.safetensors".to_owned());
            let (path, hostile) = (PathBuf::from("x.safetensors"), PathBuf::from(&text));
            let next = || "get it again".to_owned();
            let value = |what: &str, got: &str| InvalidValue::new(what, got, "a number", next());
            let gone = || io::Error::other("gone");
            let errors = [
                LoadError::NotFound { what: format!("shard `{text}`"), path: path.clone(), next: next() },
                LoadError::NotFound { what: "such file".to_owned(), path: hostile.clone(), next: next() },
                LoadError::io(&path, format!("read tensor `{text}`"), gone()),
                LoadError::io(&path, "read", io::Error::other(text.clone())),
                LoadError::io(&hostile, "read", gone()),
                LoadError::malformed(&path, format!("tensor `{text}`"), 1, "2", next()),
                LoadError::malformed(&path, "settings", &text, "2", next()),
                LoadError::malformed(&hostile, "settings", 1, "2", next()),
                LoadError::NotFinite { place: file(), tensor: tensor(), index: 0, value: f32::NAN },
                LoadError::TooLargeForType { place: file(), tensor: tensor(), index: 0, value: 1e9, dtype: "f16" },
                LoadError::WrongType { place: file(), tensor: tensor(), got: Dtype::I8 },
                LoadError::Quantised { place: file(), value: value(&text, "1") },
                LoadError::NoSuchTensor { place: file(), tensor: tensor() },
                LoadError::WrongFamily { place: file(), value: value("model", &text) },
                LoadError::WrongFamily { place: text.clone(), value: value("model", "1") },
                LoadError::FeatureOff { path: hostile.clone(), what: "a pickle".to_owned(), feature: "pickle" },
                LoadError::UnsupportedType { place: file(), tensor: tensor(), dtype: DType::BF16 },
                LoadError::Callback { place: text.clone(), message: "a panic".to_owned() },
                LoadError::Device { place: file(), tensor: tensor(), message: "no memory".to_owned() },
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }
}
