//! The error of a value that cannot be used, shared by all error types.

use fabric_backends::printable_text::{one_line, printable_value};

/// Number of bytes of accepted values that a message shows: lists of all known names have up to 1500.
const MAX_EXPECTED: usize = 2000;

/// A value that cannot be used: what it is, what was expected, what was given, and what to do.
///
/// The message is one line. It escapes characters that a terminal would execute, and cuts long texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: expected {}, got {}; {}",
    printable_value(.what),
    one_line(.expected, MAX_EXPECTED),
    printable_value(.got),
    printable_value(.help)
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
