mod bad_input;
mod comfy;
mod parameters;
mod round_trip;

use super::chunks::{chunk, insert};
use super::{FoundMetadata, ImageMetadata, MetadataError};
use crate::image::Image;

/// Bytes of a PNG file of 6x4 pixels with text chunks as other programs write them.
fn file(texts: &[(&str, &str)]) -> Vec<u8> {
    insert(&Image::filled(6, 4, [1, 2, 3]).unwrap().to_png_bytes().unwrap(), texts)
}

/// Bytes of a PNG file with these chunks between its header and its pixels.
fn file_with(chunks: &[Vec<u8>]) -> Vec<u8> {
    let file = file(&[]);
    let (head, rest) = file.split_at(33);
    [head, &chunks.concat(), rest].concat()
}

/// A `tEXt` chunk with the given bytes as its text.
fn text_chunk(keyword: &str, text: &[u8]) -> Vec<u8> {
    chunk(b"tEXt", &[keyword.as_bytes(), b"\0", text].concat())
}

fn read(texts: &[(&str, &str)]) -> Result<FoundMetadata, MetadataError> {
    ImageMetadata::from_png_bytes(&file(texts))
}
