//! Options and progress of opening a corpus.

use std::path::{Path, PathBuf};

use fabric_core::InvalidValue;

/// Options for opening a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusOptions {
    /// Path of the index file. `None` (the default) is `.fabric-corpus.safetensors` in the folder. An index is for one
    /// encoder: give each encoder its own path to use several in turn. An index of another encoder is renamed, with
    /// `.old` added to its name, and replaces an older file of that name.
    pub index: Option<PathBuf>,
    /// Maximum number of images that are embedded at once (default 16). Large images are embedded in smaller batches,
    /// which bounds memory.
    pub batch: usize,
    /// Number of embedded images after which the index is saved (default 1024). Each save writes the whole index, 4
    /// bytes per value: 300 MB for 100,000 images with embeddings of 768 values.
    pub save_every: usize,
}

impl Default for CorpusOptions {
    fn default() -> Self {
        Self { index: None, batch: 16, save_every: 1024 }
    }
}

impl CorpusOptions {
    /// Returns the options with another path for the index file.
    #[must_use]
    pub fn with_index(mut self, path: impl Into<PathBuf>) -> Self {
        self.index = Some(path.into());
        self
    }

    /// Returns the options with another batch size.
    #[must_use]
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Returns the options with another number of images between two saves of the index.
    #[must_use]
    pub fn with_save_every(mut self, save_every: usize) -> Self {
        self.save_every = save_every;
        self
    }

    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        for (what, got) in [("`batch` of a corpus", self.batch), ("`save_every` of a corpus", self.save_every)] {
            if got == 0 {
                return Err(InvalidValue::new(what, got, "at least 1", "leave it out for the default"));
            }
        }
        Ok(())
    }
}

/// Progress of opening a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CorpusProgress<'a> {
    /// The file that was read last, relative to the folder.
    pub path: &'a Path,
    /// Number of files read so far.
    pub read: usize,
    /// Number of files to read: those that are new, changed or moved according to the index.
    pub total: usize,
    /// Number of images embedded so far.
    pub embedded: usize,
}
