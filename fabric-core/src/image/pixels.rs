//! Conversion between images and the tensors of networks.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Crop, Fit, Image, ImageError};

/// Mean of red, green and blue over CLIP's training images.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Standard deviation of red, green and blue over CLIP's training images.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Returns the pixels of an image for a CLIP image encoder: a square of side `size`, normalised,
/// `[3, size, size]`.
///
/// With [`Crop::Centre`], the result equals that of transformers' `CLIPImageProcessor` (the one that uses
/// Pillow).
///
/// # Errors
///
/// Returns [`ImageError::Size`] if `size` is zero or too large.
pub fn clip_pixels(image: &Image, size: usize, crop: Crop) -> Result<Vec<f32>, ImageError> {
    let square = image.crop_square(size, crop)?;
    Ok(planes(&square, |value, channel| {
        // Scaled in f64 and normalised in f32, as in NumPy.
        let scaled = (f64::from(value) * (1.0 / 255.0)) as f32;
        (scaled - CLIP_MEAN[channel]) / CLIP_STD[channel]
    }))
}

/// Returns a batch of images for a CLIP image encoder, `[images, 3, size, size]`; see [`clip_pixels`].
///
/// # Errors
///
/// Returns [`ImageError::Size`] if `size` is zero or too large.
pub fn clip_batch(images: &[Image], size: usize, crop: Crop, device: &Device) -> Result<Tensor<4>, ImageError> {
    batch(images, [3, size, size], device, |image| clip_pixels(image, size, crop))
}

/// Returns the pixels of an image for a VAE: fitted to the given size, from -1 to 1, `[3, height, width]`.
///
/// # Errors
///
/// Returns [`ImageError::Size`] if a side is zero or too long.
pub fn vae_pixels(image: &Image, width: usize, height: usize, fit: Fit) -> Result<Vec<f32>, ImageError> {
    Ok(planes(&image.fit(width, height, fit)?, |value, _| f32::from(value) / 127.5 - 1.0))
}

/// Returns a batch of images for a VAE, `[images, 3, height, width]`; see [`vae_pixels`].
///
/// # Errors
///
/// Returns [`ImageError::Size`] if a side is zero or too long.
pub fn vae_batch(
    images: &[Image],
    width: usize,
    height: usize,
    fit: Fit,
    device: &Device,
) -> Result<Tensor<4>, ImageError> {
    batch(images, [3, height, width], device, |image| vae_pixels(image, width, height, fit))
}

/// Returns a batch of images for a control network, from 0 to 1, `[images, 3, height, width]`.
///
/// # Errors
///
/// Returns [`ImageError::Size`] if a side is zero or too long.
pub fn control_batch(
    images: &[Image],
    width: usize,
    height: usize,
    fit: Fit,
    device: &Device,
) -> Result<Tensor<4>, ImageError> {
    batch(images, [3, height, width], device, |image| {
        Ok(planes(&image.fit(width, height, fit)?, |value, _| f32::from(value) / 255.0))
    })
}

/// Returns a batch of greyscale images, converted as in Pillow, from 0 to 1, `[images, 1, height, width]`.
///
/// # Errors
///
/// Returns [`ImageError::Size`] if a side is zero or too long.
pub fn grey_batch(
    images: &[Image],
    width: usize,
    height: usize,
    fit: Fit,
    device: &Device,
) -> Result<Tensor<4>, ImageError> {
    batch(images, [1, height, width], device, |image| {
        Ok(greys(&image.fit(width, height, fit)?).map(|grey| f32::from(grey) / 255.0).collect())
    })
}

/// Returns a mask as a tensor `[1, 1, height, width]`: 1 where it is light, 0 where it is dark, with no values in
/// between, as in diffusers' inpainting.
///
/// # Errors
///
/// Returns [`ImageError::Size`] if a side is zero or too long.
pub fn mask_batch(mask: &Image, width: usize, height: usize, device: &Device) -> Result<Tensor<4>, ImageError> {
    let values = mask_pixels(mask, width, height)?;
    Ok(Tensor::from_data(TensorData::new(values, [1, 1, height, width]), device))
}

/// Returns the values of [`mask_batch`], row by row.
///
/// # Errors
///
/// Returns [`ImageError::Size`] if a side is zero or too long.
pub fn mask_pixels(mask: &Image, width: usize, height: usize) -> Result<Vec<f32>, ImageError> {
    let mask = mask.fit(width, height, Fit::SquashLanczos)?;
    Ok(greys(&mask).map(|grey| f32::from(u8::from(grey >= 128))).collect())
}

/// Returns the brightness of the lightest pixel.
pub(crate) fn brightest(image: &Image) -> u8 {
    greys(image).max().unwrap_or_default()
}

/// Returns the brightness of all pixels.
fn greys(image: &Image) -> impl Iterator<Item = u8> {
    image.rgb().chunks_exact(3).map(|rgb| luma([rgb[0], rgb[1], rgb[2]]))
}

/// Returns the brightness of a pixel, converted as in Pillow.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// Converts the output of a VAE decoder, `[images, 3, height, width]`, to images: -1 is black, 1 is full
/// intensity, values beyond are clamped.
///
/// Values are rounded to the nearest byte, halves to even, as in the published code (NumPy).
///
/// # Errors
///
/// Returns [`ImageError::NotFinite`] if a value is NaN or infinite (which the published code turns black), and
/// [`ImageError::Size`] for an empty image.
///
/// # Panics
///
/// Panics if there are not three channels.
pub fn from_tensor(pixels: Tensor<4>) -> Result<Vec<Image>, ImageError> {
    let [count, channels, height, width] = pixels.dims();
    assert_eq!(channels, 3, "channels of {count} decoded images of {width}x{height}");
    if count == 0 {
        return Ok(Vec::new());
    }
    super::check_size("the decoded image", width, height)?;
    let values = pixels.into_data().convert::<f32>().try_to_vec::<f32>().expect("values were converted to f32");
    let plane = width * height;
    values
        .chunks_exact(3 * plane)
        .enumerate()
        .map(|(index, values)| from_planes(index, values, width, height))
        .collect()
}

fn from_planes(index: usize, values: &[f32], width: usize, height: usize) -> Result<Image, ImageError> {
    let got = values.iter().filter(|value| !value.is_finite()).count();
    if got > 0 {
        return Err(ImageError::NotFinite { index, got, total: values.len() });
    }
    let plane = width * height;
    let byte = |value: f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    let rgb = (0..plane).flat_map(|at| [0, 1, 2].map(|channel| byte(values[channel * plane + at]))).collect();
    Ok(Image::new(width, height, rgb))
}

/// Returns separate channels (`[3, height, width]`), with each value mapped by `map(value, channel)`.
fn planes(image: &Image, map: impl Fn(u8, usize) -> f32) -> Vec<f32> {
    (0..3)
        .flat_map(|channel| {
            let table: Vec<f32> = (0..=255).map(|value| map(value, channel)).collect();
            image.rgb().iter().skip(channel).step_by(3).map(move |value| table[usize::from(*value)])
        })
        .collect()
}

fn batch(
    images: &[Image],
    [channels, height, width]: [usize; 3],
    device: &Device,
    pixels: impl Fn(&Image) -> Result<Vec<f32>, ImageError>,
) -> Result<Tensor<4>, ImageError> {
    let mut values = Vec::with_capacity(images.len() * channels * height * width);
    for image in images {
        values.extend(pixels(image)?);
    }
    Ok(Tensor::from_data(TensorData::new(values, [images.len(), channels, height, width]), device))
}
