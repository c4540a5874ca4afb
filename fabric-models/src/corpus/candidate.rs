use std::path::PathBuf;

use fabric_core::image::{ContentHash, Image};

use super::CorpusError;
use super::error::is_gone;

/// Image of a corpus that matches a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Path of the image: that of the folder, followed by the path in it.
    pub path: PathBuf,
    /// Score, from -2 to 2, as [`Query`](super::Query) defines it.
    pub score: f64,
    /// Hash of the pixels that were embedded.
    hash: ContentHash,
}

impl Candidate {
    pub(super) fn new(path: PathBuf, score: f64, hash: ContentHash) -> Self {
        Self { path, score, hash }
    }

    /// Reads the image.
    ///
    /// # Errors
    ///
    /// Returns [`CorpusError::Gone`] if the file does not exist any more, [`CorpusError::Changed`] if it has other
    /// pixels than those that were embedded, and [`CorpusError::Image`] if it cannot be read.
    pub fn open(&self) -> Result<Image, CorpusError> {
        let image = Image::open(&self.path).map_err(|error| {
            if is_gone(&error) { CorpusError::Gone { path: self.path.clone() } } else { CorpusError::Image(error) }
        })?;
        if image.content_hash() != self.hash {
            return Err(CorpusError::Changed { path: self.path.clone() });
        }
        Ok(image)
    }
}
