//! Initial latents of a run: noise, or an init image with noise and an optional mask.

use burn::tensor::Tensor;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};

use super::inpaint::MaskChannels;
use super::{Generation, Pipeline, Report, Request};
use crate::image::{self, Fit};
use crate::models::Posterior;
use crate::noise::{Draw, RunNoise, drawn};
use crate::samplers::MaskBlend;
use crate::schedule::Schedule;
use crate::{Error, InitImage};

/// Initial latents, and the mask data for inpainting.
pub(super) struct Start {
    pub(super) latents: Tensor<4>,
    /// For inpainting with ordinary U-Nets.
    pub(super) mask_blend: Option<MaskBlend>,
    /// For inpainting U-Nets.
    pub(super) channels: Option<MaskChannels>,
}

impl Pipeline {
    /// Refuses a mask that selects nothing: the run would return the init image unchanged.
    pub(super) fn check_mask(&self, request: &Request, [width, height]: [usize; 2]) -> Result<(), Error> {
        let Some(mask) = request.init_image.as_ref().and_then(|start| start.mask.as_ref()) else { return Ok(()) };
        let light = image::mask_pixels(mask, width, height)?;
        // As in the published code, each latent is masked by the first pixel (top left) of its square.
        let step = self.autoencoder.scale_factor();
        let mut counted = (0..height).step_by(step).flat_map(|y| (0..width).step_by(step).map(move |x| y * width + x));
        if counted.any(|at| light[at] > 0.0) {
            return Ok(());
        }
        let (got, next) = match light.iter().filter(|value| **value > 0.0).count() {
            0 => {
                let brightest = image::brightest(mask);
                let next = match brightest {
                    0 => "make the part white; a mask in a file's alpha channel is read by `Image::open_mask`",
                    1 => "multiply its values by 255, which is white",
                    2..128 => "make the part white",
                    _ => "paint the part thicker: it is lost when the mask is brought to the size of the result",
                };
                (format!("none at {width}x{height} (its lightest pixel has {brightest})"), next)
            }
            thin => {
                let got = format!("{thin} pixels at {width}x{height}, but none that a latent looks at");
                (got, "paint the part thicker: every latent looks at one pixel of its square")
            }
        };
        let expected = format!("a part of 128 to 255, at least {step} pixels wide and high, to be made anew");
        Err(Error::settings("light part of the mask", got, expected, next))
    }

    /// Returns the resized init image for each seed: the result at strength 0.
    pub(super) fn unchanged(
        &self,
        seeds: &[u64],
        start: &InitImage,
        size @ [width, height]: [usize; 2],
        noise: &mut dyn RunNoise,
    ) -> Result<Generation, Error> {
        let kept = start.image.fit(width, height, Fit::SquashLanczos)?;
        let pixels = image::vae_batch(std::slice::from_ref(&kept), width, height, Fit::Squash, &self.unet.device())?;
        let posterior = drawn(noise, Draw::StartPosterior, self.latent_shape(seeds.len(), size))?;
        let latents = self.autoencoder.encode(pixels, Posterior::Sample(posterior));
        let notes = vec!["a strength of 0 keeps the init image: nothing else of the request has an effect".to_owned()];
        let cache = self.tokens.stats();
        let report = Report { notes, cache, ..Report::default() };
        Ok(Generation { images: vec![kept; seeds.len()], seeds: seeds.to_vec(), latents, report })
    }

    /// Creates the initial latents: noise, or the init image with noise, and the mask data.
    pub(super) fn start(
        &self,
        request: &Request,
        images: usize,
        schedule: &Schedule,
        size: [usize; 2],
        noise: &mut dyn RunNoise,
    ) -> Result<Start, Error> {
        let device = self.unet.device();
        let shape = self.latent_shape(images, size);
        let referenced = !request.feedback.is_empty();
        let Some(start) = &request.init_image else {
            let latents = drawn(noise, Draw::Latents, shape)? * schedule.init_noise_sigma();
            let channels =
                self.inpaints().then(|| self.mask_channels(referenced, None, None, shape, noise)).transpose()?;
            return Ok(Start { latents, mask_blend: None, channels });
        };
        let initial = std::slice::from_ref(&start.image);
        let pixels = image::vae_batch(initial, size[0], size[1], Fit::SquashLanczos, &device)?;
        let whole = match &start.mask {
            Some(mask) => Some(image::mask_batch(mask, size[0], size[1], &device)?),
            None => None,
        };
        let to_latents = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([shape[2], shape[3]]);
        let mask = whole.clone().map(|mask| interpolate(mask, to_latents));

        let posterior = drawn(noise, Draw::StartPosterior, shape)?;
        let clean = self.autoencoder.encode(pixels.clone(), Posterior::Sample(posterior));
        let fresh = drawn(noise, Draw::StartNoise, shape)?.cast(clean.dtype());
        // As published: at strength 1 with a mask, the run starts from pure noise.
        let latents = if start.strength == 1.0 && mask.is_some() {
            fresh.clone() * schedule.init_noise_sigma()
        } else {
            schedule.add_noise(clean.clone(), fresh.clone())
        };
        if self.inpaints() {
            let image = whole.map(|mask| (pixels, mask));
            let channels = self.mask_channels(referenced, image, mask.as_ref(), shape, noise)?;
            return Ok(Start { latents, mask_blend: None, channels: Some(channels) });
        }
        let mask_blend = mask.map(|mask| {
            let mask = mask.cast(clean.dtype()).repeat_dim(0, images);
            MaskBlend { clean, noise: fresh, mask }
        });
        Ok(Start { latents, mask_blend, channels: None })
    }
}
