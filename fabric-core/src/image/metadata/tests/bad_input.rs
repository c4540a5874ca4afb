use std::io::{self, Read, Seek, SeekFrom};

use serde_json::json;

use super::super::chunks::MAX_TEXT;
use super::super::{MetadataSource, find};
use super::*;
use crate::image::ImageError;

const PROMPT: &str = "a red star\nSteps: 20, Seed: 7, Size: 64x64";

fn compressed(text: &[u8]) -> Vec<u8> {
    fdeflate::compress_to_vec(text)
}

fn compressed_chunk(keyword: &str, data: &[u8]) -> Vec<u8> {
    chunk(b"zTXt", &[keyword.as_bytes(), b"\0\0", data].concat())
}

fn utf8_chunk(keyword: &str, flags: [u8; 2], data: &[u8]) -> Vec<u8> {
    chunk(b"iTXt", &[keyword.as_bytes(), b"\0", &flags, b"en\0translated\0", data].concat())
}

fn read_chunks(chunks: &[Vec<u8>]) -> Result<FoundMetadata, MetadataError> {
    ImageMetadata::from_png_bytes(&file_with(chunks))
}

/// A file that counts the bytes that are read from it. Behind its bytes are zeros without end.
struct CountedFile {
    bytes: Vec<u8>,
    at: usize,
    count: usize,
}

impl Read for CountedFile {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes.iter().skip(self.at).copied().chain(std::iter::repeat(0));
        to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        self.at += to.len();
        self.count += to.len();
        Ok(to.len())
    }
}

impl Seek for CountedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Current(by) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = self.at.checked_add_signed(by as isize).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at as u64)
    }
}

/// Reads metadata like [`ImageMetadata::from_png_bytes`], and returns the number of bytes that were read for it too.
fn read_counted(bytes: Vec<u8>) -> (Result<FoundMetadata, MetadataError>, usize) {
    let mut file = CountedFile { bytes, at: 0, count: 0 };
    let found = find("in memory", &mut file);
    (found, file.count)
}

/// More bytes than the heads of the chunks of a small file have.
const HEADS: usize = 1000;

#[test]
fn every_kind_of_text_chunk_is_read() {
    let (latin1, unicode) = ("étoile", "étoile 日本");
    let cases = [
        (text_chunk("parameters", b"\xe9toile"), latin1),
        (compressed_chunk("parameters", &compressed(b"\xe9toile")), latin1),
        (utf8_chunk("parameters", [0, 0], unicode.as_bytes()), unicode),
        (utf8_chunk("parameters", [1, 0], &compressed(unicode.as_bytes())), unicode),
    ];
    for (chunk, expected) in cases {
        assert_eq!(read_chunks(&[chunk]).unwrap().metadata.prompt, expected);
    }
    // Behind the pixels as well.
    let plain = file(&[]);
    let (pixels, end) = plain.split_at(plain.len() - 12);
    let bytes = [pixels, &text_chunk("parameters", b"a red star"), end].concat();
    assert_eq!(ImageMetadata::from_png_bytes(&bytes).unwrap().metadata.prompt, "a red star");
}

#[test]
fn what_is_no_png_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let error = |name: &str| ImageMetadata::read(at(name)).unwrap_err();
    assert!(matches!(error("missing.png"), MetadataError::Image(ImageError::Read { .. })));
    assert!(matches!(error(""), MetadataError::Image(ImageError::NotAFile { got: "a directory", .. })));
    Image::filled(4, 4, [0; 3]).unwrap().save(at("a.jpg")).unwrap();
    std::fs::rename(at("a.jpg"), at("photo.png")).unwrap();
    let message = error("photo.png").to_string();
    assert!(message.contains("photo.png") && message.contains("ff d8 ff"), "{message}");
    for (name, bytes) in [("empty.png", ""), ("text.png", "not an image"), ("short.png", "PNG")] {
        std::fs::write(at(name), bytes).unwrap();
        assert!(matches!(error(name), MetadataError::Format { .. }), "{name}");
    }
    Image::filled(4, 4, [0; 3]).unwrap().save(at("plain.png")).unwrap();
    assert!(matches!(error("plain.png"), MetadataError::Absent { .. }));
}

