//! Text chunks of PNG files.
//!
//! The chunks are read here and not by the `png` crate, because its decoder drops damaged text chunks without a word
//! and reaches those behind the pixels only after decoding all pixels. Pixels are skipped, so a file of any length
//! takes little memory.

use std::io::{self, Read, Seek};

use fabric_backends::catch_panic;
use fdeflate::BoundedDecompressionError;

use super::MetadataError;
use crate::image::ImageError;

/// Keyword of our own metadata.
pub(super) const FABRIC: &str = "fabric";
/// Keyword of AUTOMATIC1111's web UI.
pub(super) const PARAMETERS: &str = "parameters";
/// Keyword of the graph that ComfyUI ran.
pub(super) const PROMPT: &str = "prompt";
/// Keyword of the graph as ComfyUI's editor shows it.
const WORKFLOW: &str = "workflow";

/// Largest length of a text in bytes, as stored and after decompression. Graphs of ComfyUI have some hundred kilobytes.
pub(super) const MAX_TEXT: usize = 2 << 20;

/// Largest number of texts that are read from a file; each keyword should be there once.
const MAX_TEXTS: usize = 16;

/// Largest number of chunks that are looked at. Encoders that split pixels into small chunks write 8 KiB to each.
const MAX_CHUNKS: usize = 1 << 20;

/// Largest length of a keyword in bytes.
const MAX_KEYWORD: usize = 79;

/// Room for what a text chunk has besides its text: keyword, flags, language, translated keyword.
const MAX_OVERHEAD: usize = 1024;

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];

/// Position after the signature and the header chunk.
const HEADER_END: usize = 33;

/// Texts of a PNG file about how it was made.
#[derive(Debug)]
pub(super) struct Texts {
    /// Width in pixels, from the header.
    pub(super) width: usize,
    /// Height in pixels, from the header.
    pub(super) height: usize,
    texts: Vec<(&'static str, String)>,
    /// Number of chunks that are in `texts` or in `problems`.
    count: usize,
    pub(super) has_workflow: bool,
    /// Damages that were found on the way.
    pub(super) problems: Vec<MetadataError>,
}

impl Texts {
    /// Returns the text of a keyword, if there is one.
    ///
    /// # Errors
    ///
    /// Returns an error if there are several that differ.
    pub(super) fn of(&self, place: &str, keyword: &'static str) -> Result<Option<&str>, MetadataError> {
        let mut all = self.texts.iter().filter(|(name, _)| *name == keyword).map(|(_, text)| text.as_str());
        let first = all.next();
        match first {
            Some(text) if all.any(|other| other != text) => {
                Err(MetadataError::Duplicate { place: place.to_owned(), keyword })
            }
            _ => Ok(first),
        }
    }

    /// Reads chunks up to the end of the file. An error ends the reading.
    fn read_chunks(&mut self, place: &str, file: &mut (impl Read + Seek)) -> Result<(), MetadataError> {
        for _ in 0..MAX_CHUNKS {
            let (kind, length) = read_chunk_head(place, file)?;
            match &kind {
                // Its checksum is the end of the file.
                b"IEND" => return fill(place, file, &mut [0; 4]),
                b"tEXt" | b"zTXt" | b"iTXt" => self.read_text(place, file, kind, length)?,
                _ => skip(place, file, length + 4)?,
            }
        }
        Err(corrupt(place, format!("it has more than {MAX_CHUNKS} chunks")))
    }

