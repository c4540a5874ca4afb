//! Errors of reading and writing how an image was made.

use crate::InvalidValue;
use crate::image::{ContentHash, ImageError};
use crate::printable_text::{printable, printable_value};

/// Error of reading, writing or using the metadata of an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The image file cannot be read or written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The file is no PNG.
    #[error(
        "image {place} begins with [{got}], which is no PNG: only PNG files keep metadata here, so name one",
        place = printable_value(.place)
    )]
    Format {
        /// The path, or `in memory`.
        place: String,
        /// Its first bytes, in hex.
        got: String,
    },
    /// The file name's extension names another format than PNG.
    #[error(
        "image `{place}` ends in `{got}`, expected `.png`, which keeps metadata: rename it, or use `Image::save`",
        place = printable_value(.place), got = printable(.got)
    )]
    Extension {
        /// The path.
        place: String,
        /// Its extension.
        got: String,
    },
    /// The file is damaged or truncated.
    #[error(
        "image {place} is a damaged PNG file: {what}; get it again from where it came",
        place = printable_value(.place), what = printable_value(.what)
    )]
    Corrupt {
        /// The path, or `in memory`.
        place: String,
        /// The damage.
        what: String,
    },
    /// A text chunk is damaged.
    #[error(
        "image {place}: text chunk `{keyword}` is damaged: {what}; get the file again from where it came",
        place = printable_value(.place), what = printable_value(.what)
    )]
    Chunk {
        /// The path, or `in memory`.
        place: String,
        /// Keyword of the chunk.
        keyword: &'static str,
        /// The damage.
        what: String,
    },
    /// A text chunk is longer than the limit, as it is or after decompression.
    #[error(
        "image {place}: text chunk `{keyword}` is too long, expected at most {expected} bytes: remove the chunk",
        place = printable_value(.place)
    )]
    TooLong {
        /// The path, or `in memory`.
        place: String,
        /// Keyword of the chunk.
        keyword: &'static str,
        /// The limit in bytes.
        expected: usize,
    },
    /// Several text chunks have one keyword and different texts.
    #[error(
        "image {place} has different texts in several chunks `{keyword}`, expected one: remove the wrong ones",
        place = printable_value(.place)
    )]
    Duplicate {
        /// The path, or `in memory`.
        place: String,
        /// Keyword of the chunks.
        keyword: &'static str,
    },
    /// The text of a chunk is not what its keyword stands for.
    #[error(
        "image {place}: text chunk `{keyword}` cannot be read: {}; use a file that nobody edited",
        printable_value(.source), place = printable_value(.place)
    )]
    Text {
        /// The path, or `in memory`.
        place: String,
        /// Keyword of the chunk.
        keyword: &'static str,
        /// The error of the parser.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The metadata was written by another program or another version of this one.
    #[error(
        "image {place} has metadata in {got}, expected {expected}: read it with the program that wrote it",
        place = printable_value(.place), got = printable_value(.got)
    )]
    Version {
        /// The path, or `in memory`.
        place: String,
        /// Its format and version.
        got: String,
        /// The format and version that this program reads.
        expected: String,
    },
    /// The image has the `workflow` of ComfyUI, but not its `prompt`.
    #[error(
        "image {place} has only ComfyUI's `workflow` (the layout of its editor), expected its `prompt` (what was run): \
         open the image in ComfyUI and save it again",
        place = printable_value(.place)
    )]
    OnlyWorkflow {
        /// The path, or `in memory`.
        place: String,
    },
    /// The image does not say how it was made.
    #[error(
        "image {place} has none of the text chunks `fabric`, `parameters` and `prompt`: name the original file",
        place = printable_value(.place)
    )]
    Absent {
        /// The path, or `in memory`.
        place: String,
    },
    /// A value of the metadata cannot be used.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// Images that the request needs were not given.
    #[error("{} images of the request are missing, expected each by its hash: {}", .missing.len(), listed(.missing))]
    MissingImages {
        /// Content hashes of the missing images, in the order of
        /// [`ImageMetadata::images`](super::ImageMetadata::images).
        missing: Vec<ContentHash>,
    },
    /// An image that was given for a content hash is another one.
    #[error("the image given for {expected} is {got}: look images up by `Image::content_hash`")]
    WrongImage {
        /// The content hash that was asked for.
        expected: ContentHash,
        /// The content hash of the given image.
        got: ContentHash,
    },
}

/// Number of hashes that a message lists.
const MOST_LISTED: usize = 16;

fn listed(hashes: &[ContentHash]) -> String {
    let names: Vec<String> = hashes.iter().take(MOST_LISTED).map(ContentHash::to_string).collect();
    let rest = hashes.len().saturating_sub(MOST_LISTED);
    if rest == 0 { names.join(", ") } else { format!("{} and {rest} more", names.join(", ")) }
}
