//! Images that steer a run, as data.

use crate::image::Image;
use crate::window::Window;
use crate::{Aspect, InvalidValue};

/// An image that steers a run through the adapter of the pipeline, with its aspect, scale, window and direction.
///
/// It is data, for sessions and programs that do not hold an adapter themselves. A pipeline realises it with the adapter
/// that [`Pipeline::with_adapter`](crate::pipeline::Pipeline::with_adapter) gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageCondition {
    /// The image.
    pub image: Image,
    /// Aspect of the image that is used. `None` is a plain image prompt; an aspect needs an Instruct
    /// adapter, or a plain one that has layers for it.
    pub aspect: Option<Aspect>,
    /// Scale, not negative; 1 is as trained. The conditions of a request share one softmax, in which their scales count
    /// relative to one another.
    pub scale: f64,
    /// Part of the run in which it acts.
    pub window: Window,
    /// Whether it leads away from the image. It then acts on the branches that guidance leads away from, in the place of
    /// "no image", so it has no effect at guidance scale 1.
    pub away: bool,
}

/// Largest scale; far beyond useful ones.
const MAX_SCALE: f64 = 100.0;

impl ImageCondition {
    /// Creates a plain image prompt with scale 1 in the whole run.
    pub fn new(image: Image) -> Self {
        Self { image, aspect: None, scale: 1.0, window: Window::default(), away: false }
    }

    /// Sets what of the image is used.
    #[must_use]
    pub fn using(self, aspect: impl Into<Aspect>) -> Self {
        Self { aspect: Some(aspect.into()), ..self }
    }

    /// Sets the scale.
    #[must_use]
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Restricts it to a part of the run.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Leads away from the image instead of towards it.
    #[must_use]
    pub fn away(self) -> Self {
        Self { away: true, ..self }
    }

    /// Checks scale and aspect.
    ///
    /// # Errors
    ///
    /// Returns an error if the scale is not a number from 0 to 100, or the words of the aspect are empty or too long.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        validate_scale(self.scale)?;
        self.aspect.as_ref().map_or(Ok(()), Aspect::validate)
    }
}

/// Checks that a scale is a number from 0 to [`MAX_SCALE`].
pub(crate) fn validate_scale(scale: f64) -> Result<(), InvalidValue> {
    if (0.0..=MAX_SCALE).contains(&scale) {
        return Ok(());
    }
    let next = "1 is as trained, 0 has no effect; use `away` to lead away";
    Err(InvalidValue::new("scale of an image condition", scale, format!("a number from 0 to {MAX_SCALE}"), next))
}
