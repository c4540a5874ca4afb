//! Errors of reading, creating and writing images.

use super::{MAX_PIXELS, MAX_SIDE};
use crate::printable_text::{printable, printable_value};

/// Error of reading, creating or writing an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error(
        "image `{place}` cannot be read: {source}; check the path and its permissions",
        place = printable_value(.place), source = printable_value(.source)
    )]
    Read {
        /// The path.
        place: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The path is a directory, a device or a pipe.
    #[error(
        "image `{place}` is {got}, expected a file: name a PNG, JPEG or WebP file",
        place = printable_value(.place)
    )]
    NotAFile {
        /// The path.
        place: String,
        /// The kind of file that was found.
        got: &'static str,
    },
    /// The file is longer than the limit.
    #[error(
        "image `{place}` has {got} bytes, expected at most {expected}: save it smaller",
        place = printable_value(.place)
    )]
    FileSize {
        /// The path.
        place: String,
        /// Its length in bytes.
        got: u64,
        /// The limit in bytes.
        expected: u64,
    },
    /// The bytes are in no supported image format.
    #[error(
        "image {place} begins with [{got}], which is no PNG, JPEG or WebP: convert it to one of these",
        place = printable_value(.place)
    )]
    Format {
        /// The path, or `in memory`.
        place: String,
        /// Its first bytes, in hex.
        got: String,
    },
    /// The file has an image header, but is damaged or truncated.
    #[error(
        "image {place} is a damaged {format} file: {source}; get it again from where it came, or save it anew",
        place = printable_value(.place), source = printable_value(.source)
    )]
    Corrupt {
        /// The path, or `in memory`.
        place: String,
        /// The format of its header.
        format: &'static str,
        /// The error of the decoder.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A side is zero or too long, or there are too many pixels.
    #[error(
        "{place} is {width}x{height}, expected sides from 1 to {MAX_SIDE} and at most {MAX_PIXELS} pixels: choose another size",
        place = printable_value(.place)
    )]
    Size {
        /// The image or the operation.
        place: String,
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The number of bytes does not match the size.
    #[error("a {width}x{height} RGB image has {expected} bytes, got {got}: give three bytes per pixel")]
    Length {
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
        /// Bytes given.
        got: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// A tensor of images contains NaN or infinity.
    #[error(
        "image {index} has {got} non-finite values of {total}, expected none: \
         the network overflowed, so run it (or its VAE) in f32 or bf16, or lower the guidance scale"
    )]
    NotFinite {
        /// Index of the image in the tensor, or in the request if a run made it.
        index: usize,
        /// Number of non-finite values.
        got: usize,
        /// Number of all values.
        total: usize,
    },
    /// The file name's extension names no format for saving.
    #[error(
        "image `{place}` ends in `{got}`, expected `.png`, `.jpg` or `.jpeg`: rename it",
        place = printable_value(.place), got = printable(.got)
    )]
    Extension {
        /// The path.
        place: String,
        /// Its extension.
        got: String,
    },
    /// The file cannot be written.
    #[error(
        "image `{place}` cannot be written: {source}; check that the folder exists and has room",
        place = printable_value(.place), source = printable_value(.source)
    )]
    Write {
        /// The path.
        place: String,
        /// The error of the operating system or the encoder.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The text is not a content hash.
    #[error(
        "image hash is `{}`, expected 64 lower-case hex digits: take it from `Image::content_hash`",
        printable_value(.got)
    )]
    Hash {
        /// The first 80 characters of the text.
        got: String,
    },
}

impl ImageError {
    /// Names the image as number `index` of a run, of which a tensor held a part.
    pub(crate) fn of_image(self, index: usize) -> Self {
        match self {
            Self::NotFinite { got, total, .. } => Self::NotFinite { index, got, total },
            other => other,
        }
    }
}
