//! Training tasks for the models of this world, in the order in which they depend on each other.
//!
//! [`ReadersTask`] (image to factors, for evaluation), [`TextTask`] (text encoder), [`ClipTask`] (image
//! encoder, into the embedding space of the texts), [`VaeTask`] (autoencoder), [`TinyVaeTask`] (tiny
//! autoencoder, for previews), [`UNetTask`] (latents from text), [`PromptTokensTask`] (start of an IP-Adapter). Architectures and files are those of Stable
//! Diffusion; only the sizes in [`WorldConfig`] are small.

mod clip;
mod config;
mod prompt_tokens;
mod readers;
mod text;
mod tiny_vae;
mod unet;
mod vae;

pub use clip::{ClipBatch, ClipTask, WorldClip};
pub use config::{Stage, StageConfig, StageOptions, WorldConfig, world_tokenizer};
pub use prompt_tokens::{PromptTokensBatch, PromptTokensTask};
pub use readers::{ReadersBatch, ReadersTask};
pub use text::{TextBatch, TextTask, WorldText};
pub use tiny_vae::{DistillationBatch, TinyVaeTask};
pub use unet::{LatentBatch, UNetTask};
pub use vae::{ImageBatch, VaeTask};

#[cfg(test)]
mod tests;

use burn::tensor::{Device, Tensor, TensorData};
use fabric::core::image::{Crop, Image, clip_pixels};

use super::{Background, BackgroundColour, BackgroundPattern, Colour, SIDE, Sample, Scene, Variation};

/// Returns the pixels of images preprocessed for the image encoder, `[images, 3, 64, 64]`, flattened.
fn seen<'a>(drawn: impl Iterator<Item = (&'a Scene, &'a Variation)>) -> Vec<f32> {
    let side = SIDE as usize;
    let pixels = drawn.flat_map(|(scene, variation)| {
        let rgb = scene.render(variation, SIDE).expect("the world's own size can be drawn");
        let image = Image::from_rgb(side, side, rgb).expect("a whole image");
        clip_pixels(&image, side, Crop::Centre).expect("the world's own size can be seen")
    });
    pixels.collect()
}

/// Returns the things alone, all drawn in the same colour, as brightness from 0 to 1, in patches with row-major
/// pixels: `[images, patches, pixels]`, flattened.
fn sketches(samples: &[Sample], patch: usize) -> Vec<f32> {
    let side = SIDE as usize;
    let background = Background { colour: BackgroundColour::Black, pattern: BackgroundPattern::Plain };
    let corners = || (0..side).step_by(patch).flat_map(|y| (0..side).step_by(patch).map(move |x| y * side + x));
    let mut brightness = Vec::with_capacity(samples.len() * side * side);
    for sample in samples {
        // Yellow has the two shades that differ most from each other and from black.
        let scene = Scene { colour: Colour::Yellow, background, ..sample.scene };
        let variation = Variation { shade: 0.0, background_shade: 0.0, ..sample.variation };
        let rgb = scene.render(&variation, SIDE).expect("the world's own size can be drawn");
        let pixels = rgb.as_chunks::<3>().0;
        let rows = corners().flat_map(|corner| (0..patch).map(move |row| corner + row * side));
        let pixels = rows.flat_map(|from| &pixels[from..from + patch]);
        brightness.extend(pixels.map(|pixel| pixel.iter().map(|value| f32::from(*value)).sum::<f32>() / 765.0));
    }
    brightness
}

/// Returns the pixels of images for the VAE, in [-1, 1], `[images, 3, 64, 64]`, flattened.
fn pixels(samples: &[Sample]) -> Vec<f32> {
    let area = (SIDE * SIDE) as usize;
    let mut values = vec![0.0; samples.len() * 3 * area];
    for (sample, out) in samples.iter().zip(values.chunks_exact_mut(3 * area)) {
        let rgb = sample.scene.render(&sample.variation, SIDE).expect("the world's own size can be drawn");
        for (at, pixel) in rgb.as_chunks::<3>().0.iter().enumerate() {
            for (channel, value) in pixel.iter().enumerate() {
                out[channel * area + at] = f32::from(*value) / 127.5 - 1.0;
            }
        }
    }
    values
}

/// Uploads such pixels to a device, for images of this side.
fn upload(pixels: Vec<f32>, side: usize, device: &Device) -> Tensor<4> {
    let images = pixels.len() / (3 * side * side);
    Tensor::from_data(TensorData::new(pixels, [images, 3, side, side]), device)
}
