//! Pictures of the small world, and what its networks make of them.

use std::error::Error;

use burn::tensor::{Device, Tensor};
use fabric::core::picture::{Crop, Fit, Picture, clip_batch, vae_batch};
use fabric::models::clip::{ClipText, ClipVision};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::vae::Vae;
use fabric::models::world::{Judge, Named, SIDE, Sample, Tally, full_caption};

/// A side of this world's pictures.
const PIXELS: usize = SIDE as usize;

/// The pictures of samples.
pub(crate) fn drawn(samples: &[Sample]) -> Result<Vec<Picture>, Box<dyn Error>> {
    let draw = |sample: &Sample| Ok(Picture::from_rgb(PIXELS, PIXELS, sample.scene.render(&sample.variation, SIDE)?)?);
    samples.iter().map(draw).collect()
}

/// Pictures as a VAE takes them.
pub(crate) fn pixels(pictures: &[Picture], device: &Device) -> Result<Tensor<4>, Box<dyn Error>> {
    Ok(vae_batch(pictures, PIXELS, PIXELS, Fit::Squash, device)?)
}

/// How often the readers are right on drawn pictures.
pub(crate) fn readers(judge: &Judge, samples: &[Sample]) -> Result<Tally, Box<dyn Error>> {
    let mut tally = Tally::default();
    for (sample, seen) in samples.iter().zip(judge.read(&drawn(samples)?)?) {
        tally.add(&Named::of(&sample.scene), &seen);
    }
    Ok(tally)
}

/// Share of captions that say everything whose own picture is the most similar one among 64.
pub(crate) fn retrieval(
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
        let found = unit(seen).matmul(unit(read).transpose()).argmax(0).into_data();
        right += found.iter::<i64>().zip(0..).filter(|(found, own)| found == own).count();
    }
    Ok(right as f64 / samples.len() as f64)
}

/// Peak signal to noise ratio, in dB, of pictures that a VAE encoded and decoded; it scales its latents or not.
pub(crate) fn fidelity(vae: &Vae, samples: &[Sample], device: &Device) -> Result<f64, Box<dyn Error>> {
    let mut error = 0.0;
    for group in samples.chunks(32) {
        let pixels = pixels(&drawn(group)?, device)?;
        let back = vae.decode_unscaled(vae.encode_distribution(pixels.clone()).mean).clamp(-1.0, 1.0);
        error += (back - pixels).square().mean().into_scalar::<f64>() * group.len() as f64;
    }
    // Pixels span 2.
    Ok(10.0 * (4.0 * samples.len() as f64 / error).log10())
}
