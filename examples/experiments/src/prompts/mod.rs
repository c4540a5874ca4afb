//! Prompt sets in the formats in which they are published, and as plain text.
//!
//! | format | told by |
//! |---|---|
//! | HPS v1, `preference_*.json` | `.json`, a list of objects with `prompt` |
//! | GenEval, one JSON object per line | `.jsonl`, `.ndjson`, or `.json` that does not start with `[` |
//! | PartiPrompts | `.tsv`, with a column `Prompt` |
//! | FABRIC's prompthero set | a folder with `prompts.csv`, or a `.csv` with the columns `image` and `prompt` |
//! | plain text, one prompt per line | every other file whose first line is none of these |

mod entry;
mod error;
mod format;
mod geneval;
mod hps;
mod line_counter;
mod lines;
mod parti;
mod prompthero;
mod quoting;
mod source;
mod spacing;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use fabric::core::printable_value;

pub use error::PromptSetError;
pub use format::PromptFormat;

/// Longest prompt that is accepted, in bytes.
const MAX_PROMPT_BYTES: usize = 64 * 1024;

/// One prompt of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptCase {
    /// The prompt, without white space at its ends.
    pub prompt: String,
    /// The negative prompt, if the set has one. None of the published sets does.
    pub negative: Option<String>,
    /// File of the target image, if the set has one.
    pub target: Option<PathBuf>,
    /// Labels of the prompt: `category`, `challenge` and `note` in PartiPrompts, `tag` in GenEval.
    pub tags: BTreeMap<String, String>,
}

/// One line that holds no usable prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedLine {
    /// Number of the line in the file, from 1. Of entries and rows of several lines, the first.
    pub line: usize,
    /// The reason why the line is not used.
    pub reason: String,
}

impl fmt::Display for SkippedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, printable_value(&self.reason))
    }
}

/// Prompts of one file, in the order of the file, and the lines that could not be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptSet {
    /// The usable prompts; at least one after [`PromptSet::open`].
    pub prompts: Vec<PromptCase>,
    /// The lines that hold no usable prompt. Blank lines and comments are not counted.
    pub skipped: Vec<SkippedLine>,
}

impl PromptSet {
    /// Reads the prompt set at `path`, a file or a folder with `prompts.csv`, in the format that the file shows.
    ///
    /// The whole file is read into memory. A line without a usable prompt is recorded in [`PromptSet::skipped`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, is too large, is not UTF-8, lacks its columns or its images, or has no usable prompt.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PromptSetError> {
        Self::open_as(path, None)
    }

    /// Reads the prompt set at `path` as [`Self::open`] does, in this format; `None` tells it by the file.
    ///
    /// # Errors
    ///
    /// Same as [`Self::open`].
    pub fn open_as(path: impl AsRef<Path>, format: Option<PromptFormat>) -> Result<Self, PromptSetError> {
        let path = source::file_of(path.as_ref())?;
        let text = source::read_text(&path)?;
        if text.trim().is_empty() {
            return Err(PromptSetError::Empty { path });
        }
        let format = format.unwrap_or_else(|| PromptFormat::detect(&path, &text));
        let set = match format {
            PromptFormat::Hps => hps::read(&path, &text)?,
            PromptFormat::GenEval => geneval::read(&text),
            PromptFormat::Parti => parti::read(&path, &text)?,
            PromptFormat::Prompthero => prompthero::read(&path, &text)?,
            PromptFormat::Lines => lines::read(&text),
        };
        match set.skipped.first() {
            _ if !set.prompts.is_empty() => Ok(set),
            Some(first) => Err(PromptSetError::NothingUsable {
                path,
                format: format.name(),
                skipped: set.skipped.len(),
                first: first.clone(),
            }),
            None => Err(PromptSetError::Empty { path }),
        }
    }

    /// Adds the case found in `line`, or records why its prompt cannot be used.
    fn add(&mut self, line: usize, case: PromptCase) {
        let prompt = trimmed(&case.prompt);
        if prompt.is_empty() {
            self.skip(line, "the prompt is empty");
        } else if prompt.len() > MAX_PROMPT_BYTES {
            self.skip(line, format!("expected a prompt of at most {MAX_PROMPT_BYTES} bytes, got {}", prompt.len()));
        } else {
            self.prompts.push(PromptCase { prompt: prompt.to_owned(), ..case });
        }
    }

    /// Records that `line` is not used.
    fn skip(&mut self, line: usize, reason: impl Into<String>) {
        self.skipped.push(SkippedLine { line, reason: reason.into() });
    }
}

/// Returns the text without white space and byte-order marks at its ends.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Returns the first 80 characters of a text, for messages.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
