//! Errors of sessions.

use crate::InvalidValue;
use crate::image::{ContentHash, ImageError};
use crate::printable_text::printable_value;

/// Error when changing, saving or loading a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The strength of a vote is out of range.
    #[error("vote strength is {got}, expected a number from {lowest} to 1: choose one")]
    Strength {
        /// The given strength.
        got: f64,
        /// The lower bound: 0 for [`Vote::like`](super::Vote::like) and
        /// [`Vote::dislike`](super::Vote::dislike), -1 for [`Vote::new`](super::Vote::new).
        lowest: i8,
    },
    /// The reason of a vote, an image condition, an init image, a prompt or settings cannot be used.
    #[error(transparent)]
    Condition(#[from] InvalidValue),
    /// The round has no images.
    #[error("round has 0 images, expected at least 1: add what was generated")]
    EmptyRound,
    /// The session has no round yet.
    #[error("session has 0 rounds, expected at least 1 to judge: generate first")]
    NoRound,
    /// A vote is on an image that is not in the round.
    #[error("feedback names image {index}, the round has {got}: name one from 0")]
    NoSuchImage {
        /// The given index.
        index: usize,
        /// Number of images in the round.
        got: usize,
    },
    /// A score is not a finite number.
    #[error("score of image {index} is {got}, expected a finite number: look at what computes it")]
    Score {
        /// Index of the image in the round.
        index: usize,
        /// Its score.
        got: f64,
    },
    /// The session's images would have too many pixels in total.
    #[error(
        "session would hold {got} pixels, expected at most {expected}: save it and begin another one with \
         the images you like, or vote on smaller ones"
    )]
    Full {
        /// Number of pixels, including the new images.
        got: usize,
        /// The limit, [`super::MAX_SESSION_PIXELS`].
        expected: usize,
    },
    /// A file system operation failed.
    #[error("session folder: cannot {doing} `{place}`: {source}; check that it exists, its permissions and the room")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The file or folder.
        place: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// `session.json` is too long.
    #[error(
        "`{place}` has {got} bytes, expected a file of at most {expected}: name the folder of a session; if this one \
         has grown too long, begin another with the images you like"
    )]
    TooLong {
        /// The file.
        place: String,
        /// Its size in bytes.
        got: u64,
        /// The limit in bytes.
        expected: u64,
    },
    /// The values of `session.json` would take too much memory.
    #[error(
        "`{place}` has values that take up to {got} bytes of memory, expected at most {expected}: load a session that \
         `FeedbackSession::save` wrote; if this one has grown too long, begin another with the images you like"
    )]
    TooManyValues {
        /// The file.
        place: String,
        /// An upper bound of what its values take, in bytes.
        got: u64,
        /// The limit in bytes.
        expected: u64,
    },
    /// `session.json` is not valid JSON, or has unexpected or missing fields.
    #[error(
        "`{place}` is no session: {}; load a folder that `FeedbackSession::save` wrote, or a copy of it",
        printable_value(.source)
    )]
    Json {
        /// The file.
        place: String,
        /// Error of the parser, with line and column.
        source: serde_json::Error,
    },
    /// The session was not saved because it could not be loaded again.
    #[error(
        "`{place}` is not written, because it could not be loaded again: {source}; go on from the session that was \
         saved last, with shorter prompts, or with smaller settings and reports that are nested at most 120 levels"
    )]
    NotLoadable {
        /// The file.
        place: String,
        /// The error that loading it would return.
        source: Box<Self>,
    },
    /// `session.json` was written by another program or another version of this one.
    #[error(
        "`{place}` says it is {}, expected {expected}: load it with the program that wrote it",
        printable_value(.got)
    )]
    Version {
        /// The file.
        place: String,
        /// Its format and version.
        got: String,
        /// The format and version that this program reads.
        expected: String,
    },
    /// `session.json` is inconsistent.
    #[error(
        "`{place}`: {} is {}, expected {expected}; load a copy that nobody edited",
        printable_value(.what),
        printable_value(.got)
    )]
    Inconsistent {
        /// The file.
        place: String,
        /// The inconsistent part.
        what: String,
        /// Its value.
        got: String,
        /// The expected value.
        expected: String,
    },
    /// An image of the session is missing or damaged, or cannot be written.
    #[error("session folder: {source}")]
    Image {
        /// Error of the image.
        #[from]
        source: ImageError,
    },
    /// The content of an image file does not match its name.
    #[error("`{place}` shows image {got}, expected the one it is named for: put the original file back")]
    WrongImage {
        /// The file.
        place: String,
        /// Content hash of the file.
        got: ContentHash,
    },
}
