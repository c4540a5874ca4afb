//! Reading files that anybody may have written.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use fabric_backends::catch_panic;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{Image, ImageError, check_size};

/// Longest file we read: more than any photograph within [`super::MAX_PIXELS`] needs.
const MAX_FILE: u64 = 512 << 20;

/// Most memory a decoder may take for its own: 16-bit RGBA of the largest image, and as much again.
const MAX_ALLOC: u64 = 1 << 30;

impl Image {
    /// Reads a PNG, JPEG or WebP file; its content says which, its name does not matter.
    ///
    /// Everything becomes 8-bit RGB: 16 bits are rounded to 8, palettes and greys expanded. Alpha is
    /// dropped, as PIL's `convert("RGB")` does in the published code: what was transparent shows the colour
    /// stored beneath. The EXIF orientation is applied, so that a photograph stands as its viewer shows it
    /// (the published code leaves it lying). Of an animation, the first image counts.
    ///
    /// # Errors
    ///
    /// If there is no such file, or it is no image, damaged, cut short, or too large ([`super::MAX_PIXELS`]).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        Self::open_as(path.as_ref(), in_colour)
    }

    /// Reads a file, of which `read` takes what it is after.
    pub(super) fn open_as(path: &Path, read: fn(DynamicImage) -> Self) -> Result<Self, ImageError> {
        let place = path.display().to_string();
        let read_error = |source| ImageError::Read { place: place.clone(), source };
        // Opening a pipe would wait for its other end: look before.
        let kind = std::fs::metadata(path).map_err(read_error)?;
        if !kind.is_file() {
            let got = if kind.is_dir() { "a directory" } else { "a device or a pipe" };
            return Err(ImageError::NotAFile { place, got });
        }
        if kind.len() > MAX_FILE {
            return Err(ImageError::FileSize { place, got: kind.len(), expected: MAX_FILE });
        }
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).map_err(read_error)?;
        decode(&format!("`{place}`"), &bytes, read)
    }

    /// Decodes the bytes of a PNG, JPEG or WebP file, like [`Image::open`].
    ///
    /// # Errors
    ///
    /// If they are no image, damaged, cut short, or too large.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        decode("in memory", bytes, in_colour)
    }
}

/// Without what is transparent.
pub(super) fn in_colour(image: DynamicImage) -> Image {
    let rgb = image.into_rgb8();
    Image::new(rgb.width() as usize, rgb.height() as usize, rgb.into_raw())
}

/// Decodes a file's bytes, of which `read` takes what it is after.
pub(super) fn decode(place: &str, bytes: &[u8], read: fn(DynamicImage) -> Image) -> Result<Image, ImageError> {
    let (format, name) = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => (ImageFormat::Png, "PNG"),
        Ok(ImageFormat::Jpeg) => (ImageFormat::Jpeg, "JPEG"),
        Ok(ImageFormat::WebP) => (ImageFormat::WebP, "WebP"),
        _ => {
            let head: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            return Err(ImageError::Format { place: place.to_owned(), got: head.join(" ") });
        }
    };
    let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| ImageError::Corrupt {
        place: place.to_owned(),
        format: name,
        source,
    };
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err(corrupt("it stops before its end marker".into()));
    }
    // A decoder that panics (the one for PNG does, on palettes whose length is no multiple of 3) tells of the file.
    catch_panic(|| decode_as(format, place, bytes, &corrupt).map(read))
        .unwrap_or_else(|message| Err(corrupt(format!("its decoder panicked: {message}").into())))
}

fn decode_as(
    format: ImageFormat,
    place: &str,
    bytes: &[u8],
    corrupt: &dyn Fn(Box<dyn std::error::Error + Send + Sync>) -> ImageError,
) -> Result<DynamicImage, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOC);
    // The decoders' own limits on sides lie above ours, so that what is too large is called so by us.
    limits.max_image_width = Some(u32::MAX);
    limits.max_image_height = Some(u32::MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| corrupt(e.into()))?;
    let (width, height) = decoder.dimensions();
    check_size(format_args!("image {place}"), width as usize, height as usize)?;
    // A damaged orientation is no reason to lose the image.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| corrupt(e.into()))?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether a JPEG file's segments lead to its end marker. The decoder would fill what is missing with grey.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Entropy-coded data holds 0xff only before 0x00 or a restart marker; markers may be padded with 0xff.
        let Some(next) = bytes.get(at..).and_then(|rest| {
            rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff))
        }) else {
            return false;
        };
        at += next + 2;
        if bytes[at - 1] == 0xd9 {
            return true;
        }
        let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
        at += usize::from(u16::from_be_bytes([high, low]));
    }
}
