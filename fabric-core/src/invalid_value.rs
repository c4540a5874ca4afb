//! The error of a value that cannot be used, shared by all error types.

use crate::printable_text::{MAX_EXPECTED, MAX_VALUE, one_line};

/// A value that cannot be used: what it is, what was expected, what was given, and what to do.
///
/// The message is one line. It escapes characters that a terminal would execute, and cuts long texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: expected {}, got {}; {}",
    one_line(.what, MAX_VALUE),
    one_line(.expected, MAX_EXPECTED),
    one_line(.got, MAX_VALUE),
    one_line(.help, MAX_VALUE)
)]
pub struct InvalidValue {
    /// The setting, file entry or argument.
    pub what: String,
    /// The accepted values.
    pub expected: String,
    /// The value that was given.
    pub got: String,
    /// How to resolve the error.
    pub help: String,
}

impl InvalidValue {
    /// Creates the error.
    pub fn new(
        what: impl Into<String>,
        got: impl ToString,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), got: got.to_string(), expected: expected.into(), help: help.into() }
    }
}
