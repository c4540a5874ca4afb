//! Decoding of untrusted image files.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use fabric_backends::catch_panic;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, ImageResult, Limits};

use super::jpeg_scans::check_scans;
use super::{Image, ImageError, check_size};

/// Maximum file length in bytes: more than any photograph within [`super::MAX_PIXELS`] needs.
const MAX_FILE: u64 = 512 << 20;

/// Maximum memory for colour profiles and texts of a PNG file, which are not used. A file of a megabyte may hold a
/// gigabyte of them. Pixels do not count, and other decoders have no such limit: what they keep besides pixels is not
/// longer than the file.
const MAX_PNG_METADATA: u64 = 16 << 20;

/// Largest number of bytes that one byte of deflated data can become.
const MAX_INFLATION: usize = 1032;

/// Number of bytes that are read before it is known that a file is an image; the signatures of formats have up to 12.
const HEAD: u64 = 64;

impl Image {
    /// Reads a PNG, JPEG or WebP file. The format is detected from the content, not from the file name.
    ///
    /// All images are converted to 8-bit RGB: 16 bits are rounded to 8, palettes and greys are expanded. Alpha is
    /// dropped, as PIL's `convert("RGB")` does in the published code: transparent pixels show the colour stored
    /// in them. The EXIF orientation is applied, as in image viewers (the published code ignores it). Of an
    /// animation, the first frame is read.
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not exist, or if it is not an image, damaged, truncated, or too large
    /// ([`super::MAX_PIXELS`]).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        Self::open_as(path.as_ref(), in_colour)
    }

    /// Reads a file and converts the decoded image with `read`.
    pub(super) fn open_as(path: &Path, read: fn(DynamicImage) -> Self) -> Result<Self, ImageError> {
        let place = path.display().to_string();
        let read_error = |source| ImageError::Read { place: place.clone(), source };
        // Check the kind of file first: opening a pipe would block until its other end is opened.
        let kind = std::fs::metadata(path).map_err(read_error)?;
        if !kind.is_file() {
            let got = if kind.is_dir() { "a directory" } else { "a device or a pipe" };
            return Err(ImageError::NotAFile { place, got });
        }
        if kind.len() > MAX_FILE {
            return Err(ImageError::FileSize { place, got: kind.len(), expected: MAX_FILE });
        }
        let bytes = read_bytes(&place, File::open(path).map_err(read_error)?)?;
        decode(&format!("`{place}`"), &bytes, read)
    }

    /// Decodes the bytes of a PNG, JPEG or WebP file, like [`Image::open`].
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not an image, damaged, truncated, or too large.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        decode("in memory", bytes, in_colour)
    }
}

/// Converts to RGB and drops the alpha channel.
pub(super) fn in_colour(image: DynamicImage) -> Image {
    let rgb = image.into_rgb8();
    Image::new(rgb.width() as usize, rgb.height() as usize, rgb.into_raw())
}

/// Reads an image file. Of a file in no supported format, only the beginning is read.
pub(super) fn read_bytes(path: &str, mut file: impl Read) -> Result<Vec<u8>, ImageError> {
    let read_error = |source| ImageError::Read { place: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut bytes).map_err(read_error)?;
    format_of(&format!("`{path}`"), &bytes)?;
    file.take(MAX_FILE - HEAD).read_to_end(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

/// Returns the format that a file's first bytes announce, and its name.
fn format_of(place: &str, bytes: &[u8]) -> Result<(ImageFormat, &'static str), ImageError> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => Ok((ImageFormat::Png, "PNG")),
        Ok(ImageFormat::Jpeg) => Ok((ImageFormat::Jpeg, "JPEG")),
        Ok(ImageFormat::WebP) => Ok((ImageFormat::WebP, "WebP")),
        _ => {
            let head: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Err(ImageError::Format { place: place.to_owned(), got: head.join(" ") })
        }
    }
}

/// Decodes a file's bytes and converts the decoded image with `read`.
pub(super) fn decode(place: &str, bytes: &[u8], read: fn(DynamicImage) -> Image) -> Result<Image, ImageError> {
    let (format, name) = format_of(place, bytes)?;
    let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| ImageError::Corrupt {
        place: place.to_owned(),
        format: name,
        source,
    };
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err(corrupt("it stops before its end marker".into()));
    }
    // A panic of a decoder means a damaged file. The PNG decoder panics on palettes whose length is not a
    // multiple of 3.
    catch_panic(|| decode_as(format, place, bytes, &corrupt).map(read))
        .unwrap_or_else(|message| Err(corrupt(format!("its decoder panicked: {message}").into())))
}

