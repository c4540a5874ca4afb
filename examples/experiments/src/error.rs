//! Errors of experiments.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fabric::core::InvalidValue;

use crate::{Experiment, Feedback, NAMES, OWN};

/// Error that ends a run. What was recorded before it stays in the run's folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] InvalidValue),
    /// A file of the run's folder cannot be read or written.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Operation that failed: "write a record".
        doing: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The run's folder holds records of other settings.
    #[error(
        "{}: the run in this folder has other settings: {differences}; give the same settings to resume it, or another folder",
        path.display()
    )]
    OtherSettings {
        /// The run's folder.
        path: PathBuf,
        /// Names of the settings that differ, with both values.
        differences: String,
    },
    /// A line of the records cannot be read, and it is not the last one, which a killed run may leave unfinished.
    #[error("{}, line {line}: expected a record of one image, got {got}; remove the line, or start again", path.display())]
    Record {
        /// The file of records.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Message of the parser, or the values that do not fit.
        got: String,
    },
    /// A file with the attention of a session cannot be read.
    #[error(
        "{}: expected where the references of a session acted, got {got}; remove it, the report is then without it",
        path.display()
    )]
    Attention {
        /// The file.
        path: PathBuf,
        /// Message of the parser, or the values that do not fit.
        got: String,
    },
    /// Runs to be merged overlap or do not belong together.
    #[error("{}: {problem}", path.display())]
    Merge {
        /// The folder that does not fit.
        path: PathBuf,
        /// Description of the problem and of its remedy.
        problem: String,
    },
    /// A score is not a number.
    #[error(
        "score of image {image} of round {round}, prompt {prompt:?}: expected a finite number, got {got}; check the preference model"
    )]
    Score {
        /// The prompt.
        prompt: String,
        /// Round, from 0.
        round: usize,
        /// Image of the round, from 0.
        image: usize,
        /// The score.
        got: f64,
    },
    /// A prompt has no target image, and the feedback is the similarity to one.
    #[error(
        "target image of the prompt {prompt:?}: expected one, got none; with these prompts, run one of {possible}, or \
         give a CSV file with the columns `image` and `prompt`"
    )]
    NoTarget {
        /// The prompt, cut to its first 80 characters.
        prompt: String,
        /// Names of the experiments that need no target images.
        possible: String,
    },
    /// The model has no adapter for an experiment.
    #[error(
        "experiment {experiment}: expected an adapter in the model's folder, got no file {}; give a model that has it",
        path.display()
    )]
    NoAdapter {
        /// Name of the experiment.
        experiment: String,
        /// The file that is missing.
        path: PathBuf,
    },
    /// An experiment needs scenes of the small world, whose factors are known.
    #[error(
        "experiment {experiment}: expected a model of the small world, which knows every factor of its scenes, got \
         prompts of a file; leave out the prompts and their preference model"
    )]
    NeedsSmallWorld {
        /// Name of the experiment.
        experiment: String,
    },
    /// A corpus of drawings cannot be opened or searched.
    #[error(transparent)]
    Corpus(#[from] fabric::models::corpus::CorpusError),
    /// An adapter cannot be loaded or used.
    #[error(transparent)]
    Adapter(#[from] fabric::ipadapter::AdapterError),
    /// Generating images failed.
    #[error(transparent)]
    Generation(#[from] fabric::core::Error),
    /// The report cannot be made or written.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// A model could not be loaded.
    #[error(transparent)]
    Model(#[from] fabric::models::ModelError),
    /// Everything else that can fail: drawings and images.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl ExperimentError {
    /// Returns the error of a prompt without a target image.
    pub(crate) fn no_target(prompt: &str) -> Self {
        let needs_none = |name: &&str| {
            Experiment::named(name, &BTreeMap::new())
                .is_ok_and(|one| one.feedback == Feedback::Preference && !one.needs_small_world())
        };
        let possible: Vec<&str> = NAMES.into_iter().chain(OWN).filter(needs_none).collect();
        Self::NoTarget { prompt: format!("{prompt:.80}"), possible: possible.join(", ") }
    }

    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, doing, source }
    }
}
