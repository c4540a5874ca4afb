//! Start of a session's rounds from an image.

use crate::InvalidValue;
use crate::image::Image;

/// An image that all rounds of a session start from instead of noise, optionally with an inpainting mask.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    /// The image.
    pub image: Image,
    /// Denoising strength: 0 keeps the image, 1 starts from pure noise.
    pub strength: f64,
    /// The image is regenerated where the mask is light.
    pub mask: Option<Image>,
}

/// Checks that a denoising strength is a number from 0 to 1.
pub(super) fn validate_strength(strength: f64) -> Result<(), InvalidValue> {
    if (0.0..=1.0).contains(&strength) {
        return Ok(());
    }
    Err(InvalidValue::new("init_image.strength", strength, "a number from 0 to 1", "0.6 to 0.8 is usual"))
}
