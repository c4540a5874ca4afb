//! What a run starts from.

use burn::tensor::Tensor;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};

use super::inpaint::MaskChannels;
use super::{Pipeline, Request};
use crate::Error;
use crate::models::Posterior;
use crate::noise::{Draw, RunNoise};
use crate::picture::{self, Fit};
use crate::samplers::Repaint;
use crate::schedule::Schedule;

/// The first state, and what is kept of a picture.
pub(super) struct Start {
    pub(super) latents: Tensor<4>,
    /// For networks that were not trained to fill in.
    pub(super) repaint: Option<Repaint>,
    /// For those that were.
    pub(super) channels: Option<MaskChannels>,
}

impl Pipeline {
    /// Noise, or a picture with noise on it, and which part of it is made anew.
    pub(super) fn start(
        &self,
        request: &Request,
        schedule: &Schedule,
        size: [usize; 2],
        noise: &mut dyn RunNoise,
    ) -> Result<Start, Error> {
        let (images, device) = (request.seeds.len(), self.unet.device());
        let shape = self.latent_shape(images, size);
        let referenced = !request.feedback.is_empty();
        let Some(start) = &request.start else {
            let latents = noise.draw(Draw::Latents, shape)? * schedule.init_noise_sigma();
            let channels =
                self.inpaints().then(|| self.mask_channels(referenced, None, None, shape, noise)).transpose()?;
            return Ok(Start { latents, repaint: None, channels });
        };
        let pictures = std::slice::from_ref(&start.picture);
        let pixels = picture::vae_batch(pictures, size[0], size[1], Fit::SquashLanczos, &device)?;
        let whole = match &request.mask {
            Some(mask) => Some(picture::mask_batch(mask, size[0], size[1], &device)?),
            None => None,
        };
        let to_latents = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([shape[2], shape[3]]);
        let mask = whole.clone().map(|mask| interpolate(mask, to_latents));

        let posterior = noise.draw(Draw::StartPosterior, shape)?;
        let clean = self.codec.encode(pixels.clone(), Posterior::Sample(posterior));
        let drawn = noise.draw(Draw::StartNoise, shape)?.cast(clean.dtype());
        // As published: a part that is given up entirely starts from noise alone.
        let latents = if start.strength == 1.0 && mask.is_some() {
            drawn.clone() * schedule.init_noise_sigma()
        } else {
            schedule.add_noise(clean.clone(), drawn.clone())
        };
        if self.inpaints() {
            let picture = whole.map(|mask| (pixels, mask));
            let channels = self.mask_channels(referenced, picture, mask.as_ref(), shape, noise)?;
            return Ok(Start { latents, repaint: None, channels: Some(channels) });
        }
        let repaint = mask.map(|mask| {
            let mask = mask.cast(clean.dtype()).repeat_dim(0, images);
            Repaint { clean, noise: drawn, mask }
        });
        Ok(Start { latents, repaint, channels: None })
    }
}