    fn read_text(
        &mut self,
        place: &str,
        file: &mut (impl Read + Seek),
        kind: [u8; 4],
        length: usize,
    ) -> Result<(), MetadataError> {
        // The keyword comes first, so that a long text that is not needed is skipped.
        let mut data = vec![0; length.min(MAX_KEYWORD + 1)];
        fill(place, file, &mut data)?;
        let start = data.len();
        let end = data.iter().position(|byte| *byte == 0);
        let known = [FABRIC, PARAMETERS, PROMPT, WORKFLOW];
        let keyword = end.and_then(|end| known.into_iter().find(|keyword| keyword.as_bytes() == &data[..end]));
        let (Some(end), Some(keyword)) = (end, keyword) else { return skip(place, file, length - start + 4) };
        if keyword == WORKFLOW {
            self.has_workflow = true;
            return skip(place, file, length - start + 4);
        }
        if self.count == MAX_TEXTS {
            return Err(corrupt(place, format!("it has more than {MAX_TEXTS} text chunks about how it was made")));
        }
        self.count += 1;
        let too_long = || MetadataError::TooLong { place: place.to_owned(), keyword, expected: MAX_TEXT };
        let damaged = |what: String| MetadataError::Chunk { place: place.to_owned(), keyword, what };
        if length > MAX_TEXT + MAX_OVERHEAD {
            self.problems.push(too_long());
            return skip(place, file, length - start + 4);
        }
        data.resize(length, 0);
        fill(place, file, &mut data[start..])?;
        let mut stored = [0; 4];
        fill(place, file, &mut stored)?;
        let (stored, computed) = (u32::from_be_bytes(stored), checksum(&[&kind, &data]));
        if stored != computed {
            self.problems.push(damaged(format!("its checksum is {computed:08x}, expected {stored:08x}")));
            return Ok(());
        }
        match decode(kind, &data[end + 1..]) {
            Ok(text) => self.texts.push((keyword, text)),
            Err(Undecodable::TooLong) => self.problems.push(too_long()),
            Err(Undecodable::Damaged(what)) => self.problems.push(damaged(what)),
        }
        Ok(())
    }
}

/// Reads the texts of a PNG file.
///
/// # Errors
///
/// Returns an error if the file is no PNG, or its header is damaged. Damages behind the header are in
/// [`Texts::problems`].
pub(super) fn read(place: &str, file: &mut (impl Read + Seek)) -> Result<Texts, MetadataError> {
    let mut signature = Vec::new();
    file.by_ref().take(8).read_to_end(&mut signature).map_err(|source| read_error(place, source))?;
    if signature != SIGNATURE {
        let got: Vec<String> = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        return Err(MetadataError::Format { place: place.to_owned(), got: got.join(" ") });
    }
    let (kind, length) = read_chunk_head(place, file)?;
    if (&kind, length) != (b"IHDR", 13) {
        return Err(corrupt(place, "its first chunk is no header"));
    }
    let mut header = [0; 17];
    fill(place, file, &mut header)?;
    let [w0, w1, w2, w3, h0, h1, h2, h3, _, _, _, _, _, stored @ ..] = header;
    if u32::from_be_bytes(stored) != checksum(&[&kind, &header[..13]]) {
        return Err(corrupt(place, "the checksum of its header is wrong"));
    }
    let [width, height] = [[w0, w1, w2, w3], [h0, h1, h2, h3]].map(|side| u32::from_be_bytes(side) as usize);
    let (texts, count, has_workflow, problems) = (Vec::new(), 0, false, Vec::new());
    let mut texts = Texts { width, height, texts, count, has_workflow, problems };
    if let Err(problem) = texts.read_chunks(place, file) {
        texts.problems.push(problem);
    }
    Ok(texts)
}

/// Returns a PNG file with text chunks between its header and its pixels.
///
/// # Panics
///
/// Panics if `png` does not begin like a PNG file.
pub(super) fn insert(png: &[u8], texts: &[(&str, &str)]) -> Vec<u8> {
    assert!(png.starts_with(&SIGNATURE) && png.get(12..16) == Some(b"IHDR".as_slice()), "an encoded PNG file");
    let (head, rest) = png.split_at(HEADER_END);
    let mut file = head.to_vec();
    for (keyword, text) in texts {
        file.extend(encode(keyword, text));
    }
    file.extend_from_slice(rest);
    file
}

/// Returns a `tEXt` chunk if the text is Latin-1, otherwise an `iTXt` chunk, as Pillow does it.
fn encode(keyword: &str, text: &str) -> Vec<u8> {
    let latin1: Option<Vec<u8>> = text.chars().map(|letter| u8::try_from(letter).ok()).collect();
    match latin1 {
        Some(text) => chunk(b"tEXt", &[keyword.as_bytes(), b"\0", &text].concat()),
        // Not compressed, no language, no translated keyword.
        None => chunk(b"iTXt", &[keyword.as_bytes(), b"\0\0\0\0\0", text.as_bytes()].concat()),
    }
}

/// Returns a chunk with its length and checksum.
pub(super) fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("texts are limited");
    [length.to_be_bytes().as_slice(), kind, data, &checksum(&[kind, data]).to_be_bytes()].concat()
}

