//! Report of a conversion.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use fabric::core::{printable, printable_value};

/// Number of unused names that are printed.
const SHOWN: usize = 12;

/// Report of a conversion, or, in a dry run, of what it would write.
#[derive(Debug)]
pub(crate) struct Report {
    /// Whether files were written.
    pub(crate) written: bool,
    /// Descriptions of what was read.
    pub(crate) read: Vec<String>,
    /// Files that were written or would be.
    pub(crate) files: Vec<OutputFile>,
    /// Names of files or tensors of the input that were not used.
    pub(crate) unused: Vec<String>,
    /// Size of the files that were converted, in bytes.
    pub(crate) bytes_before: u64,
}

/// File that was written or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputFile {
    /// Path of the file.
    pub(crate) path: PathBuf,
    /// Number of tensors; 0 for other files than those of weights.
    pub(crate) tensors: usize,
    /// Size in bytes; in a dry run, that of its tensors or text, and `None` for configurations.
    pub(crate) bytes: Option<u64>,
}

impl Report {
    /// Returns the report with the sizes of the written files.
    pub(crate) fn after_writing(mut self) -> Result<Self, Box<dyn Error>> {
        for file in &mut self.files {
            let metadata =
                std::fs::metadata(&file.path).map_err(|error| format!("{}: {error}", file.path.display()))?;
            file.bytes = Some(metadata.len());
        }
        self.written = true;
        Ok(self)
    }

    /// Size of all files in bytes, as far as it is known.
    pub(crate) fn bytes_after(&self) -> u64 {
        self.files.iter().filter_map(|file| file.bytes).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.read {
            writeln!(f, "read {}", printable_value(line))?;
        }
        for file in &self.files {
            let path = printable_value(file.path.display());
            write!(f, "{} {path}", if self.written { "wrote" } else { "would write" })?;
            if file.tensors > 0 {
                write!(f, ", {} tensors", file.tensors)?;
            }
            file.bytes.map_or(Ok(()), |bytes| write!(f, ", {}", Bytes(bytes)))?;
            writeln!(f)?;
        }
        if !self.unused.is_empty() {
            let shown: Vec<String> = self.unused.iter().take(SHOWN).map(printable).collect();
            write!(f, "not used: {} names: {}", self.unused.len(), shown.join(", "))?;
            match self.unused.len().saturating_sub(SHOWN) {
                0 => writeln!(f)?,
                more => writeln!(f, " and {more} more")?,
            }
        }
        write!(f, "{} before, {} after", Bytes(self.bytes_before), Bytes(self.bytes_after()))
    }
}

/// Size in bytes that is printed with a unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..10_000 => write!(f, "{bytes} bytes"),
            bytes @ ..10_000_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes => write!(f, "{:.1} MB", bytes as f64 / 1e6),
        }
    }
}
