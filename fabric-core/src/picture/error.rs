//! What can be wrong with a picture.

use super::{MAX_PIXELS, MAX_SIDE};

/// Why a picture cannot be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The file cannot be opened or read.
    #[error("picture `{place}` cannot be read: {source}; check the path and its permissions")]
    Read {
        /// The path.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("picture `{place}` is {found}, wanted a file: name a PNG, JPEG or WebP file")]
    NotAFile {
        /// The path.
        place: String,
        /// What it is.
        found: &'static str,
    },
    /// The file is longer than any picture we would decode.
    #[error("picture `{place}` has {found} bytes, wanted at most {wanted}: save it smaller")]
    FileSize {
        /// The path.
        place: String,
        /// Its length.
        found: u64,
        /// The limit.
        wanted: u64,
    },
    /// Nothing we can decode.
    #[error("picture {place} begins with [{found}], which is no PNG, JPEG or WebP: convert it to one of these")]
    Format {
        /// The path, or `in memory`.
        place: String,
        /// Its first bytes, in hex.
        found: String,
    },
    /// The file says it is a picture, and is not, or not to the end.
    #[error("picture {place} is a damaged {format} file: {source}; get it again from where it came, or save it anew")]
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
        "{place} is {width}x{height}, wanted sides from 1 to {MAX_SIDE} and at most {MAX_PIXELS} pixels: choose another size"
    )]
    Size {
        /// Which picture, or which operation.
        place: String,
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The pixels do not fill the size.
    #[error("a {width}x{height} RGB picture has {wanted} bytes, found {found}: give three bytes per pixel")]
    Length {
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        wanted: usize,
    },
    /// A tensor of pictures holds NaN or infinity.
    #[error(
        "picture {index} of the batch has {found} non-finite values of {total}, wanted none: \
         the network overflowed, so run it (or its VAE) in f32 or bf16, or lower the guidance scale"
    )]
    NotFinite {
        /// Which picture.
        index: usize,
        /// How many values.
        found: usize,
        /// Of how many.
        total: usize,
    },
    /// A file name that does not say in which format to save.
    #[error("picture `{place}` ends in `{found}`, wanted `.png`, `.jpg` or `.jpeg`: rename it")]
    Extension {
        /// The path.
        place: String,
        /// Its extension.
        found: String,
    },
    /// The file cannot be written.
    #[error("picture `{place}` cannot be written: {source}; check that the folder exists and has room")]
    Write {
        /// The path.
        place: String,
        /// What the system or the encoder said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not the name of a picture's content.
    #[error("picture hash is `{found}`, wanted 64 lower-case hex digits: take it from `Picture::content_hash`")]
    Hash {
        /// What was given, its first 80 characters.
        found: String,
    },
}