fn decode_as(
    format: ImageFormat,
    place: &str,
    bytes: &[u8],
    corrupt: &dyn Fn(Box<dyn std::error::Error + Send + Sync>) -> ImageError,
) -> Result<DynamicImage, ImageError> {
    if format == ImageFormat::Png
        && let Some((width, height)) = png_size(bytes)
    {
        // Checked before the decoder reads the colour profile and the texts in front of the pixels.
        check_size(format_args!("image {place}"), width, height)?;
        // The decoder makes room for all pixels before it reads the first one.
        if width * height * png_bits(bytes) / 8 > bytes.len().saturating_mul(MAX_INFLATION) {
            return Err(corrupt("it is too short for its pixels".into()));
        }
    }
    let mut decoder = decoder(format, bytes).map_err(|e| corrupt(e.into()))?;
    let (width, height) = decoder.dimensions();
    check_size(format_args!("image {place}"), width as usize, height as usize)?;
    if format == ImageFormat::Jpeg {
        check_scans(bytes).map_err(|what| corrupt(what.into()))?;
    }
    // A damaged orientation tag is ignored.
    let orientation = if format == ImageFormat::WebP && webp_exif_is_cut(bytes) {
        Orientation::NoTransforms
    } else {
        decoder.orientation().unwrap_or(Orientation::NoTransforms)
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| corrupt(e.into()))?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Returns the decoder of a file's bytes, which has read everything in front of the pixels.
pub(super) fn decoder(format: ImageFormat, bytes: &[u8]) -> ImageResult<impl ImageDecoder> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Only the PNG decoder heeds this. It leaves out a colour profile that would exceed it.
    limits.max_alloc = Some(MAX_PNG_METADATA);
    // The decoders' own limits on sides are above ours, so that our error reports images that are too large.
    limits.max_image_width = Some(u32::MAX);
    limits.max_image_height = Some(u32::MAX);
    reader.limits(limits);
    reader.into_decoder()
}

/// Returns width and height from the header of a PNG file, which is at a fixed position.
fn png_size(bytes: &[u8]) -> Option<(usize, usize)> {
    if bytes.get(12..16)? != b"IHDR" {
        return None;
    }
    let [width, height] = bytes.get(16..24)?.as_chunks::<4>().0 else { return None };
    Some((u32::from_be_bytes(*width) as usize, u32::from_be_bytes(*height) as usize))
}

/// Returns the number of bits of a pixel from the header of a PNG file; 1 if the header is invalid.
fn png_bits(bytes: &[u8]) -> usize {
    let Some(&[depth, kind]) = bytes.get(24..26) else { return 1 };
    let channels = match kind {
        2 => 3,
        4 => 2,
        6 => 4,
        _ => 1,
    };
    usize::from(depth.clamp(1, 16)) * channels
}

/// Returns whether an EXIF chunk of a WebP file is longer than the rest of the file. The decoder makes room for the
/// whole chunk before it reads it.
fn webp_exif_is_cut(bytes: &[u8]) -> bool {
    // The decoder also takes the first two chunks within the first frame of an animation, behind 16 bytes of settings.
    let frame = webp_chunks(bytes, 12).find(|(name, _, _)| name == b"ANMF");
    let in_frame = frame.into_iter().flat_map(|(_, start, _)| webp_chunks(bytes, start + 16).take(2));
    webp_chunks(bytes, 12).chain(in_frame).any(|(name, start, size)| name == *b"EXIF" && size > bytes.len() - start)
}

/// Returns name, position of the data, and size of the data of each chunk of a WebP file from a position on. The last
/// may be longer than the file.
fn webp_chunks(bytes: &[u8], mut at: usize) -> impl Iterator<Item = ([u8; 4], usize, usize)> {
    std::iter::from_fn(move || {
        let [name, size] = bytes.get(at..)?.get(..8)?.as_chunks::<4>().0 else { return None };
        let (start, size) = (at + 8, u32::from_le_bytes(*size) as usize);
        at = start.saturating_add(size).saturating_add(size % 2);
        Some((*name, start, size))
    })
}

/// Returns whether a JPEG file's segments lead to its end marker. For truncated files, the decoder would fill the
/// missing part with grey.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Entropy-coded data contains 0xff only before 0x00 or a restart marker; markers may be padded with 0xff.
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