#[test]
fn damaged_chunks_are_errors_of_their_keyword() {
    let mut wrong_sum = text_chunk("parameters", b"a red star");
    *wrong_sum.last_mut().unwrap() ^= 1;
    let mut cut_short = compressed(PROMPT.as_bytes());
    cut_short.truncate(cut_short.len() / 2);
    let bad = [
        wrong_sum,
        chunk(b"zTXt", b"parameters\0"),
        chunk(b"zTXt", b"parameters\0\x07abc"),
        chunk(b"iTXt", b"parameters\0"),
        chunk(b"iTXt", b"parameters\0\0\0en\0translated, but no text"),
        compressed_chunk("parameters", b"no zlib stream"),
        compressed_chunk("parameters", &cut_short),
        utf8_chunk("parameters", [0, 0], b"\xff\xfe"),
        utf8_chunk("parameters", [1, 0], &compressed(b"\xff\xfe")),
        utf8_chunk("parameters", [1, 3], &compressed(b"a")),
        utf8_chunk("parameters", [9, 0], b"a"),
    ];
    for chunk in bad {
        let error = read_chunks(&[chunk]).unwrap_err();
        assert!(matches!(error, MetadataError::Chunk { keyword: "parameters", .. }), "{error}");
    }
}

#[test]
fn long_texts_are_skipped_and_not_read() {
    let long = vec![b'a'; MAX_TEXT + 2000];
    for chunk in [text_chunk("parameters", &long), utf8_chunk("parameters", [0, 0], &long)] {
        let (found, count) = read_counted(file_with(&[chunk]));
        let error = found.unwrap_err();
        assert!(matches!(error, MetadataError::TooLong { keyword: "parameters", .. }), "{error}");
        assert!(count < HEADS, "{count} bytes");
    }
    // Texts that are not needed may be of any length.
    let other = [text_chunk("workflow", &long), text_chunk("Comment", &long), text_chunk("parameters", b"a red star")];
    let (found, count) = read_counted(file_with(&other));
    assert_eq!(found.unwrap().metadata.prompt, "a red star");
    assert!(count < HEADS, "{count} bytes");
}

#[test]
fn decompression_ends_at_the_limit() {
    let zeros = vec![0_u8; 64 << 20];
    let bomb = compressed(&zeros);
    assert!(bomb.len() < MAX_TEXT, "{} bytes", bomb.len());
    // A decoder that went on would find that the stream is cut off, which is another error.
    for bomb in [&bomb[..], &bomb[..bomb.len() / 2]] {
        for chunk in [compressed_chunk("parameters", bomb), utf8_chunk("parameters", [1, 0], bomb)] {
            let error = read_chunks(&[chunk]).unwrap_err();
            assert!(matches!(error, MetadataError::TooLong { keyword: "parameters", .. }), "{error}");
        }
    }
}

#[test]
fn json_that_is_nested_too_deep_is_an_error() {
    let deep = |open: &str, count: usize| open.repeat(count);
    for text in [deep("[", 1_000_000), deep("{\"a\":", 300_000), format!("{{\"1\":{}", deep("[", 100_000))] {
        for keyword in ["fabric", "prompt"] {
            let error = read(&[(keyword, text.as_str())]).unwrap_err();
            assert!(matches!(error, MetadataError::Text { .. }), "{error}");
            assert!(error.to_string().len() < 500, "{error}");
        }
    }
}

#[test]
fn other_formats_and_versions_of_our_own_text_are_errors() {
    let own = super::super::json::write(&ImageMetadata { seeds: vec![7], ..ImageMetadata::default() }).unwrap();
    let newer = own.replace("\"version\":1", "\"version\":2");
    let error = read(&[("fabric", &newer)]).unwrap_err();
    assert!(matches!(&error, MetadataError::Version { got, .. } if got.contains("version 2")), "{error}");
    let bad = [
        own.replace("\"index\":0", "\"index\":1"),
        own.replace("\"seeds\":[7]", "\"seeds\":[-7]"),
        own.replace("\"prompt\":", "\"prompts\":"),
        own.replace("\"index\":0", "\"index\":0,\"more\":1"),
        own.replace("\"references\":[]", "\"references\":[{\"image\":\"../x\",\"strength\":1}]"),
        own[..own.len() - 1].to_owned(),
        String::new(),
        "[]".to_owned(),
    ];
    for text in bad {
        assert_ne!(text, own);
        let error = read(&[("fabric", &text)]).unwrap_err();
        assert!(matches!(error, MetadataError::Text { keyword: "fabric", .. }), "{text}: {error}");
    }
}

