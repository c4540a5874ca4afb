//! What can be wrong with a session or its folder.

use crate::image::{ContentHash, ImageError};

/// Why a session cannot take a step, be saved or be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A strength out of range.
    #[error("vote strength is {got}, expected a number from {lowest} to 1: choose one")]
    Strength {
        /// What was given.
        got: f64,
        /// The lower end: 0 for a like or a dislike, -1 for a vote with a sign.
        lowest: i8,
    },
    /// A round without images.
    #[error("round has 0 images, expected at least 1: add what was generated")]
    EmptyRound,
    /// Nothing was generated yet.
    #[error("session has 0 rounds, expected at least 1 to judge: generate first")]
    NoRound,
    /// A vote on an image that is not there.
    #[error("feedback names image {index}, the round has {got}: name one from 0")]
    NoSuchImage {
        /// The image that was named.
        index: usize,
        /// How many there are.
        got: usize,
    },
    /// A score that is no number.
    #[error("score of image {index} is {got}, expected a finite number: look at what computes it")]
    Score {
        /// Which image of the round.
        index: usize,
        /// Its score.
        got: f64,
    },
    /// Too many pixels altogether.
    #[error(
        "session would hold {got} pixels, expected at most {expected}: save it and begin another one with \
         the images you like, or vote on smaller ones"
    )]
    Full {
        /// With the new images.
        got: usize,
        /// The limit, [`super::MAX_SESSION_PIXELS`].
        expected: usize,
    },
    /// The file system refuses.
    #[error("session folder: cannot {doing} `{place}`: {source}; check that it exists, its permissions and the room")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// `session.json` is longer than any session should be.
    #[error("`{place}` has {got} bytes, expected a file of at most {expected}: is this the folder of a session?")]
    TooLong {
        /// The file.
        place: String,
        /// Its length.
        got: u64,
        /// The limit.
        expected: u64,
    },
    /// `session.json` is no JSON, or not of the right form.
    #[error("`{place}` is no session: {source}; load a folder that `FeedbackSession::save` wrote, or a copy of it")]
    Json {
        /// The file.
        place: String,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// What would be saved could not be loaded again, so it was not saved.
    #[error(
        "`{place}` is not written, because it could not be loaded again: {source}; expected settings and reports nested at \
         most 120 levels: go on from the session that was saved last, with flatter ones"
    )]
    NotLoadable {
        /// The file.
        place: String,
        /// What loading it would have said.
        source: Box<SessionError>,
    },
    /// `session.json` was written by another program, or by another version of this one.
    #[error("`{place}` says it is {got}, expected {expected}: load it with the program that wrote it")]
    Version {
        /// The file.
        place: String,
        /// Its format and version.
        got: String,
        /// Ours.
        expected: String,
    },
    /// `session.json` contradicts itself.
    #[error("`{place}`: {what} is {got}, expected {expected}; load a copy that nobody edited")]
    Inconsistent {
        /// The file.
        place: String,
        /// Which part of it.
        what: String,
        /// Its value.
        got: String,
        /// What would fit.
        expected: String,
    },
    /// An image of the session is missing or damaged, or cannot be written.
    #[error("session folder: {source}")]
    Image {
        /// The image's trouble.
        #[from]
        source: ImageError,
    },
    /// An image file that shows something else than its name says.
    #[error("`{place}` shows image {got}, expected the one it is named for: put the original file back")]
    WrongImage {
        /// The file.
        place: String,
        /// The hash of what it shows.
        got: ContentHash,
    },
}
