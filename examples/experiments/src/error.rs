//! Errors of experiments.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fabric::core::{InvalidValue, printable, printable_value};

use crate::{Experiment, Feedback, NAMES, OWN};

/// Error that ends a run. What was recorded before it stays in the run's folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(#[from] InvalidValue),
    /// A file of the run's folder cannot be read or written.
    #[error("{}: cannot {doing}: {source}", printable_value(path.display()), source = printable_value(.source))]
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
        printable_value(path.display()), differences = printable_value(.differences)
    )]
    OtherSettings {
        /// The run's folder.
        path: PathBuf,
        /// Names of the settings that differ, with both values.
        differences: String,
    },
    /// A line of the records cannot be read, and it is not the last one, which a killed run may leave unfinished.
    #[error(
        "{}, line {line}: expected a record of one image, got {got}; remove the line, or start again",
        printable_value(path.display()), got = printable_value(.got)
    )]
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
        printable_value(path.display()), got = printable_value(.got)
    )]
    Attention {
        /// The file.
        path: PathBuf,
        /// Message of the parser, or the values that do not fit.
        got: String,
    },
    /// Runs to be merged overlap or do not belong together.
    #[error("{}: {problem}", printable_value(path.display()), problem = printable_value(.problem))]
    Merge {
        /// The folder that does not fit.
        path: PathBuf,
        /// Description of the problem and of its remedy.
        problem: String,
    },
    /// A score is not a number.
    #[error(
        "score of image {image} of round {round}, prompt {prompt}: expected a finite number, got {got}; check the preference model",
        prompt = quoted(.prompt)
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
        printable_value(path.display()), experiment = printable(.experiment)
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
         prompts of a file; leave out the prompts and their preference model",
        experiment = printable(.experiment)
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

/// Returns a prompt in quotes.
fn quoted(prompt: &str) -> String {
    printable(format_args!("{prompt:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ReportError;
    use crate::{PromptSetError, SkippedLine};

    /// Texts that a file may contain: commands to a terminal, a forged line, reversed text, and far too long ones.
    fn hostile_texts() -> [String; 5] {
        [
            "\u{1b}[2J\u{1b}]0;title\u{7}\0".to_owned(),
            "a\r\nerror: all is well\n".to_owned(),
            "safe\u{202e}gpj.exe\u{9b}31m\u{2028}".to_owned(),
            "\u{1b}".repeat(1 << 20),
            "é".repeat(1 << 20),
        ]
    }

    /// Asserts that a message is one line without characters that a terminal would execute, of at most about 1000
    /// bytes.
    #[track_caller]
    fn assert_printable(message: &str) {
        let is_executed = |letter: char| letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}');
        assert!(!message.contains(is_executed), "{message:?}");
        assert!(message.len() < 1100, "{} bytes: {message:.200}", message.len());
    }

    #[test]
    fn no_message_hands_a_text_from_a_run_to_the_terminal() {
        for text in hostile_texts() {
            let (name, path) = (|| text.clone(), || PathBuf::from("x"));
            let hostile = || PathBuf::from(&text);
            let errors = [
                ExperimentError::io(&path(), "read")(io::Error::other(name())),
                ExperimentError::io(&hostile(), "read")(io::Error::other("gone")),
                ExperimentError::OtherSettings { path: path(), differences: name() },
                ExperimentError::Record { path: path(), line: 1, got: name() },
                ExperimentError::Attention { path: path(), got: name() },
                ExperimentError::Merge { path: path(), problem: name() },
                ExperimentError::Score { prompt: name(), round: 0, image: 0, got: f64::NAN },
                ExperimentError::no_target(&text),
                ExperimentError::NoAdapter { experiment: name(), path: path() },
                ExperimentError::NoAdapter { experiment: "corpus".to_owned(), path: hostile() },
                ExperimentError::NeedsSmallWorld { experiment: name() },
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }

    #[test]
    fn no_message_hands_a_text_from_a_report_or_a_prompt_set_to_the_terminal() {
        for text in hostile_texts() {
            let (name, path) = (|| text.clone(), || PathBuf::from("prompts.csv"));
            let hostile = || PathBuf::from(&text);
            let first = SkippedLine { line: 1, reason: name() };
            assert_printable(&first.to_string());
            let reports = [
                ReportError::Rows { caption: name(), expected: 2, got: 1 },
                ReportError::Cells { caption: name(), row: 0, expected: 2, got: 1 },
                ReportError::Chart { caption: name(), source: "no room".into() },
                ReportError::Chart { caption: "share".to_owned(), source: name().into() },
                ReportError::Write { path: hostile(), source: io::Error::other("full") },
            ];
            reports.iter().for_each(|error| assert_printable(&error.to_string()));
            let header = text.chars().take(80).collect();
            let prompts = [
                PromptSetError::Unreadable { path: hostile(), source: io::Error::other("gone") },
                PromptSetError::NoTable { folder: hostile() },
                PromptSetError::Json { path: path(), line: 1, column: 1, reason: name() },
                PromptSetError::MissingColumn { path: path(), column: "prompt", header },
                PromptSetError::MissingImage { path: path(), line: 1, image: hostile(), missing: 1, rows: 2 },
                PromptSetError::NoImages { path: path(), image: hostile(), rows: 1 },
                PromptSetError::NothingUsable { path: path(), format: "a table", skipped: 1, first },
            ];
            prompts.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }
}
