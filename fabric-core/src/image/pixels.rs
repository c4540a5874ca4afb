//! Between images and the numbers that networks take and give.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Crop, Fit, Image, ImageError};

/// Mean of red, green and blue over the images that CLIP was trained on.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];

/// Their standard deviation.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// An image as a CLIP image encoder takes it: a square of side `size`, normalised, `[3, size, size]`.
///
/// With [`Crop::Centre`] equal to transformers' `CLIPImageProcessor` (the one that uses Pillow).
///
/// # Errors
///
/// [`ImageError::Size`] if `size` is zero or too large.
pub fn clip_pixels(image: &Image, size: usize, crop: Crop) -> Result<Vec<f32>, ImageError> {
    let square = image.crop_square(size, crop)?;
    Ok(planes(&square, |value, channel| {
        // Scaled in f64, normalised in f32: as numpy does.
        let scaled = (f64::from(value) * (1.0 / 255.0)) as f32;
        (scaled - CLIP_MEAN[channel]) / CLIP_STD[channel]
    }))
}

/// Several images as one batch for a CLIP image encoder, `[images, 3, size, size]`; see [`clip_pixels`].
///
/// # Errors
///
/// [`ImageError::Size`] if `size` is zero or too large.
pub fn clip_batch(images: &[Image], size: usize, crop: Crop, device: &Device) -> Result<Tensor<4>, ImageError> {
    batch(images, [3, size, size], device, |image| clip_pixels(image, size, crop))
}

/// An image as a VAE takes it: in the size of the run, from -1 to 1, `[3, height, width]`.
///
/// # Errors
///
/// [`ImageError::Size`] if a side is zero or too long.
pub fn vae_pixels(image: &Image, width: usize, height: usize, fit: Fit) -> Result<Vec<f32>, ImageError> {
    Ok(planes(&image.fit(width, height, fit)?, |value, _| f32::from(value) / 127.5 - 1.0))
}

/// Several images as one batch for a VAE, `[images, 3, height, width]`; see [`vae_pixels`].
///
/// # Errors
///
/// [`ImageError::Size`] if a side is zero or too long.
pub fn vae_batch(
    images: &[Image],
    width: usize,
    height: usize,
    fit: Fit,
    device: &Device,
) -> Result<Tensor<4>, ImageError> {
    batch(images, [3, height, width], device, |image| vae_pixels(image, width, height, fit))
}

/// Several images as one batch for a control network, from 0 to 1, `[images, 3, height, width]`.
///
/// # Errors
///
/// [`ImageError::Size`] if a side is zero or too long.
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

/// The same in grey, as Pillow converts, `[images, 1, height, width]`.
///
/// # Errors
///
/// [`ImageError::Size`] if a side is zero or too long.
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

/// Which pixels of a run's size a mask names, `[1, 1, height, width]`: 1 where it is light, 0 where it is dark, with
/// nothing in between, as diffusers' inpainting reads masks.
///
/// # Errors
///
/// [`ImageError::Size`] if a side is zero or too long.
pub fn mask_batch(mask: &Image, width: usize, height: usize, device: &Device) -> Result<Tensor<4>, ImageError> {
    let values = mask_pixels(mask, width, height)?;
    Ok(Tensor::from_data(TensorData::new(values, [1, 1, height, width]), device))
}

/// The values of [`mask_batch`], row by row.
///
/// # Errors
///
/// [`ImageError::Size`] if a side is zero or too long.
pub fn mask_pixels(mask: &Image, width: usize, height: usize) -> Result<Vec<f32>, ImageError> {
    let mask = mask.fit(width, height, Fit::SquashLanczos)?;
    Ok(greys(&mask).map(|grey| f32::from(u8::from(grey >= 128))).collect())
}

/// The brightness of an image's lightest pixel.
pub(crate) fn brightest(image: &Image) -> u8 {
    greys(image).max().unwrap_or_default()
}

/// The brightness of all pixels.
fn greys(image: &Image) -> impl Iterator<Item = u8> {
    image.rgb().chunks_exact(3).map(|rgb| luma([rgb[0], rgb[1], rgb[2]]))
}

/// Brightness of a pixel, as Pillow converts to grey.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// What a VAE decoded, `[images, 3, height, width]`, as images: -1 is black, 1 is full, what lies beyond is cut off.
///
/// Rounded to the nearest byte, halves to even, as numpy rounds in the published code.
///
/// # Errors
///
/// [`ImageError::NotFinite`] if a value is NaN or infinite (which the published code turns black),
/// [`ImageError::Size`] for an empty image.
///
/// # Panics
///
/// If there are not three channels.
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

/// Channels apart (`[3, height, width]`), each value through `map(value, channel)`.
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