#[test]
fn what_is_left_of_a_damaged_file_is_read_and_the_damage_reported() {
    let own = super::super::json::write(&ImageMetadata::default()).unwrap();
    let found = read(&[("parameters", PROMPT), ("fabric", &own[1..])]).unwrap();
    assert_eq!((found.source, found.metadata.seed()), (MetadataSource::WebUi, Some(7)));
    assert!(found.unread[0].contains("`fabric` cannot be read"), "{:?}", found.unread);

    let whole = file(&[("parameters", PROMPT)]);
    let found = ImageMetadata::from_png_bytes(&whole[..whole.len() - 30]).unwrap();
    assert_eq!(found.metadata.prompt, "a red star");
    assert!(found.unread[0].contains("stops before its end"), "{:?}", found.unread);
}

#[test]
fn texts_that_contradict_each_other_are_refused() {
    let error = read(&[("parameters", PROMPT), ("parameters", "a blue star")]).unwrap_err();
    assert!(matches!(error, MetadataError::Duplicate { keyword: "parameters", .. }), "{error}");
    let same = read(&[("parameters", PROMPT), ("parameters", PROMPT)]).unwrap();
    assert_eq!(same.metadata.prompt, "a red star");
    let many = vec![("parameters", PROMPT); 1000];
    assert!(read(&many).unwrap().unread[0].contains("more than 16 text chunks"));
}

/// A file with enough fields for the web UI's text.
fn file_of_ours() -> Vec<u8> {
    let metadata = ImageMetadata {
        prompt: "a red star".to_owned(),
        seeds: vec![7],
        settings: json!({"steps": 20, "guidance_scale": 7.0}),
        ..ImageMetadata::default()
    };
    Image::filled(6, 4, [1, 2, 3]).unwrap().to_png_bytes_with_metadata(&metadata).unwrap()
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_still_has_its_metadata() {
    let bytes = file_of_ours();
    for length in 0..bytes.len() {
        match ImageMetadata::from_png_bytes(&bytes[..length]) {
            Ok(found) => assert!(!found.unread.is_empty() && found.metadata.prompt == "a red star", "{length}"),
            Err(error) => assert!(
                matches!(error, MetadataError::Format { .. } | MetadataError::Corrupt { .. }),
                "{length}: {error}"
            ),
        }
    }
}

#[test]
fn a_changed_byte_never_panics_and_never_changes_our_text() {
    let bytes = file_of_ours();
    for at in 0..bytes.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            if let Ok(found) = ImageMetadata::from_png_bytes(&damaged)
                && found.source == MetadataSource::Fabric
            {
                assert_eq!((found.metadata.prompt.as_str(), found.metadata.seed()), ("a red star", Some(7)));
            }
        }
    }
}

#[test]
fn chunks_that_claim_to_be_long_are_not_read() {
    let plain = file(&[]);
    let head = &plain[..33];
    for length in [u32::MAX, u32::MAX / 2, 1 << 24] {
        for kind in [b"tEXt", b"zTXt", b"iTXt", b"IDAT", b"\0\0\0\0"] {
            let bytes = [head, &length.to_be_bytes(), kind, b"parameters\0abc"].concat();
            let error = ImageMetadata::from_png_bytes(&bytes).unwrap_err();
            assert!(matches!(error, MetadataError::Corrupt { .. }), "{error}");
            // In a file that is as long as the chunk claims.
            let (found, count) = read_counted(bytes);
            let error = found.unwrap_err();
            assert!(matches!(error, MetadataError::Corrupt { .. } | MetadataError::TooLong { .. }), "{error}");
            assert!(count < HEADS, "{count} bytes");
        }
    }
}