/// Reason why a text chunk has no text.
#[derive(Debug)]
enum Undecodable {
    TooLong,
    Damaged(String),
}

/// Returns the text of a chunk from its data behind the keyword.
fn decode(kind: [u8; 4], data: &[u8]) -> Result<String, Undecodable> {
    let damaged = |what: &str| Undecodable::Damaged(what.to_owned());
    match &kind {
        b"tEXt" => Ok(latin1(data)),
        b"zTXt" => match data {
            [0, text @ ..] => Ok(latin1(&inflate(text)?)),
            _ => Err(damaged("its compression method is unknown")),
        },
        _ => {
            let [flag, method, rest @ ..] = data else { return Err(damaged("it is cut off")) };
            // Language and translated keyword come before the text.
            let Some(text) = rest.splitn(3, |byte| *byte == 0).nth(2) else { return Err(damaged("it is cut off")) };
            let text = match (flag, method) {
                (0, _) => text.to_vec(),
                (1, 0) => inflate(text)?,
                _ => return Err(damaged("its compression method is unknown")),
            };
            String::from_utf8(text).map_err(|error| Undecodable::Damaged(format!("it is not UTF-8: {error}")))
        }
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Decompresses a zlib stream of at most [`MAX_TEXT`] bytes.
fn inflate(data: &[u8]) -> Result<Vec<u8>, Undecodable> {
    // A panic of the decoder means a damaged file, as for pixels.
    match catch_panic(|| fdeflate::decompress_to_vec_bounded(data, MAX_TEXT)) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(BoundedDecompressionError::OutputTooLarge { .. })) => Err(Undecodable::TooLong),
        Ok(Err(BoundedDecompressionError::DecompressionError { inner })) => {
            Err(Undecodable::Damaged(format!("its compressed text ends with {inner:?}")))
        }
        Err(message) => Err(Undecodable::Damaged(format!("its decoder panicked: {message}"))),
    }
}

/// Reads the kind and the length of the next chunk.
fn read_chunk_head(place: &str, file: &mut impl Read) -> Result<([u8; 4], usize), MetadataError> {
    let mut head = [0; 8];
    fill(place, file, &mut head)?;
    let [l0, l1, l2, l3, kind @ ..] = head;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if length > u32::MAX / 2 || !kind.iter().all(u8::is_ascii_alphabetic) {
        return Err(corrupt(place, "something else stands where a chunk should begin"));
    }
    Ok((kind, length as usize))
}

fn fill(place: &str, file: &mut impl Read, bytes: &mut [u8]) -> Result<(), MetadataError> {
    file.read_exact(bytes).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => corrupt(place, "it stops before its end"),
        _ => read_error(place, source),
    })
}

fn skip(place: &str, file: &mut impl Seek, bytes: usize) -> Result<(), MetadataError> {
    // Lengths of chunks are below 2^31.
    file.seek_relative(bytes as i64).map_err(|source| read_error(place, source))
}

fn corrupt(place: &str, what: impl Into<String>) -> MetadataError {
    MetadataError::Corrupt { place: place.to_owned(), what: what.into() }
}

fn read_error(place: &str, source: io::Error) -> MetadataError {
    ImageError::Read { place: place.trim_matches('`').to_owned(), source }.into()
}

/// Returns the CRC-32 of some bytes in a row.
fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}
