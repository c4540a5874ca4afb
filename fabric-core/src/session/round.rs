//! One batch of pictures.

use std::ops::Index;

use serde_json::Value;

use crate::picture::{Mark, Picture, PictureError, contact_sheet};

/// What was made at one time, and how. Cloning one costs little: pixels are shared.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Round {
    /// Which round of its session this is, from 0.
    pub index: usize,
    /// The prompt in force.
    pub prompt: String,
    /// The negative prompt in force.
    pub negative_prompt: String,
    /// The generation settings in force.
    pub settings: Value,
    /// The pictures.
    pub pictures: Vec<Picture>,
    /// The seed of each picture.
    pub seeds: Vec<u64>,
    /// When they were made, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What the run reported.
    pub report: Value,
}

impl Round {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there is no picture, which no session allows.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// All pictures in one row on one sheet.
    ///
    /// # Errors
    ///
    /// [`PictureError::Size`] if the sheet would be too large.
    pub fn contact_sheet(&self) -> Result<Picture, PictureError> {
        contact_sheet(&[self.pictures.iter().map(|picture| (picture, Mark::None)).collect()], 8)
    }
}

impl Index<usize> for Round {
    type Output = Picture;

    fn index(&self, index: usize) -> &Picture {
        &self.pictures[index]
    }
}
