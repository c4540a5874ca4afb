//! Making a part of an image anew.

use burn::tensor::Tensor;

use crate::schedule::Schedule;

/// An image of which a part is made anew and the rest is kept, as diffusers' inpainting does with ordinary models.
#[derive(Debug, Clone)]
pub struct MaskBlend {
    /// The image, `[images, channels, height, width]`.
    pub clean: Tensor<4>,
    /// The noise that the run began with, of the same shape.
    pub noise: Tensor<4>,
    /// 1 is made anew, 0 is kept: `[images, 1, height, width]`.
    pub mask: Tensor<4>,
}

impl MaskBlend {
    /// A state with the image, as noisy as the next evaluation expects it, where the mask is 0.
    pub(super) fn put_back(&self, state: Tensor<4>, schedule: &Schedule, next: usize) -> Tensor<4> {
        let kept = schedule.add_noise_before(next, self.clean.clone(), self.noise.clone());
        let mask = self.mask.clone();
        kept * (mask.ones_like() - mask.clone()) + state * mask
    }
}
