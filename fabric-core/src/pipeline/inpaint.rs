//! Extra input channels of inpainting U-Nets.

use burn::tensor::Tensor;

use super::Pipeline;
use crate::Error;
use crate::layout::BatchLayout;
use crate::models::Posterior;
use crate::noise::{Draw, RunNoise, drawn};

/// Mask and latents of the masked image, the extra input channels of an inpainting U-Net.
#[derive(Debug)]
pub(super) struct MaskChannels {
    /// Channels of the images, `[images, 1 + channels, height, width]`.
    images: Tensor<4>,
    /// Channels with a mask that selects everything, used for references: these stand for completely generated
    /// images. `[1, 1 + channels, height, width]`; `None` in runs without references.
    nothing_kept: Option<Tensor<4>>,
}

impl MaskChannels {
    /// Appends the channels to the rows of a batch.
    pub(super) fn beside(&self, rows: Tensor<4>, layout: &BatchLayout) -> Tensor<4> {
        let mut beside = Vec::new();
        if layout.image_rows() > 0 {
            beside.push(self.images.clone().repeat_dim(0, layout.branches().len()));
        }
        if layout.reference_rows() > 0 {
            beside.push(self.of_references(layout.reference_rows()));
        }
        Tensor::cat(vec![rows, Tensor::cat(beside, 0)], 1)
    }

    fn of_references(&self, count: usize) -> Tensor<4> {
        let nothing_kept = self.nothing_kept.clone().expect("a run with references makes their channels");
        nothing_kept.repeat_dim(0, count)
    }
}

impl Pipeline {
    /// Whether the U-Net is an inpainting model.
    pub(super) fn inpaints(&self) -> bool {
        self.unet.in_channels() != self.autoencoder.latent_channels()
    }

    /// Computes the extra channels for an image and mask; without them, a mask that selects everything.
    ///
    /// # Shapes
    ///
    /// - `image`: pixels in [-1, 1] `[1, 3, height, width]`, and the mask `[1, 1, height, width]`
    /// - `mask`: the same mask in the latents' size
    /// - `shape`: shape of the latents
    pub(super) fn mask_channels(
        &self,
        has_references: bool,
        image: Option<(Tensor<4>, Tensor<4>)>,
        mask: Option<&Tensor<4>>,
        shape: [usize; 4],
        noise: &mut dyn RunNoise,
    ) -> Result<MaskChannels, Error> {
        let [images, channels, height, width] = shape;
        let (step, device) = (self.autoencoder.scale_factor(), self.unet.device());
        let nothing_kept = || {
            // In the published code the masked area is grey: 0 in the range -1 to 1.
            let grey = Tensor::zeros([1, 3, height * step, width * step], &device);
            let nothing = self.autoencoder.encode(grey, Posterior::Mean);
            let all = Tensor::ones([1, 1, height, width], (&device, nothing.dtype()));
            Tensor::cat(vec![all, nothing], 1)
        };
        let images = match (image, mask) {
            (Some((pixels, whole)), Some(mask)) => {
                let kept = pixels * (whole.ones_like() - whole);
                let posterior = drawn(noise, Draw::MaskedPosterior, [images, channels, height, width])?;
                let kept = self.autoencoder.encode(kept, Posterior::Sample(posterior));
                let mask = mask.clone().cast(kept.dtype()).repeat_dim(0, images);
                Tensor::cat(vec![mask, kept], 1)
            }
            _ => nothing_kept().repeat_dim(0, images),
        };
        let nothing_kept = has_references.then(nothing_kept);
        Ok(MaskChannels { images, nothing_kept })
    }
}
