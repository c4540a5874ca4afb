//! Image that a run starts from.

use crate::InvalidValue;
use crate::image::Image;

/// An image that a run starts from instead of noise, optionally with an inpainting mask.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    /// The image; it is resized to the size of the result.
    pub image: Image,
    /// Denoising strength: 0 keeps the image, 1 starts from pure noise. The run makes this share of the steps,
    /// rounded down. At 0 there are no steps and the result is the image itself, resized; any other strength
    /// must leave at least one step.
    pub strength: f64,
    /// Inpainting mask: the image is regenerated where the mask is light (128 of 255 or more). The mask is stretched to
    /// the size of the result.
    pub mask: Option<Image>,
}

impl InitImage {
    /// Creates an init image without a mask.
    pub fn new(image: Image, strength: f64) -> Self {
        Self { image, strength, mask: None }
    }

    /// Sets the inpainting mask.
    #[must_use]
    pub fn with_mask(self, mask: Image) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Checks the strength.
    ///
    /// # Errors
    ///
    /// Returns an error if the strength is not a number from 0 to 1.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        validate_strength(self.strength)
    }
}

/// Checks that a denoising strength is a number from 0 to 1.
pub(crate) fn validate_strength(strength: f64) -> Result<(), InvalidValue> {
    if (0.0..=1.0).contains(&strength) {
        return Ok(());
    }
    Err(InvalidValue::new("init_image.strength", strength, "a number from 0 to 1", "0.6 to 0.8 is usual"))
}
