//! Why training cannot begin or go on.

use std::path::PathBuf;

use crate::load::LoadError;

/// Why a training run cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of its range, or two contradict each other.
    #[error("{what}: expected {expected}, got {got}; {next}")]
    Settings {
        /// The setting.
        what: String,
        /// Its value.
        got: String,
        /// What would be good.
        expected: String,
        /// What to do.
        next: String,
    },
    /// A checkpoint of another run.
    #[error("{}: this checkpoint was made with other settings ({differing}); take another folder, or those settings", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        differing: String,
    },
    /// The loss is not a number any more.
    #[error(
        "the loss is {loss} at step {step} (batch {batch}); the last good checkpoint is {}; lower the learning rate",
        checkpoint.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
    )]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// The batch's number.
        batch: u64,
        /// What the loss was.
        loss: f64,
        /// Where to go on from.
        checkpoint: Option<PathBuf>,
    },
    /// A file cannot be read or written; what was there before is still there.
    #[error(transparent)]
    File(#[from] LoadError),
    /// A batch cannot be made, or not be used.
    #[error("batch {batch} cannot be used: {message}; mend the data set, and go on from the last checkpoint")]
    Batch {
        /// Its number.
        batch: u64,
        /// What was wrong with it.
        message: String,
    },
}

impl TrainError {
    /// A setting that cannot be used.
    pub(super) fn settings(what: &str, got: impl ToString, expected: &str, next: &str) -> Self {
        Self::Settings {
            what: what.to_owned(),
            got: got.to_string(),
            expected: expected.to_owned(),
            next: next.to_owned(),
        }
    }
}
