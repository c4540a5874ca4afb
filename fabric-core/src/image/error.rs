//! What can be wrong with an image.

use super::{MAX_PIXELS, MAX_SIDE};

/// Why an image cannot be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error("image `{place}` cannot be read: {source}; check the path and its permissions")]
    Read {
        /// The path.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("image `{place}` is {got}, expected a file: name a PNG, JPEG or WebP file")]
    NotAFile {
        /// The path.
        place: String,
        /// What it is.
        got: &'static str,
    },
    /// The file is longer than any image we would decode.
    #[error("image `{place}` has {got} bytes, expected at most {expected}: save it smaller")]
    FileSize {
        /// The path.
        place: String,
        /// Its length.
        got: u64,
        /// The limit.
        expected: u64,
    },
    /// Nothing we can decode.
    #[error("image {place} begins with [{got}], which is no PNG, JPEG or WebP: convert it to one of these")]
    Format {
        /// The path, or `in memory`.
        place: String,
        /// Its first bytes, in hex.
        got: String,
    },
    /// The file says it is an image, and is not, or not to the end.
    #[error("image {place} is a damaged {format} file: {source}; get it again from where it came, or save it anew")]
    Corrupt {
        /// The path, or `in memory`.
        place: String,
        /// What it claims to be.
        format: &'static str,
        /// What the decoder said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A side is zero or too long, or there are too many pixels.
    #[error(
        "{place} is {width}x{height}, expected sides from 1 to {MAX_SIDE} and at most {MAX_PIXELS} pixels: choose another size"
    )]
    Size {
        /// Which image, or which operation.
        place: String,
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The pixels do not fill the size.
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
    /// A tensor of images holds NaN or infinity.
    #[error(
        "image {index} of the batch has {got} non-finite values of {total}, expected none: \
         the network overflowed, so run it (or its VAE) in f32 or bf16, or lower the guidance scale"
    )]
    NotFinite {
        /// Which image.
        index: usize,
        /// How many values.
        got: usize,
        /// Of how many.
        total: usize,
    },
    /// A file name that does not say in which format to save.
    #[error("image `{place}` ends in `{got}`, expected `.png`, `.jpg` or `.jpeg`: rename it")]
    Extension {
        /// The path.
        place: String,
        /// Its extension.
        got: String,
    },
    /// The file cannot be written.
    #[error("image `{place}` cannot be written: {source}; check that the folder exists and has room")]
    Write {
        /// The path.
        place: String,
        /// What the system or the encoder said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not the name of an image's content.
    #[error("image hash is `{got}`, expected 64 lower-case hex digits: take it from `Image::content_hash`")]
    Hash {
        /// What was given, its first 80 characters.
        got: String,
    },
}
