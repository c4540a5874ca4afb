use std::path::PathBuf;

/// Error in a tokenizer's files or in a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file of the tokenizer cannot be read.
    #[error("{}: cannot be read ({source}); a tokenizer folder holds `vocab.json` and `merges.txt`, or `tokenizer.json`", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the tokenizer cannot be written.
    #[error("{}: cannot be written ({source})", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is too large for a tokenizer's file.
    #[error("{}: expected at most {limit} bytes, got {got}; this is not a tokenizer's file", path.display())]
    FileTooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Size of the file in bytes.
        got: u64,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// The contents of a file are not as expected.
    #[error("{file}: expected {expected}, got {got}; download the tokenizer's files again")]
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
        "{file}: {what} needs the token {token:?}, which the vocabulary has not; take all files from the same model"
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
        "the weight of {text:?} is {got}, expected a number from -{limit} to {limit}; write `\\(` for a bracket that is text"
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
