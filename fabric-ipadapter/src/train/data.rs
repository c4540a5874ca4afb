//! Data set of training examples.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use fabric_core::printable_value;
use serde::Deserialize;

/// Error when a data set cannot be used. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error(
        "{}: cannot read: {source}; give a file with one JSON object per line",
        printable_value(path.display()), source = printable_value(.source)
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// More lines are invalid than allowed.
    #[error(
        "{}: lines that cannot be used: expected at most {most}, got {}; mend them, or allow more: {}",
        printable_value(path.display()), skipped.len(), shown(skipped)
    )]
    TooManyBroken {
        /// The file.
        path: PathBuf,
        /// Number of invalid lines allowed.
        most: usize,
        /// The invalid lines, up to the first one too many.
        skipped: Vec<Skipped>,
    },
    /// No valid line is left.
    #[error(
        "{}: expected at least one example that can be used, got none; write {{\"image\": \"a.png\", \"text\": \"what it shows\"}}",
        printable_value(path.display())
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Line that was skipped because it is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Line number, from 1.
    pub line: usize,
    /// Reason.
    pub reason: String,
}

/// Formats the first few lines for an error message.
fn shown(skipped: &[Skipped]) -> String {
    let one = |skipped: &Skipped| format!("line {}: {}", skipped.line, printable_value(&skipped.reason));
    skipped.iter().take(5).map(one).collect::<Vec<_>>().join("; ")
}

/// Training example: a target image, with the same or another image as its prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The target image.
    pub image: PathBuf,
    /// The image prompt.
    pub condition: PathBuf,
    /// Text prompt of the target image.
    pub text: String,
    /// For Instruct: name of the task, which is the aspect to use.
    pub task: Option<String>,
    /// For Instruct: instruction of this example, in place of one from the task.
    pub instruction: Option<String>,
    /// More image prompts, for training with several at once ([`AdapterOptions::most_images`](super::AdapterOptions)).
    pub more: Vec<FurtherPrompt>,
    /// Line number.
    pub line: usize,
}

/// Image prompt of an [`Example`] beside its first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FurtherPrompt {
    /// The image prompt.
    pub condition: PathBuf,
    /// For Instruct: what to use of it.
    pub instruction: Option<String>,
}

/// JSON form of a line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    image: String,
    condition: Option<String>,
    text: String,
    task: Option<String>,
    instruction: Option<String>,
    #[serde(default)]
    more: Vec<WrittenPrompt>,
}

/// JSON form of a further image prompt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrompt {
    condition: String,
    instruction: Option<String>,
}

/// Training examples from a file with one JSON object per line.
#[derive(Debug, Clone)]
pub struct Dataset {
    examples: Vec<Example>,
    skipped: Vec<Skipped>,
    most_skipped: usize,
    path: PathBuf,
}

/// Longest line, in bytes.
const LONGEST: u64 = 1 << 20;

impl Dataset {
    /// Reads a file of examples with the fields `image`, `text`, and optionally `condition`, `task`, `instruction` and
    /// `more` (further image prompts, each with a `condition` and an `instruction`).
    ///
    /// Image paths are relative to the folder of the file and must lie within it. The images must exist, but
    /// are not decoded yet. Up to `most_skipped` lines may be invalid or have no image: they are skipped and
    /// listed by [`Self::skipped`]. Lines whose images fail to decode during training count too
    /// ([`AdapterTask::broken`](super::AdapterTask::broken)).
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, more lines are invalid, or none is left.
    pub fn open(path: impl AsRef<Path>, most_skipped: usize) -> Result<Self, DataError> {
        let path = path.as_ref().to_owned();
        let io = |source| DataError::Io { path: path.clone(), source };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut reader = BufReader::new(File::open(&path).map_err(io)?);
        let (mut examples, mut skipped) = (Vec::new(), Vec::new());
        for line in 1.. {
            let mut bytes = Vec::new();
            if reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes).map_err(io)? == 0 {
                break;
            }
            let read = if bytes.len() as u64 == LONGEST && bytes.last() != Some(&b'\n') {
                skip_line(&mut reader).map_err(io)?;
                Err(format!("expected a short text, got more than {LONGEST} bytes"))
            } else if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            } else {
                example(&bytes, &folder, line)
            };
            match read {
                Ok(example) => examples.push(example),
                // Truncated, because reasons may quote long content.
                Err(reason) => {
                    let reason = printable_value(reason.chars().take(200).collect::<String>());
                    skipped.push(Skipped { line, reason });
                }
            }
            if skipped.len() > most_skipped {
                return Err(DataError::TooManyBroken { path, most: most_skipped, skipped });
            }
        }
        if examples.is_empty() {
            return Err(DataError::Empty { path });
        }
        Ok(Self { examples, skipped, most_skipped, path })
    }

    /// Returns the examples in the order of the file.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Returns the skipped lines.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Checks that these lines, found invalid during training, are still within the allowed number.
    pub(super) fn spares(&self, broken: &BTreeMap<usize, String>) -> Result<(), DataError> {
        if self.skipped.len() + broken.len() <= self.most_skipped {
            return Ok(());
        }
        let broken = broken.iter().map(|(&line, reason)| Skipped { line, reason: reason.clone() });
        // New lines come first, because error messages show only a few.
        let skipped = broken.chain(self.skipped.iter().cloned()).collect();
        Err(DataError::TooManyBroken { path: self.path.clone(), most: self.most_skipped, skipped })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Skips to the end of a line without storing it.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let (used, ends) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(used);
        if ends {
            return Ok(());
        }
    }
}

fn example(bytes: &[u8], folder: &Path, line: usize) -> Result<Example, String> {
    let written: Written = fabric_core::json::from_slice(bytes).map_err(|error| error.to_string())?;
    let path = |name: &str| {
        let relative = Path::new(name);
        let inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(format!("expected an image in the folder of the file or below, got {name:?}"));
        }
        let path = folder.join(relative);
        if path.is_file() { Ok(path) } else { Err(format!("expected an image {name:?}, got no such file")) }
    };
    let target = path(&written.image)?;
    let condition = written.condition.as_deref().map(path).transpose()?.unwrap_or_else(|| target.clone());
    let further =
        |one: WrittenPrompt| Ok(FurtherPrompt { condition: path(&one.condition)?, instruction: one.instruction });
    let more = written.more.into_iter().map(further).collect::<Result<_, String>>()?;
    Ok(Example {
        image: target,
        condition,
        text: written.text,
        task: written.task,
        instruction: written.instruction,
        more,
        line,
    })
}
