//! Images of the small world, and measurements of its networks.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor};
use fabric::core::image::{Crop, Fit, Image, clip_batch, from_tensor, vae_batch};
use fabric::core::pipeline::{Pipeline, Request};
use fabric::core::session::{BestAndWorst, FeedbackSource, Round, Vote};
use fabric::models::clip::{ClipText, ClipVision};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::vae::Vae;
use fabric::models::world::{Judge, Named, SIDE, Sample, Tally, full_caption, parse_caption};
use rayon::ThreadPoolBuilder;

/// Width and height of this world's images, in pixels.
const PIXELS: usize = SIDE as usize;

/// Draws the images of samples.
pub(crate) fn drawn(samples: &[Sample]) -> Result<Vec<Image>, Box<dyn Error>> {
    let draw = |sample: &Sample| Ok(Image::from_rgb(PIXELS, PIXELS, sample.scene.render(&sample.variation, SIDE)?)?);
    samples.iter().map(draw).collect()
}

/// Converts images to the VAE's input, `[images, 3, height, width]` in [-1, 1].
pub(crate) fn pixels(images: &[Image], device: &Device) -> Result<Tensor<4>, Box<dyn Error>> {
    Ok(vae_batch(images, PIXELS, PIXELS, Fit::Squash, device)?)
}

/// Encodes and decodes images with a VAE.
pub(crate) fn reconstructed(vae: &Vae, images: &[Image], device: &Device) -> Result<Vec<Image>, Box<dyn Error>> {
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
pub(crate) fn generate_all(pipeline: &Pipeline, requests: &[Request]) -> Result<Vec<Image>, Box<dyn Error>> {
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
pub(crate) fn readers(judge: &Judge, samples: &[Sample]) -> Result<Tally, Box<dyn Error>> {
    let mut tally = Tally::default();
    for (sample, seen) in samples.iter().zip(judge.read(&drawn(samples)?)?) {
        tally.add(&Named::of(&sample.scene), &seen);
    }
    Ok(tally)
}

/// Retrieval accuracy: fraction of full captions whose own image is the most similar one among 64.
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
        let got = unit(seen).matmul(unit(read).transpose()).argmax(0).into_data();
        right += got.iter::<i64>().zip(0..).filter(|(got, own)| got == own).count();
    }
    Ok(right as f64 / samples.len() as f64)
}

/// Peak signal-to-noise ratio, in dB, of images that a VAE encoded and decoded. It does not depend on the scaling
/// factor.
pub(crate) fn fidelity(vae: &Vae, samples: &[Sample], device: &Device) -> Result<f64, Box<dyn Error>> {
    let mut error = 0.0;
    for group in samples.chunks(32) {
        let pixels = pixels(&drawn(group)?, device)?;
        let back = vae.decode_unscaled(vae.encode_distribution(pixels.clone()).mean).clamp(-1.0, 1.0);
        error += (back - pixels).square().mean().into_scalar::<f64>() * group.len() as f64;
    }
    // The pixels' range is 2, and its square 4.
    Ok(10.0 * (4.0 * samples.len() as f64 / error).log10())
}

/// Simulated person: likes the image that matches a caption best and dislikes the one that matches it worst.
pub(crate) struct Person {
    wanted: Named,
    judge: Judge,
}

impl Person {
    /// Creates a person with this caption who judges images with the readers in a model's folder.
    pub(crate) fn new(caption: &str, model: &Path, device: &Device) -> Result<Self, Box<dyn Error>> {
        let wanted = parse_caption(caption);
        if wanted.attributes().next().is_none() {
            return Err(format!("--wants: expected a caption like \"a small red star on blue\", got nothing of the small world in {caption:?}").into());
        }
        Ok(Self { wanted, judge: Judge::load(model, device)? })
    }
}

impl FeedbackSource for Person {
    fn judge(&mut self, round: &Round) -> Result<Vec<(usize, Vote)>, fabric::core::Error> {
        let seen = self.judge.read(&round.images)?;
        let scores: Vec<f64> = seen.iter().map(|seen| self.wanted.agreement(seen)).collect();
        let shown: Vec<_> = scores.iter().map(|score| format!("{:.0} %", 100.0 * score)).collect();
        println!("images show {} of what is wanted", shown.join(", "));
        let mut scores = scores.into_iter();
        BestAndWorst::new(|_, _| Ok(scores.next().unwrap_or_default())).judge(round)
    }
}
