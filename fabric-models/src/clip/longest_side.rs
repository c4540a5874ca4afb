//! Preprocessing of HPS v2: the longest side is resized, and the rest padded with black.

use burn::tensor::{Device, Tensor, TensorData};
use fabric_core::image::{CLIP_MEAN, CLIP_STD, Image};

/// Returns a batch of images for the image encoder of HPS v2, `[images, 3, size, size]`.
///
/// Equals `ResizeMaxSize` of the published code (<https://github.com/tgxs002/HPSv2>, commit 866735e,
/// `hpsv2/src/open_clip/transform.py`), which `hpsv2.score` selects with `light_augmentation=True`. It converts the
/// pixels to floats first and resizes these with torchvision's bicubic filter, which is antialiased by default since
/// torchvision 0.17. So values are neither rounded to bytes nor limited to their range, unlike with Pillow.
pub(super) fn longest_side_batch(images: &[Image], size: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = images.iter().flat_map(|image| longest_side_pixels(image, size)).collect();
    Tensor::from_data(TensorData::new(values, [images.len(), 3, size, size]), device)
}

/// Returns the pixels of one image, `[3, size, size]`.
fn longest_side_pixels(image: &Image, size: usize) -> Vec<f32> {
    let scale = size as f64 / image.width().max(image.height()) as f64;
    // Halves are rounded to even, as in Python. The published code fails on an image whose shorter side becomes 0.
    let scaled = |side: usize| ((side as f64 * scale).round_ties_even() as usize).clamp(1, size);
    let (width, height) = (scaled(image.width()), scaled(image.height()));

    let values: Vec<f32> = image.rgb().iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let narrow = resample(&values, image.width(), 3, &taps(image.width(), width));
    let resized = resample(&narrow, image.height(), width * 3, &taps(image.height(), height));

    let (left, top) = ((size - width) / 2, (size - height) / 2);
    let mut planes = Vec::with_capacity(3 * size * size);
    for (channel, (mean, std)) in CLIP_MEAN.into_iter().zip(CLIP_STD).enumerate() {
        let start = planes.len();
        planes.resize(start + size * size, -mean / std);
        for (y, row) in resized.chunks_exact(width * 3).enumerate() {
            let at = start + (top + y) * size + left;
            for (target, pixel) in planes[at..at + width].iter_mut().zip(row.chunks_exact(3)) {
                *target = (pixel[channel] - mean) / std;
            }
        }
    }
    planes
}

/// Contribution of source pixels to one target pixel.
struct Tap {
    /// The first source pixel.
    first: usize,
    /// Weights of it and the ones after it; their sum is 1.
    weights: Vec<f32>,
}

/// Returns the taps of PyTorch's antialiased bicubic filter, which widens with the reduction factor.
fn taps(source: usize, target: usize) -> Vec<Tap> {
    if source == target {
        return (0..source).map(|first| Tap { first, weights: vec![1.0] }).collect();
    }
    let scale = source as f64 / target as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let tap = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        // Casts truncate towards zero, and negative numbers become 0.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(source);
        let weights: Vec<f64> = (first..end).map(|at| cubic((at as f64 - centre + 0.5) / stretch)).collect();
        let total: f64 = weights.iter().sum();
        Tap { first, weights: weights.iter().map(|weight| (weight / total) as f32).collect() }
    };
    (0..target).map(tap).collect()
}

/// Cubic filter with `a = -0.5`.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Resamples the middle axis of `[outer, length, inner]`.
fn resample(values: &[f32], length: usize, inner: usize, taps: &[Tap]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len() / length * taps.len());
    for block in values.chunks_exact(length * inner) {
        for tap in taps {
            let start = out.len();
            out.resize(start + inner, 0.0);
            for (row, weight) in block[tap.first * inner..].chunks_exact(inner).zip(&tap.weights) {
                for (sum, value) in out[start..].iter_mut().zip(row) {
                    *sum += weight * value;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use fabric_core::image::{Crop, clip_pixels};

    use super::*;

    /// Smooth, so that the filter does not leave the range of a byte.
    fn smooth(width: usize, height: usize) -> Image {
        let wave = |at: usize, side: usize| (at as f64 / side as f64 * 5.0).sin();
        let pixel = |index: usize| {
            let (x, y) = (wave(index % width, width), wave(index / width, height));
            [128.0 + 90.0 * x, 128.0 + 90.0 * y, 128.0 + 60.0 * x * y].map(|value: f64| value as u8)
        };
        Image::from_rgb(width, height, (0..width * height).flat_map(pixel).collect()).expect("an image")
    }

    #[test]
    fn it_is_pillows_padding_without_rounding_to_bytes() {
        for (width, height) in [(64, 48), (31, 57), (10, 16), (32, 32), (40, 40), (200, 20)] {
            let image = smooth(width, height);
            let ours = longest_side_pixels(&image, 32);
            let pillow = clip_pixels(&image, 32, Crop::Pad).expect("pixels");
            let most = ours.iter().zip(&pillow).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Half a byte in each of two passes, the first multiplied by the second's weights, over the deviation.
            assert!(most < 1.2 / 255.0 / 0.26, "{width}x{height}: {most}");
        }
    }

    #[test]
    fn values_beyond_the_range_of_a_byte_are_kept() {
        let edge = Image::from_rgb(4, 1, [[0_u8; 3], [0; 3], [255; 3], [255; 3]].concat()).expect("an image");
        let pixels = longest_side_pixels(&edge, 8);
        let white = (1.0 - CLIP_MEAN[0]) / CLIP_STD[0];
        assert!(pixels[..64].iter().any(|value| *value > white + 0.01), "the bicubic filter overshoots");
    }
}
