//! What an adapter learns from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// Why a data set cannot be used. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error("{}: cannot read: {source}; give a file with one JSON object per line", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// More lines are broken than may be.
    #[error(
        "{}: lines that cannot be used: expected at most {most}, got {}; mend them, or allow more: {}",
        path.display(),
        skipped.len(),
        shown(skipped)
    )]
    TooManyBroken {
        /// The file.
        path: PathBuf,
        /// How many may be.
        most: usize,
        /// All of them up to the one too many.
        skipped: Vec<Skipped>,
    },
    /// No line is left.
    #[error("{}: expected one at least, got no example that can be used; write {{\"image\": \"a.png\", \"text\": \"what it shows\"}}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The first few of them, for a message.
fn shown(skipped: &[Skipped]) -> String {
    let each: Vec<String> =
        skipped.iter().take(5).map(|skipped| format!("line {}: {}", skipped.line, skipped.reason)).collect();
    each.join("; ")
}

/// One example: an image to make, from another (or the same) as its prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The image to make.
    pub image: PathBuf,
    /// The image that is the prompt.
    pub condition: PathBuf,
    /// What the image to make shows.
    pub text: String,
    /// For Instruct: what is to be taken, by the name of the task.
    pub task: Option<String>,
    /// For Instruct: its own instruction, instead of one of the task's.
    pub instruction: Option<String>,
    /// Its line.
    pub line: usize,
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    image: String,
    condition: Option<String>,
    text: String,
    task: Option<String>,
    instruction: Option<String>,
}

/// Examples from a file with one JSON object per line.
#[derive(Debug, Clone)]
pub struct Dataset {
    examples: Vec<Example>,
    skipped: Vec<Skipped>,
    most_skipped: usize,
    path: PathBuf,
}

/// No line is longer.
const LONGEST: u64 = 1 << 20;

impl Dataset {
    /// Reads a file of examples: `image`, `text`, and where they differ or are wanted `condition`, `task` and `instruction`.
    ///
    /// Images are named relative to the file's folder, and lie in it or below. They are looked for, but not yet read. Up to
    /// `most_skipped` lines may be broken or miss their images: they are left out, and [`Self::skipped`] tells them. So are
    /// lines whose images turn out to be broken in training ([`AdapterTask::broken`](super::AdapterTask::broken)).
    ///
    /// # Errors
    ///
    /// When the file cannot be read, more lines are broken, or none is left.
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
                // Reasons may quote what is there, which may be long.
                Err(reason) => skipped.push(Skipped { line, reason: reason.chars().take(200).collect() }),
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

    /// The examples, in the order of the file.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The lines that were left out.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Whether these lines, which turned out to be broken later, may be left out as well.
    pub(super) fn spares(&self, broken: &BTreeMap<usize, String>) -> Result<(), DataError> {
        if self.skipped.len() + broken.len() <= self.most_skipped {
            return Ok(());
        }
        let broken = broken.iter().map(|(&line, reason)| Skipped { line, reason: reason.clone() });
        // What is new comes first, as messages show only a few.
        let skipped = broken.chain(self.skipped.iter().cloned()).collect();
        Err(DataError::TooManyBroken { path: self.path.clone(), most: self.most_skipped, skipped })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads on to the end of a line, without keeping it.
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
    Ok(Example {
        image: target,
        condition,
        text: written.text,
        task: written.task,
        instruction: written.instruction,
        line,
    })
}
