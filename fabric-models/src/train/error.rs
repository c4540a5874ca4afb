//! Errors of training.

use std::path::PathBuf;

use fabric_core::{InvalidValue, printable_value};

use crate::load::LoadError;

/// Error that prevents a training run from starting or continuing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of its range, or two contradict each other.
    #[error(transparent)]
    Settings(#[from] InvalidValue),
    /// The checkpoint belongs to a run with other settings.
    #[error(
        "{}: this checkpoint was made with other settings ({differing}); take another folder, or those settings",
        printable_value(path.display()), differing = printable_value(.differing)
    )]
    OtherRun {
        /// Path of the checkpoint.
        path: PathBuf,
        /// The settings that differ.
        differing: String,
    },
    /// The loss is not finite.
    #[error(
        "the loss is {loss} at step {step} (batch {batch}); the last good checkpoint is {}; lower the learning rate",
        checkpoint.as_ref().map_or_else(|| "none".to_owned(), |path| printable_value(path.display()))
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
    #[error(
        "batch {batch} cannot be used: {message}; mend the data set, and go on from the last checkpoint",
        message = printable_value(.message)
    )]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn no_message_hands_a_text_from_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let (name, path) = (|| text.clone(), PathBuf::from(&text));
            let errors = [
                TrainError::settings("rate", &text, "a number", "correct it"),
                TrainError::OtherRun { path: "step-1".into(), differing: name() },
                TrainError::OtherRun { path: path.clone(), differing: "rate".to_owned() },
                TrainError::Diverged { step: 1, batch: 0, loss: f64::NAN, checkpoint: Some(path.clone()) },
                TrainError::File(LoadError::malformed(&path, "step", 1, "2", "remove it")),
                TrainError::Batch { batch: 0, message: name() },
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }
}
