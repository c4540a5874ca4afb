//! Inpainting with ordinary models.

use burn::tensor::Tensor;

use crate::schedule::Schedule;

/// Blends the original latents back in outside the mask, as diffusers' inpainting does with models that are not
/// trained for inpainting.
#[derive(Debug, Clone)]
pub(crate) struct MaskBlend {
    /// Clean latents of the original image, `[images, channels, height, width]`.
    pub(crate) clean: Tensor<4>,
    /// The initial noise of the run, of the same shape.
    pub(crate) noise: Tensor<4>,
    /// Mask `[images, 1, height, width]`: 1 is generated, 0 is kept.
    pub(crate) mask: Tensor<4>,
}

impl MaskBlend {
    /// Returns the state with the original latents, at the noise level of the next evaluation, where the mask is
    /// 0.
    pub(super) fn put_back(&self, state: Tensor<4>, schedule: &Schedule, next: usize) -> Tensor<4> {
        let kept = schedule.add_noise_before(next, self.clean.clone(), self.noise.clone());
        let mask = self.mask.clone();
        kept * (mask.ones_like() - mask.clone()) + state * mask
    }
}
