//! Reading of mask files: light on dark, or in the alpha channel alone.

use std::path::Path;

use image::DynamicImage;

use super::{Image, ImageError, decode};

impl Image {
    /// Reads a mask from a PNG, JPEG or WebP file. If all pixels have the same colour but their alpha differs,
    /// the alpha channel is the mask: light where the file is opaque.
    ///
    /// Otherwise the colours are the mask and alpha is dropped, as in the published code and in [`Image::open`].
    ///
    /// # Errors
    ///
    /// Returns an error like [`Image::open`].
    pub fn open_mask(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        Self::open_as(path.as_ref(), mask)
    }

    /// Decodes the bytes of a mask's file, like [`Image::open_mask`].
    ///
    /// # Errors
    ///
    /// Returns an error like [`Image::from_bytes`].
    pub fn mask_from_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        decode::decode("in memory", bytes, mask)
    }
}

/// Returns the alpha channel if only it varies, otherwise the colours.
fn mask(image: DynamicImage) -> Image {
    if !image.color().has_alpha() {
        return decode::in_colour(image);
    }
    let rgba = image.into_rgba8();
    let first = rgba.get_pixel(0, 0).0;
    let one_colour = rgba.pixels().all(|pixel| pixel.0[..3] == first[..3]);
    let one_alpha = rgba.pixels().all(|pixel| pixel.0[3] == first[3]);
    let shown =
        |[red, green, blue, alpha]: [u8; 4]| if one_colour && !one_alpha { [alpha; 3] } else { [red, green, blue] };
    let rgb = rgba.pixels().flat_map(|pixel| shown(pixel.0)).collect();
    Image::new(rgba.width() as usize, rgba.height() as usize, rgb)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{GrayAlphaImage, GrayImage, ImageFormat, LumaA, Rgba, RgbaImage};

    use super::*;

    fn read(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.into().write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("a PNG file");
        let mask = Image::mask_from_bytes(&bytes).expect("a mask");
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("mask.png");
        std::fs::write(&path, &bytes).expect("a file");
        assert_eq!(Image::open_mask(&path).expect("a mask"), mask);
        assert!(mask.rgb().chunks_exact(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]), "grey");
        mask.rgb().iter().step_by(3).copied().collect()
    }

    /// Two pixels of these colours and alphas.
    fn rgba(pixels: [[u8; 4]; 2]) -> RgbaImage {
        RgbaImage::from_fn(2, 1, |x, _| Rgba(pixels[x as usize]))
    }

    #[test]
    fn an_alpha_channel_alone_is_the_mask() {
        for colour in [0, 255] {
            let of = |alpha| [colour, colour, colour, alpha];
            assert_eq!(read(rgba([of(255), of(0)])), [255, 0]);
            assert_eq!(read(rgba([of(10), of(200)])), [10, 200]);
            assert_eq!(read(GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([colour, 255 * x as u8]))), [0, 255]);
        }
    }

    #[test]
    fn colours_are_the_mask_where_they_tell_pixels_apart() {
        assert_eq!(read(rgba([[0, 0, 0, 255], [255, 255, 255, 0]])), [0, 255]);
        // Neither colour nor alpha differs.
        assert_eq!(read(rgba([[255, 255, 255, 100]; 2])), [255, 255]);
        assert_eq!(read(GrayImage::from_fn(2, 1, |x, _| [255 * x as u8].into())), [0, 255]);
    }
}
