//! 8-bit RGB images, read from untrusted files and converted to and from tensors.
//!
//! | from | to | by |
//! |---|---|---|
//! | a file, bytes | [`Image`] | [`Image::open`], [`Image::from_bytes`] |
//! | a mask's file or bytes | [`Image`], light on dark | [`Image::open_mask`], [`Image::mask_from_bytes`] |
//! | [`Image`] | another size, as Pillow does it | [`Image::resize`], [`Image::fit`] |
//! | images | pixels for a CLIP image encoder | [`clip_pixels`], [`clip_batch`] |
//! | images | pixels for a VAE | [`vae_pixels`], [`vae_batch`] |
//! | images | pixels for a control network, masks for inpainting | [`control_batch`], [`mask_batch`] |
//! | pixels of a VAE | images | [`from_tensor`] |
//! | rows of images | one image | [`contact_sheet`], [`labelled_sheet`] |
//! | an image and how it was made | a PNG file | [`Image::save_with_metadata`] |
//! | a PNG file | how it was made, a request | [`ImageMetadata::read`] |

mod decode;
mod encode;
mod error;
mod fit;
mod hash;
mod jpeg_scans;
mod labelled_sheet;
mod mask;
mod metadata;
mod pixels;
mod resize;
mod sheet;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

pub(crate) use encode::{remove_leftovers, write_beside};
pub use error::ImageError;
pub use fit::{Crop, Fit};
pub use hash::ContentHash;
pub use labelled_sheet::labelled_sheet;
pub use metadata::{
    FoundMetadata, ImageConditionRecord, ImageMetadata, InitImageRecord, MetadataError, MetadataSource, ReferenceRecord,
};
pub(crate) use metadata::{MAX_PROMPT, without_folders};
pub(crate) use pixels::brightest;
pub use pixels::{
    CLIP_MEAN, CLIP_STD, clip_batch, clip_pixels, control_batch, from_tensor, grey_batch, mask_batch, mask_pixels,
    vae_batch, vae_pixels,
};
pub use resize::Filter;
pub use sheet::{Mark, contact_sheet};

/// Maximum number of pixels of an image: 8192 x 8192. A small file can claim far more (a decompression bomb).
pub const MAX_PIXELS: usize = 1 << 26;

/// Maximum side of an image, in pixels.
pub const MAX_SIDE: usize = 1 << 16;

/// An 8-bit RGB image. Cloning is cheap: the pixels are shared.
///
/// ```
/// use fabric_core::image::Image;
///
/// let red = Image::from_rgb(1, 1, vec![255, 0, 0])?;
/// assert_eq!((red.width(), red.height()), (1, 1));
/// assert_eq!(Image::from_bytes(&red.to_png_bytes()?)?, red);
/// # Ok::<(), fabric_core::image::ImageError>(())
/// ```
#[derive(Clone)]
pub struct Image(Arc<Inner>);

struct Inner {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
    hash: OnceLock<ContentHash>,
}

impl Image {
    /// Creates an image from its pixels, row by row from the top, three bytes each.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if a side is zero or too long, and [`ImageError::Length`] if `rgb` does not
    /// have `width * height * 3` bytes.
    pub fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self, ImageError> {
        check_size("pixels in memory", width, height)?;
        if rgb.len() != width * height * 3 {
            return Err(ImageError::Length { width, height, got: rgb.len(), expected: width * height * 3 });
        }
        Ok(Self::new(width, height, rgb))
    }

    /// Creates an image of one colour.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if a side is zero or too long.
    pub fn filled(width: usize, height: usize, colour: [u8; 3]) -> Result<Self, ImageError> {
        check_size("a filled image", width, height)?;
        Ok(Self::new(width, height, colour.repeat(width * height)))
    }

    /// Creates an image of a size that was checked before.
    fn new(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), width * height * 3, "bytes of a {width}x{height} image");
        Self(Arc::new(Inner { width, height, rgb, hash: OnceLock::new() }))
    }

    /// Returns the width in pixels.
    pub fn width(&self) -> usize {
        self.0.width
    }

    /// Returns the height in pixels.
    pub fn height(&self) -> usize {
        self.0.height
    }

    /// Returns all pixels, row by row from the top, three bytes each.
    pub fn rgb(&self) -> &[u8] {
        &self.0.rgb
    }

    /// Returns the colour at column `x` of row `y`.
    ///
    /// # Panics
    ///
    /// Panics if the position lies outside the image.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(
            x < self.width() && y < self.height(),
            "pixel {x},{y} of an image of {}x{}",
            self.width(),
            self.height()
        );
        let at = (y * self.width() + x) * 3;
        [self.rgb()[at], self.rgb()[at + 1], self.rgb()[at + 2]]
    }

    /// Returns the SHA-256 of size and pixels, which is equal for equal images, whatever file they came from. It
    /// is computed once.
    pub fn content_hash(&self) -> ContentHash {
        *self.0.hash.get_or_init(|| ContentHash::of(self.width(), self.height(), self.rgb()))
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.width() == other.width() && self.height() == other.height() && self.rgb() == other.rgb())
    }
}

impl Eq for Image {}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}x{})", self.width(), self.height())
    }
}

/// Returns an error if a size exceeds the limits or is zero.
fn check_size(place: impl fmt::Display, width: usize, height: usize) -> Result<(), ImageError> {
    let pixels = width.checked_mul(height);
    let good = width > 0 && height > 0 && width.max(height) <= MAX_SIDE && pixels.is_some_and(|n| n <= MAX_PIXELS);
    if good { Ok(()) } else { Err(ImageError::Size { place: place.to_string(), width, height }) }
}
