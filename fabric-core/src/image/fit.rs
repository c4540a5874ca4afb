//! Bringing an image of any shape to the shape that a network wants.

use serde::{Deserialize, Serialize};

use super::resize::Axis;
use super::{Filter, Image, ImageError, check_size};

/// How an image comes to a given width and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fit {
    /// Squashed, whatever its proportions, with a bicubic filter: FABRIC's authors' code.
    #[default]
    Squash,
    /// Squashed with a Lanczos filter: diffusers' `VaeImageProcessor`.
    SquashLanczos,
    /// Scaled to cover the whole size, the rest cut off evenly, with a Lanczos filter: the web UI's "crop and resize".
    Cover,
    /// Scaled to lie within the size with a Lanczos filter, black where nothing is left.
    Contain,
}

/// Which square of an image a CLIP image encoder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Crop {
    /// The middle: transformers' `CLIPImageProcessor`.
    #[default]
    Centre,
    /// All of it, squashed: what IP-Adapter's authors advise when the borders matter.
    Stretch,
    /// All of it, with black bars.
    Pad,
    /// The top of a tall image; the middle of a wide one.
    Top,
    /// The bottom of a tall image; the middle of a wide one.
    Bottom,
    /// The left of a wide image; the middle of a tall one.
    Left,
    /// The right of a wide image; the middle of a tall one.
    Right,
}

impl Image {
    /// The image in exactly this size.
    ///
    /// # Errors
    ///
    /// [`ImageError::Size`] if a side is zero or too long.
    pub fn fit(&self, width: usize, height: usize, fit: Fit) -> Result<Self, ImageError> {
        check_size("the fitted image", width, height)?;
        match fit {
            Fit::Squash => self.resize(width, height, Filter::Bicubic),
            Fit::SquashLanczos => self.resize(width, height, Filter::Lanczos),
            Fit::Cover => {
                // Whole numbers, rounded down, decide: as in the web UI.
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

    /// A square for a CLIP image encoder, with Pillow's bicubic filter.
    ///
    /// # Errors
    ///
    /// [`ImageError::Size`] if `size` is zero or too large.
    pub fn crop_square(&self, size: usize, crop: Crop) -> Result<Self, ImageError> {
        check_size("the cropped image", size, size)?;
        let (width, height) = (self.width(), self.height());
        let short = width.min(height);
        // The shortest side becomes `size`; the other one is rounded down.
        let full = |side: usize| size * side / short;
        let axis = |side: usize, share: fn(usize) -> usize| {
            let full = full(side);
            Axis { full, start: share(full - size), len: size }
        };
        /// How much of what is cut off lies before the square.
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

    /// A part of it, `width` by `height` pixels from `left` and `top`.
    ///
    /// # Errors
    ///
    /// [`ImageError::Size`] if the part is empty or reaches beyond the image.
    pub fn cropped(&self, left: usize, top: usize, width: usize, height: usize) -> Result<Self, ImageError> {
        let within = |start: usize, len: usize, side: usize| start.checked_add(len).is_some_and(|end| end <= side);
        if !within(left, width, self.width()) || !within(top, height, self.height()) {
            return Err(ImageError::Size { place: "a part beyond the image".to_owned(), width, height });
        }
        check_size("a part of an image", width, height)?;
        let rows = self.rgb().chunks_exact(self.width() * 3).skip(top).take(height);
        Ok(Self::new(width, height, rows.flat_map(|row| &row[left * 3..(left + width) * 3]).copied().collect()))
    }

    /// Its size, each side rounded down to a multiple of `factor` but never below it: diffusers' default size.
    ///
    /// # Panics
    ///
    /// If `factor` is 0.
    pub fn size_in_multiples_of(&self, factor: usize) -> (usize, usize) {
        let down = |side: usize| (side - side % factor).max(factor);
        (down(self.width()), down(self.height()))
    }

    /// Scaled to lie within the size, in the middle of black.
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
