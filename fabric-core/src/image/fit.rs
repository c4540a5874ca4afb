//! Resizing and cropping of images to the size that a network takes.

use serde::{Deserialize, Serialize};

use super::resize::Axis;
use super::{Filter, Image, ImageError, check_size};

/// How an image is fitted to a given width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fit {
    /// Resizes without keeping the aspect ratio, with a bicubic filter, as in FABRIC's published code.
    #[default]
    Squash,
    /// Resizes without keeping the aspect ratio, with a Lanczos filter, as in diffusers' `VaeImageProcessor`.
    SquashLanczos,
    /// Scales to cover the whole size with a Lanczos filter and crops evenly, as the web UI's "crop and resize".
    Cover,
    /// Scales to fit within the size with a Lanczos filter and pads with black.
    Contain,
}

/// Square region of an image that a CLIP image encoder receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Crop {
    /// The centre, as in transformers' `CLIPImageProcessor`.
    #[default]
    Centre,
    /// The whole image, resized without keeping the aspect ratio: IP-Adapter's authors recommend it when the
    /// borders matter.
    Stretch,
    /// The whole image, padded with black.
    Pad,
    /// The top of a tall image; the centre of a wide one.
    Top,
    /// The bottom of a tall image; the centre of a wide one.
    Bottom,
    /// The left of a wide image; the centre of a tall one.
    Left,
    /// The right of a wide image; the centre of a tall one.
    Right,
}

impl Image {
    /// Returns the image fitted to exactly this size.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if a side is zero or too long.
    pub fn fit(&self, width: usize, height: usize, fit: Fit) -> Result<Self, ImageError> {
        check_size("the fitted image", width, height)?;
        match fit {
            Fit::Squash => self.resize(width, height, Filter::Bicubic),
            Fit::SquashLanczos => self.resize(width, height, Filter::Lanczos),
            Fit::Cover => {
                // Integer division, as in the web UI.
                let wide = width * self.height() > self.width() * height;
                let full_width = if wide { width } else { self.width() * height / self.height() };
                let full_height = if wide { self.height() * width / self.width() } else { height };
                let x = Axis { full: full_width, start: (full_width / 2).saturating_sub(width / 2), len: width };
                let y = Axis { full: full_height, start: (full_height / 2).saturating_sub(height / 2), len: height };
                Ok(self.resample(x, y, Filter::Lanczos))
            }
            Fit::Contain => Ok(self.contain(width, height, Filter::Lanczos)),
        }
    }

    /// Returns a square for a CLIP image encoder, resized with Pillow's bicubic filter.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if `size` is zero or too large.
    pub fn crop_square(&self, size: usize, crop: Crop) -> Result<Self, ImageError> {
        check_size("the cropped image", size, size)?;
        let (width, height) = (self.width(), self.height());
        let short = width.min(height);
        // The shorter side becomes `size`; the other one is rounded down.
        let full = |side: usize| size * side / short;
        let axis = |side: usize, share: fn(usize) -> usize| {
            let full = full(side);
            Axis { full, start: share(full - size), len: size }
        };
        /// How much of the excess length lies before the square.
        type Share = fn(usize) -> usize;
        let (none, half, all): (Share, Share, Share) = (|_| 0, |rest| rest / 2, |rest| rest);
        let (x, y) = match crop {
            Crop::Stretch => return self.resize(size, size, Filter::Bicubic),
            Crop::Pad => return Ok(self.contain(size, size, Filter::Bicubic)),
            Crop::Centre => (half, half),
            Crop::Top => (half, none),
            Crop::Bottom => (half, all),
            Crop::Left => (none, half),
            Crop::Right => (all, half),
        };
        Ok(self.resample(axis(width, x), axis(height, y), Filter::Bicubic))
    }

    /// Returns the region of `width` by `height` pixels at `left` and `top`.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if the region is empty or reaches beyond the image.
    pub fn cropped(&self, left: usize, top: usize, width: usize, height: usize) -> Result<Self, ImageError> {
        let within = |start: usize, len: usize, side: usize| start.checked_add(len).is_some_and(|end| end <= side);
        if !within(left, width, self.width()) || !within(top, height, self.height()) {
            return Err(ImageError::Size { place: "a part beyond the image".to_owned(), width, height });
        }
        check_size("a part of an image", width, height)?;
        let rows = self.rgb().chunks_exact(self.width() * 3).skip(top).take(height);
        Ok(Self::new(width, height, rows.flat_map(|row| &row[left * 3..(left + width) * 3]).copied().collect()))
    }

    /// Returns the image's size, with each side rounded down to a multiple of `factor` but at least `factor`:
    /// diffusers' default size.
    ///
    /// # Panics
    ///
    /// Panics if `factor` is 0.
    pub fn size_in_multiples_of(&self, factor: usize) -> (usize, usize) {
        let down = |side: usize| (side - side % factor).max(factor);
        (down(self.width()), down(self.height()))
    }

    /// Scales the image to fit within the size and centres it on black.
    fn contain(&self, width: usize, height: usize, filter: Filter) -> Self {
        let wide = self.width() * height >= self.height() * width;
        let nearest = |side: usize, of: usize, to: usize| ((2 * side * to + of) / (2 * of)).clamp(1, to.max(1));
        let inner_width = if wide { width } else { nearest(self.width(), self.height(), height).min(width) };
        let inner_height = if wide { nearest(self.height(), self.width(), width).min(height) } else { height };
        let inner = self.resample(Axis::whole(inner_width), Axis::whole(inner_height), filter);
        let mut rgb = vec![0; width * height * 3];
        paste(&mut rgb, width, &inner, (width - inner_width) / 2, (height - inner_height) / 2);
        Self::new(width, height, rgb)
    }
}

/// Copies an image into the pixels of a larger one that is `width` wide.
pub(super) fn paste(rgb: &mut [u8], width: usize, image: &Image, left: usize, top: usize) {
    for (y, row) in image.rgb().chunks_exact(image.width() * 3).enumerate() {
        let at = ((top + y) * width + left) * 3;
        rgb[at..at + row.len()].copy_from_slice(row);
    }
}
