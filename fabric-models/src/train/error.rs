//! Errors of training.

use std::path::PathBuf;

use fabric_core::InvalidValue;

use crate::load::LoadError;

/// Error that prevents a training run from starting or continuing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of its range, or two contradict each other.
    #[error(transparent)]
    Settings(#[from] InvalidValue),
    /// The checkpoint belongs to a run with other settings.
    #[error("{}: this checkpoint was made with other settings ({differing}); take another folder, or those settings", path.display())]
    OtherRun {
        /// Path of the checkpoint.
        path: PathBuf,
        /// The settings that differ.
        differing: String,
    },
    /// The loss is not finite.
    #[error(
        "the loss is {loss} at step {step} (batch {batch}); the last good checkpoint is {}; lower the learning rate",
        checkpoint.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
    )]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// Number of the batch.
        batch: u64,
        /// The loss.
        loss: f64,
        /// Last checkpoint, from which the run can resume.
        checkpoint: Option<PathBuf>,
    },
    /// A file cannot be read or written; existing files are unchanged.
    #[error(transparent)]
    File(#[from] LoadError),
    /// A batch cannot be prepared or used.
    #[error("batch {batch} cannot be used: {message}; mend the data set, and go on from the last checkpoint")]
    Batch {
        /// Number of the batch.
        batch: u64,
        /// Reason.
        message: String,
    },
}

impl TrainError {
    /// Creates [`TrainError::Settings`].
    pub(super) fn settings(what: &str, got: impl ToString, expected: &str, next: &str) -> Self {
        Self::Settings(InvalidValue::new(what, got, expected, next))
    }
}
