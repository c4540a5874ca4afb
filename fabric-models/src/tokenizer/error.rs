use std::path::PathBuf;

use fabric_core::{printable, printable_value};

/// Error in a tokenizer's files or in a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file of the tokenizer cannot be read.
    #[error(
        "{}: cannot be read ({source}); a tokenizer folder holds `vocab.json` and `merges.txt`, or `tokenizer.json`",
        printable_value(path.display()), source = printable_value(.source)
    )]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the tokenizer cannot be written.
    #[error("{}: cannot be written ({source})", printable_value(path.display()), source = printable_value(.source))]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is too large for a tokenizer's file.
    #[error(
        "{}: expected at most {limit} bytes, got {got}; this is not a tokenizer's file",
        printable_value(path.display())
    )]
    FileTooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Size of the file in bytes.
        got: u64,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// The contents of a file are not as expected.
    #[error(
        "{file}: expected {expected}, got {got}; download the tokenizer's files again",
        file = printable_value(.file), expected = printable_value(.expected), got = printable_value(.got)
    )]
    Corrupt {
        /// Path of the file.
        file: String,
        /// Description of the contents.
        got: String,
        /// Description of the expected contents.
        expected: String,
    },
    /// A file refers to a token that is not in the vocabulary.
    #[error(
        "{file}: {what} needs the token {token}, which the vocabulary has not; take all files from the same model",
        file = printable_value(.file), what = printable_value(.what), token = quoted(.token)
    )]
    UnknownToken {
        /// The file that names the token.
        file: String,
        /// Entry of the file that needs the token.
        what: String,
        /// The token.
        token: String,
    },
    /// A prompt is too long.
    #[error("the prompt has {got} bytes, at most {limit} are read; shorten it")]
    PromptTooLong {
        /// Length of the prompt in bytes.
        got: usize,
        /// Maximum length in bytes.
        limit: usize,
    },
    /// The length of the tokenizer window is too small or too large.
    #[error("a window of {got} tokens; expected {expected}: the text encoder's `max_position_embeddings`, usually 77")]
    Window {
        /// Length of the window in tokens.
        got: usize,
        /// The accepted lengths.
        expected: String,
    },
    /// A weight in a prompt is not a number or is out of range.
    #[error(
        "the weight of {text} is {got}, expected a number from -{limit} to {limit}; write `\\(` for a bracket that is text",
        text = quoted(.text), got = printable(.got)
    )]
    Weight {
        /// The text in the brackets.
        text: String,
        /// The weight.
        got: String,
        /// Maximum absolute value.
        limit: f32,
    },
    /// A token id is not in the vocabulary.
    #[error("token id {got} is not in the vocabulary of {size} tokens; was it made by another tokenizer?")]
    UnknownId {
        /// The id.
        got: u32,
        /// Number of tokens in the vocabulary.
        size: usize,
    },
}

/// Returns a token or a part of a prompt in quotes.
fn quoted(text: &str) -> String {
    printable(format_args!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let (name, file) = (|| text.clone(), || "merges.txt".to_owned());
            let (path, hostile) = (PathBuf::from("merges.txt"), PathBuf::from(&text));
            let known = || "one token for each id".to_owned();
            let errors = [
                TokenizerError::Io { path: path.clone(), source: io::Error::other(name()) },
                TokenizerError::Io { path: hostile.clone(), source: io::Error::other("gone") },
                TokenizerError::Write { path: hostile.clone(), source: io::Error::other("gone") },
                TokenizerError::FileTooLarge { path: hostile.clone(), got: 2, limit: 1 },
                TokenizerError::Corrupt { file: file(), got: name(), expected: known() },
                TokenizerError::Corrupt { file: file(), got: "1".to_owned(), expected: name() },
                TokenizerError::Corrupt { file: name(), got: "1".to_owned(), expected: known() },
                TokenizerError::UnknownToken { file: file(), what: "line 1".to_owned(), token: name() },
                TokenizerError::UnknownToken { file: file(), what: name(), token: "a".to_owned() },
                TokenizerError::Weight { text: name(), got: name(), limit: 1.0 },
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }

    #[test]
    fn tokens_are_shown_in_quotes() {
        assert_eq!(quoted("a\"</w>"), "\"a\\\"</w>\"");
    }
}
