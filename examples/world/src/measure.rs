//! Images of this world, and measurements of its networks.

use std::error::Error;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor};
use fabric::core::image::{Crop, Fit, Image, clip_batch, from_tensor, vae_batch};
use fabric::core::models::{Autoencoder, LatentDecoder, Posterior};
use fabric::core::pipeline::{Pipeline, Request};
use fabric::models::clip::{ClipText, ClipVision};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::vae::Vae;
use rayon::ThreadPoolBuilder;

use crate::{Judge, Named, SIDE, Sample, Scene, Tally, Variation, full_caption};

/// Width and height of this world's images, in pixels.
const PIXELS: usize = SIDE as usize;

/// Draws a scene.
pub fn drawing((scene, variation): &(Scene, Variation)) -> Result<Image, Box<dyn Error>> {
    Ok(Image::from_rgb(PIXELS, PIXELS, scene.render(variation, SIDE)?)?)
}

/// Draws the images of samples.
pub fn drawn(samples: &[Sample]) -> Result<Vec<Image>, Box<dyn Error>> {
    samples.iter().map(|sample| drawing(&(sample.scene, sample.variation))).collect()
}

/// Converts images to the VAE's input, `[images, 3, height, width]` in [-1, 1].
pub fn pixels(images: &[Image], device: &Device) -> Result<Tensor<4>, Box<dyn Error>> {
    Ok(vae_batch(images, PIXELS, PIXELS, Fit::Squash, device)?)
}

/// Encodes and decodes images with a VAE.
pub fn reconstructed(vae: &Vae, images: &[Image], device: &Device) -> Result<Vec<Image>, Box<dyn Error>> {
    let mut decoded = Vec::with_capacity(images.len());
    for images in images.chunks(32) {
        let latents = vae.encode_distribution(pixels(images, device)?).mean;
        decoded.extend(from_tensor(vae.decode_unscaled(latents))?);
    }
    Ok(decoded)
}

/// Generates the images of many requests, in the order of the requests.
///
/// One thread computes each request: networks as small as this world's do not keep several cores busy.
pub fn generate_all(pipeline: &Pipeline, requests: &[Request]) -> Result<Vec<Image>, Box<dyn Error>> {
    let threads = std::thread::available_parallelism()?.get();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<Image>)>, fabric::core::Error> {
        let mut made = Vec::new();
        while let Some((at, request)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, requests.get(at)?)))
        {
            made.push((at, pipeline.generate(request)?.images));
        }
        Ok(made)
    };
    let pools = (0..threads).map(|_| ThreadPoolBuilder::new().num_threads(1).build()).collect::<Result<Vec<_>, _>>()?;
    let mut made = std::thread::scope(|scope| {
        let threads: Vec<_> = pools.iter().map(|pool| scope.spawn(|| pool.install(work))).collect();
        let mut made = Vec::with_capacity(requests.len());
        for thread in threads {
            made.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok::<_, fabric::core::Error>(made)
    })?;
    made.sort_by_key(|(at, _)| *at);
    Ok(made.into_iter().flat_map(|(_, images)| images).collect())
}

/// Counts how often the readers are correct on drawn images.
pub fn readers(judge: &Judge, samples: &[Sample]) -> Result<Tally, Box<dyn Error>> {
    let mut tally = Tally::default();
    for (sample, seen) in samples.iter().zip(judge.read(&drawn(samples)?)?) {
        tally.add(&Named::of(&sample.scene), &seen);
    }
    Ok(tally)
}

/// Retrieval accuracy: fraction of full captions whose own image is the most similar one among 64.
pub fn retrieval(
    (text, vision): (&ClipText, &ClipVision),
    tokenizer: &ClipTokenizer,
    samples: &[Sample],
    device: &Device,
) -> Result<f64, Box<dyn Error>> {
    let unit = |x: Tensor<2>| x.clone() / x.square().sum_dim(1).sqrt();
    let mut right = 0;
    for group in samples.chunks(64) {
        let mut ids = Vec::new();
        for sample in group {
            let caption = full_caption(&sample.scene);
            ids.push(tokenizer.tokenize(&caption, tokenizer.window(), tokenizer.padding())?.ids);
        }
        let read = text.forward(&ids)?.text_embeds.ok_or("the text encoder has no projection")?;
        let seen = vision.forward(clip_batch(&drawn(group)?, PIXELS, Crop::Centre, device)?).image_embeds;
        let got = unit(seen).matmul(unit(read).transpose()).argmax(0).into_data();
        right += got.iter::<i64>().zip(0..).filter(|(got, own)| got == own).count();
    }
    Ok(right as f64 / samples.len() as f64)
}

/// Peak signal-to-noise ratio, in dB, of images that a VAE encoded and decoded. It does not depend on the scaling
/// factor.
pub fn fidelity(vae: &Vae, samples: &[Sample], device: &Device) -> Result<f64, Box<dyn Error>> {
    let mut error = 0.0;
    for group in samples.chunks(32) {
        let pixels = pixels(&drawn(group)?, device)?;
        let back = vae.decode_unscaled(vae.encode_distribution(pixels.clone()).mean).clamp(-1.0, 1.0);
        error += (back - pixels).square().mean().into_scalar::<f64>() * group.len() as f64;
    }
    // The pixels' range is 2, and its square 4.
    Ok(10.0 * (4.0 * samples.len() as f64 / error).log10())
}

/// Peak signal-to-noise ratio, in dB, of images that another decoder makes of a VAE's latents, compared to the images
/// that the VAE makes of them.
pub fn decoder_fidelity(
    decoder: &dyn LatentDecoder,
    vae: &Vae,
    samples: &[Sample],
    device: &Device,
) -> Result<f64, Box<dyn Error>> {
    let mut error = 0.0;
    for group in samples.chunks(32) {
        let latents = vae.encode(pixels(&drawn(group)?, device)?, Posterior::Mean);
        let [expected, got] = [vae.decode(latents.clone()), decoder.decode(latents)].map(|x| x.clamp(-1.0, 1.0));
        error += (got - expected).square().mean().into_scalar::<f64>() * group.len() as f64;
    }
    Ok(10.0 * (4.0 * samples.len() as f64 / error).log10())
}
