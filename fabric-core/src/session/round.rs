//! One batch of images.

use std::ops::Index;

use serde_json::Value;

use crate::image::{Image, ImageError, Mark, contact_sheet};

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
    /// The images.
    pub images: Vec<Image>,
    /// The seed of each image.
    pub seeds: Vec<u64>,
    /// When they were made, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What the run reported.
    pub report: Value,
}

impl Round {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is no image, which no session allows.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// All images in one row on one sheet.
    ///
    /// # Errors
    ///
    /// [`ImageError::Size`] if the sheet would be too large.
    pub fn contact_sheet(&self) -> Result<Image, ImageError> {
        contact_sheet(&[self.images.iter().map(|image| (image, Mark::None)).collect()], 8)
    }
}

impl Index<usize> for Round {
    type Output = Image;

    fn index(&self, index: usize) -> &Image {
        &self.images[index]
    }
}
