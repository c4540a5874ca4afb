//! Rounds of images.

use std::ops::Index;

use serde_json::Value;

use crate::ImageCondition;
use crate::InitImage;
use crate::image::{Image, ImageError, Mark, contact_sheet};

/// Images of one run with their prompt, settings, seeds and report. Cloning is cheap: pixels are shared.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Round {
    /// Index of the round in its session, from 0.
    pub index: usize,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt; may be empty.
    pub negative_prompt: String,
    /// The generation settings.
    pub settings: Value,
    /// The images that steered the round, besides the votes.
    pub image_conditions: Vec<ImageCondition>,
    /// The image that the round started from, with its mask.
    pub init_image: Option<InitImage>,
    /// The images.
    pub images: Vec<Image>,
    /// The seed of each image; empty if they were not generated.
    pub seeds: Vec<u64>,
    /// Time when the round was added, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Report of the run.
    pub report: Value,
}

impl Round {
    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are no images; never the case in a session.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Returns a contact sheet with all images in one row.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if the sheet would be too large.
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
