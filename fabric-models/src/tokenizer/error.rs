use std::path::PathBuf;

/// What can be wrong with a vocabulary or a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file of the tokenizer cannot be read.
    #[error("{}: cannot be read ({source}); a tokenizer folder holds `vocab.json` and `merges.txt`, or `tokenizer.json`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the tokenizer cannot be written.
    #[error("{}: cannot be written ({source})", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any tokenizer's.
    #[error("{}: expected at most {limit}, got {got} bytes; this is not a tokenizer's file", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A file is not what its name says.
    #[error("{file}: expected {expected}, got {got}; download the tokenizer's files again")]
    Corrupt {
        /// The file.
        file: String,
        /// What it holds.
        got: String,
        /// What it should hold.
        expected: String,
    },
    /// Two files of a tokenizer do not belong together.
    #[error(
        "{file}: {what} needs the token {token:?}, which the vocabulary has not; take all files from the same model"
    )]
    UnknownToken {
        /// The file that names the token.
        file: String,
        /// What needs it.
        what: String,
        /// The token.
        token: String,
    },
    /// A prompt is too long to be meant.
    #[error("the prompt has {got} bytes, at most {limit} are read; shorten it")]
    PromptTooLong {
        /// Its length in bytes.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A window cannot hold a prompt.
    #[error("a window of {got} tokens; expected {expected}: the text encoder's `max_position_embeddings`, usually 77")]
    Window {
        /// The window's length.
        got: usize,
        /// The lengths that are good.
        expected: String,
    },
    /// A weight in a prompt is not usable.
    #[error(
        "the weight of {text:?} is {got}, expected a number from -{limit} to {limit}; write `\\(` for a bracket that is text"
    )]
    Weight {
        /// The text in the brackets.
        text: String,
        /// The weight.
        got: String,
        /// Its largest value.
        limit: f32,
    },
    /// An id has no token.
    #[error("token id {got} is not in the vocabulary of {size} tokens; was it made by another tokenizer?")]
    UnknownId {
        /// The id.
        got: u32,
        /// Tokens of the vocabulary.
        size: usize,
    },
}
