//! Images: files of other kinds, bombs, truncated and damaged files, odd pixels, orientations and animations.

use std::fs;
use std::path::Path;

use fabric::core::image::{ContentHash, Crop, Filter, Fit, Image, ImageError};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::case::{Case, check, file, nothing, said, sparse_file};
use crate::models;
use crate::png_writer::{SIGNATURE, chunk, header, png, zlib, zlib_run};

pub(crate) const COUNT: usize = 215;

const PNG: &str = "damaged PNG file";
const JPEG: &str = "damaged JPEG file";
const WEBP: &str = "damaged WebP file";
const SIZE: &str = "expected sides from 1 to 65536 and at most 67108864 pixels";

/// Data of a lossless WebP image of 3x2 pixels, all of the colour (10, 200, 30).
const LOSSLESS: [u8; 17] = [0x2f, 2, 0x40, 0, 0, 7, 0x50, 0xe4, 0x2a, 0xd4, 0xa3, 0xff, 0x81, 0x88, 0xe8, 0x7f, 0];

fn lossless_colour(width: usize, height: usize) -> Image {
    Image::filled(width, height, [10, 200, 30]).expect("an image")
}

/// Returns rows of pixels as PNG files have them: each begins with the number of a filter, here 0 for none.
fn rows(row: usize, pixels: &[u8]) -> Vec<u8> {
    pixels.chunks(row).flat_map(|row| [[0].as_slice(), row].concat()).collect()
}

/// Returns a file with a header, chunks in front of the pixels, and the pixels.
fn png_with(header: &[u8], before: &[Vec<u8>], pixels: &[u8]) -> Vec<u8> {
    let (first, last) = (chunk(b"IHDR", header), chunk(b"IEND", &[]));
    png(&[vec![first], before.to_vec(), vec![chunk(b"IDAT", &zlib(pixels)), last]].concat())
}

/// Pixels of [`models::image`] as rows of a PNG file.
fn pixels() -> Vec<u8> {
    rows(18, models::image().rgb())
}

/// [`models::image`] as a PNG file with chunks in front of its pixels.
fn base_with(before: &[Vec<u8>]) -> Vec<u8> {
    png_with(&header(6, 4, 8, 2), before, &pixels())
}

fn jpeg(exif: Option<Vec<u8>>) -> Vec<u8> {
    let image = models::image();
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new(&mut bytes);
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).expect("metadata");
    }
    encoder.write_image(image.rgb(), 6, 4, ExtendedColorType::Rgb8).expect("a JPEG file");
    bytes
}

/// Returns a JPEG file in which one byte of its frame's header is other: 0 is the first byte of the marker.
fn jpeg_with_frame(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = jpeg(None);
    let at = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    changes.iter().for_each(|(offset, byte)| bytes[at + offset] = *byte);
    bytes
}

fn webp_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let padding = &[0][..data.len() % 2];
    [kind.as_slice(), &(data.len() as u32).to_le_bytes(), data, padding].concat()
}

fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
    let chunks = chunks.concat();
    [b"RIFF".as_slice(), &(chunks.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunks].concat()
}

/// Returns the header of an extended WebP file: flags, and the size of the canvas.
fn canvas(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let side = |side: u32| (side - 1).to_le_bytes()[..3].to_vec();
    webp_chunk(b"VP8X", &[vec![flags, 0, 0, 0], side(width), side(height)].concat())
}

/// Returns a frame of an animation at this column.
fn frame(column: u8) -> Vec<u8> {
    // Column, row, width and height less one, duration, flags; three bytes each, except the flags.
    let place = [column / 2, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 100, 0, 0, 2];
    webp_chunk(b"ANMF", &[place.as_slice(), &webp_chunk(b"VP8L", &LOSSLESS)].concat())
}

/// Returns EXIF data with an orientation.
fn exif(orientation: u16) -> Vec<u8> {
    let [low, high] = orientation.to_le_bytes();
    let entry = [0x12, 1, 3, 0, 1, 0, 0, 0, low, high, 0, 0];
    [b"II\x2a\0\x08\0\0\0\x01\0".as_slice(), &entry, &[0; 4]].concat()
}

/// Returns an image as viewers show it under an orientation.
fn turned(source: &Image, orientation: u16) -> Image {
    let (right, bottom) = (source.width() - 1, source.height() - 1);
    let (width, height) = if orientation < 5 { (right + 1, bottom + 1) } else { (bottom + 1, right + 1) };
    let pixel = |x: usize, y: usize| match orientation {
        1 => source.pixel(x, y),
        2 => source.pixel(right - x, y),
        3 => source.pixel(right - x, bottom - y),
        4 => source.pixel(x, bottom - y),
        5 => source.pixel(y, x),
        6 => source.pixel(y, bottom - x),
        7 => source.pixel(right - y, bottom - x),
        _ => source.pixel(right - y, x),
    };
    let pixels = (0..width * height).flat_map(|at| pixel(at % width, at / width));
    Image::from_rgb(width, height, pixels.collect()).expect("an image")
}

fn refused(name: impl Into<String>, bytes: Vec<u8>, words: &[&str]) -> Case {
    let words = [words, &["image in memory"]].concat();
    Case::refused(name, &words, nothing, move |_| said(Image::from_bytes(&bytes)))
}

fn accepted(name: impl Into<String>, bytes: Vec<u8>, expected: Image, to: &str) -> Case {
    Case::falls_back(name, to, nothing, move |_| {
        let got = Image::from_bytes(&bytes).map_err(|error| error.to_string())?;
        let shown = format!("{got:?} that begins with {:?}", &got.rgb()[..3]);
        check(got == expected, shown)
    })
}

pub(crate) fn check_base() {
    let image = models::image();
    for bytes in [base_with(&[]), image.to_png_bytes().expect("a PNG file")] {
        assert_eq!(Image::from_bytes(&bytes).expect("an image"), image);
    }
    assert_eq!(Image::from_bytes(&jpeg(None)).expect("an image").width(), 6);
    let lossless = webp(&[webp_chunk(b"VP8L", &LOSSLESS)]);
    assert_eq!(Image::from_bytes(&lossless).expect("an image"), lossless_colour(3, 2));
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = kinds();
    cases.extend(paths());
    cases.extend(bombs());
    cases.extend(truncated());
    cases.extend(headers());
    cases.extend(chunks());
    cases.extend(others());
    cases.extend(pixel_kinds());
    cases.extend(orientations());
    cases.extend(animations());
    cases.extend(sizes());
    cases
}

/// Files of other kinds.
fn kinds() -> Vec<Case> {
    let kinds: [(&str, &[u8], &str); 16] = [
        ("an empty file", b"", "begins with []"),
        ("a text", b"not an image", "6e 6f 74 20"),
        ("zeros", &[0; 64], "00 00 00 00 00 00 00 00"),
        ("one byte of a PNG file", b"\x89", "begins with [89]"),
        ("seven bytes of a PNG file", b"\x89PNG\r\n\x1a", "89 50 4e 47 0d 0a 1a]"),
        ("a PNG file whose line ends were changed", b"\x89PNG\n\x1a\n\0\0\0\rIHDR", "89 50 4e 47 0a 1a"),
        ("a GIF file", b"GIF89a\x01\0\x01\0\0\0\0;", "47 49 46 38"),
        ("a BMP file", b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0", "42 4d 3a"),
        ("a TIFF file", b"II\x2a\0\x08\0\0\0\0\0", "49 49 2a"),
        ("an SVG file", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "3c 73 76 67"),
        ("a PDF file", b"%PDF-1.7\n", "25 50 44 46"),
        ("a file of Photoshop", b"8BPS\0\x01\0\0\0\0\0\0", "38 42 50 53"),
        ("an AVIF file", b"\0\0\0\x1cftypavif\0\0\0\0", "00 00 00 1c"),
        ("a sound file, which begins as WebP does", b"RIFF\x24\0\0\0WAVEfmt ", "52 49 46 46"),
        ("an archive", b"PK\x03\x04\x14\0\0\0", "50 4b 03 04"),
        ("weights of a network", b"\x40\0\0\0\0\0\0\0{\"__metadata__\"", "40 00 00 00"),
    ];
    let cases = kinds.map(|(name, bytes, word)| {
        refused(name, bytes.to_vec(), &["begins with [", word, "which is no PNG, JPEG or WebP"])
    });
    cases.into()
}

/// Paths that lead to no image, or to one under another name.
fn paths() -> Vec<Case> {
    let path = |name: &str, at: &'static str, words: &[&str]| {
        let make = |place: &Path| {
            fs::create_dir(place.join("folder.png")).expect("a folder");
            fs::write(place.join("text.png"), "not an image").expect("a file");
            fs::write(place.join("cut.png"), &base_with(&[])[..60]).expect("a file");
        };
        Case::refused(name, words, make, move |place| said(Image::open(place.join(at))))
    };
    let other = |name: &str, at: &'static str| {
        let to = "the format is detected from the content";
        Case::falls_back(name, to, file(at, base_with(&[])), move |place| {
            let got = Image::open(place.join(at)).map_err(|error| error.to_string())?;
            check(got == models::image(), "another image")
        })
    };
    let saved = |name: &str, at: &'static str, words: &[&str]| {
        Case::refused(name, words, nothing, move |place| said(models::image().save(place.join(at))))
    };
    let long = |name: &str, bytes: Vec<u8>, words: &[&str]| {
        Case::refused(name, words, sparse_file("long.png", bytes, (512 << 20) + 1), |place| {
            said(Image::open(place.join("long.png")))
        })
    };
    vec![
        path("a missing file", "missing.png", &["missing.png", "cannot be read", "check the path"]),
        path("a file in a missing folder", "missing/a.png", &["missing", "cannot be read"]),
        path("a missing file whose name clears the terminal", "\u{1b}[2J.png", &["\\u{1b}[2J", "cannot be read"]),
        path("a folder", "folder.png", &["folder.png", "is a directory, expected a file"]),
        path("a text that is called an image", "text.png", &["text.png", "begins with [6e 6f 74"]),
        path("a file that is cut short", "cut.png", &["cut.png", PNG]),
        Case::refused("an empty path", &["cannot be read"], nothing, |_| said(Image::open(""))),
        long("a file of more than 512 MB", SIGNATURE.to_vec(), &["has 536870913 bytes", "expected at most 536870912"]),
        other("a PNG file that is called JPEG", "image.jpg"),
        other("a PNG file that is called a text", "image.txt"),
        other("a PNG file without an extension", "image"),
        other("a PNG file with a long name in other letters", "\u{56fe}\u{50cf} \u{1f31f}.PnG"),
        saved("an image saved as GIF", "image.gif", &["ends in `gif`", "expected `.png`, `.jpg` or `.jpeg`"]),
        saved("an image saved without an extension", "image", &["ends in ``"]),
        saved(
            "an image saved to a missing folder",
            "no/image.png",
            &["cannot be written", "check that the folder exists"],
        ),
    ]
}

/// Small files that claim or unpack to much.
fn bombs() -> Vec<Case> {
    let head = |width: u32, height: u32| {
        let start = chunk(b"IHDR", &header(width, height, 8, 2));
        png(&[start, b"\0\0\0\x0aIDAT\x78\xda".to_vec()])
    };
    let image = models::image;
    let profile = |bytes: usize| chunk(b"iCCP", &[b"profile\0\0".as_slice(), &zlib_run(0, bytes)].concat());
    let text = |kind: &[u8; 4], before: &[u8]| chunk(kind, &[before, &zlib_run(b'a', 80 << 20)].concat());
    let short =
        png(&[chunk(b"IHDR", &header(30_000, 2000, 8, 0)), chunk(b"IDAT", &zlib_run(0, 1000)), chunk(b"IEND", &[])]);
    let unread = png(&[
        chunk(b"IHDR", &header(60_000, 60_000, 8, 2)),
        chunk(b"iCCP", b"profile\0\0no zlib stream"),
        b"and no chunk".to_vec(),
    ]);
    let claims = webp(&[canvas(8, 3, 2), webp_chunk(b"VP8L", &LOSSLESS), b"EXIF\0\0\0\x40".to_vec()]);
    let wide = webp(&[canvas(0, 1 << 24, 4), webp_chunk(b"VP8L", &LOSSLESS)]);
    let largest = webp(&[canvas(0, 1 << 24, 1 << 24), webp_chunk(b"VP8L", &LOSSLESS)]);
    let square = webp(&[webp_chunk(b"VP8L", &[0x2f, 0xfe, 0xbf, 0xff, 0x0f, 0])]);
    vec![
        refused("a PNG file of 60000x60000", head(60_000, 60_000), &["60000x60000", SIZE]),
        refused("a PNG file of 9000x9000", head(9000, 9000), &["9000x9000", SIZE]),
        refused("a PNG file of a million columns", head(1 << 20, 1), &["1048576x1", SIZE]),
        refused("a PNG file of 65537 rows", head(1, 65_537), &["1x65537", SIZE]),
        refused(
            "a PNG file of four billion columns and rows",
            head(u32::MAX, u32::MAX),
            &["4294967295x4294967295", SIZE],
        ),
        refused("a PNG file without columns", head(0, 5), &["0x5", SIZE]),
        refused("a PNG file without rows", head(5, 0), &["5x0", SIZE]),
        refused("a PNG file of 8000x8000 that ends with its header", head(8000, 8000), &[PNG]),
        refused("a PNG file of 30000x2000 with data for a thousand pixels", short, &[PNG]),
        refused("a PNG file of 60000x60000 with a damaged profile", unread, &["60000x60000", SIZE]),
        accepted(
            "a PNG file with a profile of 80 MB",
            base_with(&[profile(80 << 20)]),
            image(),
            "the profile is left out",
        ),
        accepted(
            "a PNG file with a profile of a megabyte",
            base_with(&[profile(1 << 20)]),
            image(),
            "profiles are not used",
        ),
        accepted(
            "a PNG file with a text of 80 MB",
            base_with(&[text(b"zTXt", b"Comment\0\0")]),
            image(),
            "texts are not read",
        ),
        accepted(
            "a PNG file with an international text of 80 MB",
            base_with(&[text(b"iTXt", b"Comment\0\x01\0\0\0")]),
            image(),
            "texts are not read",
        ),
        refused(
            "a PNG file with a chunk of two billion bytes",
            png(&[chunk(b"IHDR", &header(6, 4, 8, 2)), b"\x7f\xff\xff\xffeXIfMM".to_vec()]),
            &[PNG],
        ),
        refused(
            "a JPEG file of 65535x65535",
            jpeg_with_frame(&[(5, 255), (6, 255), (7, 255), (8, 255)]),
            &["65535x65535", SIZE],
        ),
        refused(
            "a JPEG file with the pixels of a smaller one",
            jpeg_with_frame(&[(5, 0x1f), (6, 0x40), (7, 0x1f), (8, 0x40)]),
            &[JPEG],
        ),
        refused("a WebP file of 16383x16383", square, &["16383x16383", SIZE]),
        refused("a WebP file of 16 million columns", wide, &["16777216x4", SIZE]),
        refused("a WebP file of 16 million columns and rows", largest, &[WEBP]),
        accepted(
            "a WebP file whose metadata says it has a gigabyte",
            claims,
            lossless_colour(3, 2),
            "damaged metadata is ignored",
        ),
    ]
}

/// Files that end too early.
fn truncated() -> Vec<Case> {
    let mut cases = Vec::new();
    let whole = base_with(&[]);
    for (place, length) in [
        ("after the signature", 8),
        ("in the length of the header", 10),
        ("in the header's size", 19),
        ("in the header's checksum", 31),
        ("after the header", 33),
        ("after the name of the pixels' chunk", 41),
        ("in the header of the compressed pixels", 42),
        ("in the first row", 50),
        ("in the last row", 115),
        ("in front of the checksum of the pixels", 128),
    ] {
        cases.push(refused(format!("a PNG file that ends {place}"), whole[..length].to_vec(), &[PNG]));
    }
    let whole = jpeg(None);
    let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
    for (place, length) in [
        ("after its first three bytes", 3),
        ("in the first table", 30),
        ("in front of its pixels", scan),
        ("in its pixels", (scan + whole.len()) / 2),
        ("in front of the end marker", whole.len() - 2),
        ("within the end marker", whole.len() - 1),
    ] {
        let words = [JPEG, "it stops before its end marker"];
        cases.push(refused(format!("a JPEG file that ends {place}"), whole[..length].to_vec(), &words));
    }
    let middle = (scan + whole.len()) / 2;
    let mended = [&whole[..middle], &[0xff, 0xd9]].concat();
    cases.push(refused("a JPEG file without half of its pixels, but with an end marker", mended, &[JPEG]));
    let whole = webp(&[webp_chunk(b"VP8L", &LOSSLESS)]);
    for (place, length) in [
        ("after its name", 12),
        ("in the length of its data", 18),
        ("in front of its data", 20),
        ("in its size", 23),
        ("in its codes", 29),
    ] {
        cases.push(refused(format!("a WebP file that ends {place}"), whole[..length].to_vec(), &[WEBP]));
    }
    cases
}

/// Headers of PNG files that no PNG file has.
fn headers() -> Vec<Case> {
    let with = |at: usize, byte: u8| {
        let mut header = header(6, 4, 8, 2);
        header[at] = byte;
        png_with(&header, &[], &pixels())
    };
    let of = |depth: u8, colour: u8| png_with(&header(6, 4, depth, colour), &[], &pixels());
    let mut checksum = base_with(&[]);
    checksum[29] ^= 1;
    let mut first = base_with(&[]);
    first[15] = b'X';
    vec![
        refused("a header with another checksum", checksum, &[PNG]),
        refused("a header under another name", first, &[PNG]),
        refused("a header that is too short", png_with(&header(6, 4, 8, 2)[..12], &[], &pixels()), &[PNG]),
        refused("a header that is too long", png_with(&[header(6, 4, 8, 2), vec![0]].concat(), &[], &pixels()), &[PNG]),
        refused("pixels of three bits", of(3, 0), &[PNG]),
        refused("pixels of 32 bits", of(32, 0), &[PNG]),
        refused("pixels of no bits", of(0, 2), &[PNG]),
        refused("the colour type 1", of(8, 1), &[PNG]),
        refused("the colour type 5", of(8, 5), &[PNG]),
        refused("the colour type 7", of(8, 7), &[PNG]),
        refused("colours of four bits", of(4, 2), &[PNG]),
        refused("a palette of 16 bits", of(16, 3), &[PNG]),
        refused("grey and alpha of two bits", of(2, 4), &[PNG]),
        refused("another compression", with(10, 1), &[PNG]),
        refused("another method of filters", with(11, 1), &[PNG]),
        refused("another interlacing", with(12, 2), &[PNG]),
    ]
}

/// Damaged chunks of PNG files.
fn chunks() -> Vec<Case> {
    let image = models::image;
    let head = || chunk(b"IHDR", &header(6, 4, 8, 2));
    let end = || chunk(b"IEND", &[]);
    let data = |data: &[u8]| png(&[head(), chunk(b"IDAT", data), end()]);
    let palette = |length: usize| {
        let header = header(4, 1, 8, 3);
        png_with(&header, &[chunk(b"PLTE", &vec![1; length])], &[0, 0, 1, 2, 3])
    };
    let damaged = |at_end: usize, mut bytes: Vec<u8>| {
        let at = bytes.len() - at_end;
        bytes[at] ^= 1;
        bytes
    };
    let good = zlib(&pixels());
    let mut filter = pixels();
    filter[19] = 9;
    let twice = |one: Vec<u8>| base_with(&[one.clone(), one]);
    let colours = chunk(b"PLTE", &[1, 2, 3]);
    let split = png(&[head(), chunk(b"IDAT", &good[..30]), chunk(b"IDAT", &good[30..]), end()]);
    let empty = png(&[head(), chunk(b"IDAT", &[]), chunk(b"IDAT", &good), chunk(b"IDAT", &[]), end()]);
    let apart = [chunk(b"IDAT", &good[..30]), chunk(b"tEXt", b"Comment\0text"), chunk(b"IDAT", &good[30..])];
    let apart = png(&[vec![head()], apart.to_vec(), vec![end()]].concat());
    let behind = [base_with(&[]), b"PK\x03\x04 and an archive".to_vec()].concat();
    let more = zlib(&[pixels(), vec![7; 1000]].concat());
    let unknown =
        [chunk(b"gAMA", &[0; 4]), chunk(b"pHYs", &[0; 3]), chunk(b"zzZz", &[0; 9]), chunk(b"tEXt", b"no end")];
    let checksum = damaged(1, chunk(b"tEXt", b"Comment\0text"));
    vec![
        refused("pixels with another checksum of their chunk", damaged(13, base_with(&[])), &[PNG]),
        refused("no pixels", png(&[head(), end()]), &[PNG]),
        refused("pixels that are not compressed", data(&pixels()), &[PNG]),
        refused("pixels compressed by another method", data(&[[0x79, 1].as_slice(), &good[2..]].concat()), &[PNG]),
        refused("pixels that need a dictionary", data(&[[0x78, 0x20].as_slice(), &good[2..]].concat()), &[PNG]),
        refused("a block with two lengths", data(&[&good[..5], &[0], &good[6..]].concat()), &[PNG]),
        refused("a block of an unknown kind", data(&[0x78, 1, 7, 0, 0]), &[PNG]),
        refused("a row too few", data(&zlib(&pixels()[..57])), &[PNG]),
        refused("a byte too few", data(&zlib(&pixels()[..75])), &[PNG]),
        refused("an unknown filter", png_with(&header(6, 4, 8, 2), &[], &filter), &[PNG]),
        refused("pixels with a text in between", apart, &[PNG]),
        refused("a palette without colours", png_with(&header(4, 1, 8, 3), &[], &[0, 0, 1, 2, 3]), &[PNG]),
        refused("a palette of one byte", palette(1), &[PNG]),
        refused("a palette of a colour and a third", palette(4), &[PNG]),
        refused("a palette of two colours and a third", palette(7), &[PNG]),
        refused("a palette of 769 bytes", palette(769), &[PNG]),
        refused("two palettes", twice(colours), &[PNG]),
        refused("two headers", twice(head()), &[PNG]),
        refused("a chunk that cannot be left out and is unknown", base_with(&[chunk(b"HaRD", &[1])]), &[PNG]),
        refused(
            "a chunk in front of the header",
            png(&[chunk(b"tEXt", b"a\0b"), head(), chunk(b"IDAT", &good), end()]),
            &[PNG],
        ),
        accepted(
            "pixels with another checksum of their stream",
            data(&damaged(1, good.clone())),
            image(),
            "the chunk's own checksum counts",
        ),
        accepted("pixels in two chunks", split, image(), "chunks of pixels are joined"),
        accepted("empty chunks of pixels", empty, image(), "chunks of pixels are joined"),
        accepted("more data than pixels", data(&more), image(), "the rest is left out"),
        accepted("an archive behind the image", behind, image(), "bytes behind the image are not read"),
        accepted(
            "chunks that are damaged or unknown",
            base_with(&unknown),
            image(),
            "chunks that are not needed are left out",
        ),
        accepted("a text with another checksum", base_with(&[checksum]), image(), "texts are not read"),
        accepted(
            "a damaged profile",
            base_with(&[chunk(b"iCCP", b"profile\0\0no zlib stream")]),
            image(),
            "the profile is left out",
        ),
    ]
}

/// Damaged JPEG and WebP files.
fn others() -> Vec<Case> {
    let without = |marker: u8| {
        let bytes = jpeg(None);
        let at = bytes.windows(2).position(|pair| pair == [0xff, marker]).expect("a segment");
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        [&bytes[..at], &bytes[at + 2 + length..]].concat()
    };
    let lossless = |at: usize, byte: u8| {
        let mut data = LOSSLESS;
        data[at] = byte;
        webp(&[webp_chunk(b"VP8L", &data)])
    };
    let lossy = |data: &[u8]| webp(&[webp_chunk(b"VP8 ", data)]);
    let pixels = || webp_chunk(b"VP8L", &LOSSLESS);
    vec![
        refused("a JPEG file without a frame", without(0xc0), &[JPEG]),
        refused("a JPEG file without quantisation", without(0xdb), &[JPEG]),
        refused("a JPEG file without a scan", without(0xda), &[JPEG]),
        refused("a JPEG file without losses", jpeg_with_frame(&[(1, 0xc3)]), &[JPEG]),
        refused("a JPEG file with arithmetic codes", jpeg_with_frame(&[(1, 0xc9)]), &[JPEG]),
        refused("a JPEG file of 12 bits", jpeg_with_frame(&[(4, 12)]), &[JPEG]),
        refused("a JPEG file without columns", jpeg_with_frame(&[(7, 0), (8, 0)]), &[]),
        refused("a JPEG file of no components", jpeg_with_frame(&[(9, 0)]), &[JPEG]),
        refused("a JPEG file of 200 components", jpeg_with_frame(&[(9, 200)]), &[JPEG]),
        refused("a WebP file without pixels", webp(&[]), &[WEBP]),
        refused("a WebP file of an unknown kind", webp(&[webp_chunk(b"VP9 ", &[0; 20])]), &[WEBP]),
        refused("a WebP file with another signature", lossless(0, 0x2e), &[WEBP]),
        refused("a WebP file of a later version", lossless(4, 0x20), &[WEBP]),
        refused("a WebP file with a frame that needs another", lossy(&[1, 0, 0, 0x9d, 1, 0x2a, 3, 0, 2, 0]), &[WEBP]),
        refused("a lossy WebP file with another signature", lossy(&[0, 0, 0, 0x9d, 1, 0x2b, 3, 0, 2, 0]), &[WEBP]),
        refused("a lossy WebP file without columns", lossy(&[0, 0, 0, 0x9d, 1, 0x2a, 0, 0, 2, 0]), &[WEBP]),
        refused("a lossy WebP file without data", lossy(&[0x10, 2, 0, 0x9d, 1, 0x2a, 3, 0, 2, 0]), &[WEBP]),
        refused("an extended WebP file without pixels", webp(&[canvas(0, 3, 2)]), &[WEBP]),
        refused("an extended WebP file with a canvas of another size", webp(&[canvas(0, 4, 2), pixels()]), &[WEBP]),
        refused(
            "an extended WebP file without the metadata that it announces",
            webp(&[canvas(8, 3, 2), pixels()]),
            &[WEBP],
        ),
    ]
}

/// Kinds of pixels that are rare.
fn pixel_kinds() -> Vec<Case> {
    let grey = |values: &[u8]| {
        let pixels = values.iter().flat_map(|value| [*value; 3]).collect();
        Image::from_rgb(values.len(), 1, pixels).expect("an image")
    };
    let colours = |pixels: &[[u8; 3]]| Image::from_rgb(pixels.len(), 1, pixels.concat()).expect("an image");
    let row = |width: u32, depth: u8, colour: u8, before: &[Vec<u8>], row: &[u8]| {
        png_with(&header(width, 1, depth, colour), before, &[[0].as_slice(), row].concat())
    };
    let (red, green, blue, white) = ([255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3]);
    let palette = || chunk(b"PLTE", &[red, green, blue, white].concat());
    let clear = || chunk(b"tRNS", &[0, 128]);
    let dropped = "alpha is dropped";
    let expanded = "greys are expanded";
    let mut cases = vec![
        accepted("grey of one bit", row(4, 1, 0, &[], &[0xa0]), grey(&[255, 0, 255, 0]), expanded),
        accepted("grey of two bits", row(4, 2, 0, &[], &[0x1b]), grey(&[0, 85, 170, 255]), expanded),
        accepted("grey of four bits", row(4, 4, 0, &[], &[0x05, 0xaf]), grey(&[0, 85, 170, 255]), expanded),
        accepted("grey of eight bits", row(3, 8, 0, &[], &[1, 2, 200]), grey(&[1, 2, 200]), expanded),
        accepted(
            "grey of 16 bits",
            row(2, 16, 0, &[], &[0x80, 0x80, 255, 255]),
            grey(&[128, 255]),
            "16 bits are rounded to 8",
        ),
        accepted("grey with a clear value", row(2, 8, 0, &[chunk(b"tRNS", &[0, 7])], &[7, 9]), grey(&[7, 9]), dropped),
        accepted("grey and alpha", row(2, 8, 4, &[], &[80, 0, 90, 255]), grey(&[80, 90]), dropped),
        accepted("grey and alpha of 16 bits", row(1, 16, 4, &[], &[80, 80, 0, 0]), grey(&[80]), dropped),
        accepted("colours and alpha", row(1, 8, 6, &[], &[1, 2, 3, 0]), colours(&[[1, 2, 3]]), dropped),
        accepted(
            "colours of 16 bits",
            row(1, 16, 2, &[], &[1, 1, 2, 2, 255, 255]),
            colours(&[[1, 2, 255]]),
            "16 bits are rounded to 8",
        ),
        accepted(
            "colours and alpha of 16 bits",
            row(1, 16, 6, &[], &[1, 1, 2, 2, 3, 3, 0, 9]),
            colours(&[[1, 2, 3]]),
            dropped,
        ),
        accepted(
            "a clear colour",
            row(1, 8, 2, &[chunk(b"tRNS", &[0, 1, 0, 2, 0, 3])], &[1, 2, 3]),
            colours(&[[1, 2, 3]]),
            dropped,
        ),
        accepted(
            "a palette with clear colours",
            row(2, 8, 3, &[palette(), clear()], &[0, 1]),
            colours(&[red, green]),
            dropped,
        ),
        accepted(
            "a colour beyond the palette",
            row(2, 8, 3, &[palette()], &[3, 200]),
            colours(&[white, [0; 3]]),
            "the colour is black",
        ),
        accepted(
            "a palette beside colours",
            row(1, 8, 2, &[palette()], &[1, 2, 3]),
            colours(&[[1, 2, 3]]),
            "the palette is not used",
        ),
    ];
    let packed: [(&str, u8, &[u8]); 3] =
        [("two bits", 2, &[0x1b]), ("four bits", 4, &[0x01, 0x23]), ("eight bits", 8, &[0, 1, 2, 3])];
    for (name, depth, bytes) in packed {
        let image = colours(&[red, green, blue, white]);
        cases.push(accepted(
            format!("a palette of {name}"),
            row(4, depth, 3, &[palette()], bytes),
            image,
            "palettes are expanded",
        ));
    }
    let one = row(4, 1, 3, &[palette()], &[0x50]);
    cases.push(accepted("a palette of one bit", one, colours(&[red, green, red, green]), "palettes are expanded"));
    let mut interlaced = header(6, 4, 8, 2);
    interlaced[12] = 1;
    let interlaced = png_with(&interlaced, &[], &passes(&models::image()));
    cases.push(accepted("interlaced pixels", interlaced, models::image(), "passes are put together"));
    cases
}

/// Returns the rows of an interlaced PNG file, in seven passes.
fn passes(image: &Image) -> Vec<u8> {
    let passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
    let mut rows = Vec::new();
    for (left, top, right, down) in passes {
        for y in (top..image.height()).step_by(down).filter(|_| left < image.width()) {
            rows.push(0);
            rows.extend((left..image.width()).step_by(right).flat_map(|x| image.pixel(x, y)));
        }
    }
    rows
}

/// Orientations in EXIF data.
fn orientations() -> Vec<Case> {
    let mut cases = Vec::new();
    let (image, photograph) = (models::image(), Image::from_bytes(&jpeg(None)).expect("an image"));
    for orientation in 1..=8 {
        let to = "the orientation is applied";
        let bytes = base_with(&[chunk(b"eXIf", &exif(orientation))]);
        cases.push(accepted(
            format!("a PNG file in orientation {orientation}"),
            bytes,
            turned(&image, orientation),
            to,
        ));
        let bytes = jpeg(Some(exif(orientation)));
        cases.push(accepted(
            format!("a JPEG file in orientation {orientation}"),
            bytes,
            turned(&photograph, orientation),
            to,
        ));
    }
    let lying = webp(&[canvas(8, 3, 2), webp_chunk(b"VP8L", &LOSSLESS), webp_chunk(b"EXIF", &exif(6))]);
    cases.push(accepted("a WebP file in orientation 6", lying, lossless_colour(2, 3), "the orientation is applied"));
    let big = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let bytes = base_with(&[chunk(b"eXIf", &big)]);
    cases.push(accepted(
        "an orientation with its high byte first",
        bytes,
        turned(&image, 6),
        "the orientation is applied",
    ));
    let with = |at: usize, bytes: &[u8]| {
        let mut data = exif(6);
        data[at..at + bytes.len()].copy_from_slice(bytes);
        data
    };
    for (name, data) in [
        ("zero", exif(0)),
        ("nine", exif(9)),
        ("65535", exif(65_535)),
        ("a text", with(12, &[2])),
        ("two numbers", with(14, &[2])),
        ("behind the end", with(4, &[255; 4])),
        ("in a list of 65535 entries", with(8, &[255, 255, 0])),
        ("in another order of bytes", with(0, b"MM\0\x2a")),
        ("cut short", exif(6)[..14].to_vec()),
        ("empty", Vec::new()),
    ] {
        let bytes = base_with(&[chunk(b"eXIf", &data)]);
        let to = "a damaged orientation is ignored";
        cases.push(accepted(format!("an orientation that is {name}"), bytes, image.clone(), to));
    }
    cases
}

/// Animations, of which the first frame is read.
fn animations() -> Vec<Case> {
    let first = "the first frame is read";
    let image = models::image;
    let control = |number: u32, width: u32, left: u32| {
        let numbers = [number, width, 4, left, 0].map(u32::to_be_bytes).concat();
        chunk(b"fcTL", &[numbers, vec![0, 1, 0, 10, 0, 0]].concat())
    };
    let frames = |count: u32| chunk(b"acTL", &[count, 0].map(u32::to_be_bytes).concat());
    let pixels = chunk(b"IDAT", &zlib(&pixels()));
    let second = |data: &[u8]| chunk(b"fdAT", &[[0, 0, 0, 2].as_slice(), data].concat());
    let animated = |before: &[Vec<u8>], after: &[Vec<u8>]| {
        let (head, end) = (chunk(b"IHDR", &header(6, 4, 8, 2)), chunk(b"IEND", &[]));
        png(&[vec![head], before.to_vec(), vec![pixels.clone()], after.to_vec(), vec![end]].concat())
    };
    let white = zlib(&rows(18, &[255; 72]));
    let two = animated(&[frames(2), control(0, 6, 0)], &[control(1, 6, 0), second(&white)]);
    let cover = animated(&[frames(1)], &[control(0, 6, 0), second(&white)]);
    let broken = animated(&[frames(2), control(0, 6, 0)], &[control(1, 6, 0), second(b"no zlib stream")]);
    let none = animated(&[frames(0)], &[]);
    let many = animated(&[frames(u32::MAX), control(0, 6, 0)], &[]);
    let moving = |frames: &[Vec<u8>]| {
        let start = vec![canvas(2, 3, 2), webp_chunk(b"ANIM", &[0; 6])];
        webp(&[start, frames.to_vec()].concat())
    };
    vec![
        accepted("a PNG file of two frames", two, image(), first),
        accepted("a PNG file whose image is no frame", cover, image(), first),
        accepted("a PNG file whose second frame is damaged", broken, image(), first),
        accepted("an animated PNG file of no frames", none, image(), "it is an image"),
        accepted("an animated PNG file of four billion frames", many, image(), "it is an image"),
        refused("a PNG file whose first frame is smaller", animated(&[frames(2), control(0, 5, 0)], &[]), &[PNG]),
        refused("a PNG file whose first frame lies outside", animated(&[frames(2), control(0, 6, 1)], &[]), &[PNG]),
        refused("a PNG file whose first frame is the eighth", animated(&[frames(2), control(7, 6, 0)], &[]), &[PNG]),
        accepted("a WebP file of two frames", moving(&[frame(0), frame(0)]), lossless_colour(3, 2), first),
        refused("a WebP file whose first frame lies outside", moving(&[frame(2)]), &[WEBP]),
        refused("an animated WebP file of no frames", moving(&[]), &[WEBP]),
        refused("an animated WebP file without its settings", webp(&[canvas(2, 3, 2), frame(0)]), &[WEBP]),
        refused("a WebP file with a frame of nothing", moving(&[webp_chunk(b"ANMF", &[0; 24])]), &[WEBP]),
    ]
}

/// Sizes that callers give, and texts that are no hash.
fn sizes() -> Vec<Case> {
    let size = |name: &str, words: &[&str], run: fn(&Image) -> Result<Image, ImageError>| {
        Case::refused(name, words, nothing, move |_| said(run(&models::image())))
    };
    let hash = |name: &str, text: String| {
        let words = ["expected 64 lower-case hex digits"];
        Case::refused(name, &words, nothing, move |_| said(text.parse::<ContentHash>()))
    };
    vec![
        size("pixels of no columns", &["0x4", SIZE], |_| Image::from_rgb(0, 4, Vec::new())),
        size("pixels of 65537 columns", &["65537x1", SIZE], |_| Image::from_rgb(65_537, 1, vec![0; 65_537 * 3])),
        size("a number of pixels that no integer has", &[SIZE], |_| Image::from_rgb(usize::MAX, 2, Vec::new())),
        size("a byte too few for the pixels", &["has 72 bytes, got 71"], |_| Image::from_rgb(6, 4, vec![0; 71])),
        size("a filled image without rows", &["4x0", SIZE], |_| Image::filled(4, 0, [0; 3])),
        size("a filled image of 67 million columns", &["67108865x1", SIZE], |_| {
            Image::filled((1 << 26) + 1, 1, [0; 3])
        }),
        size("an image resized to nothing", &["the resized image is 0x0", SIZE], |image| {
            image.resize(0, 0, Filter::Lanczos)
        }),
        size("an image fitted to 9000x9000", &["the fitted image is 9000x9000", SIZE], |image| {
            image.fit(9000, 9000, Fit::Cover)
        }),
        size("a square of no side", &["the cropped image is 0x0", SIZE], |image| image.crop_square(0, Crop::Centre)),
        size("a part beyond the image", &["a part beyond the image"], |image| image.cropped(1, 0, 6, 4)),
        size("a part whose end no integer has", &["a part beyond the image"], |image| {
            image.cropped(usize::MAX, 0, 6, 4)
        }),
        size("a part without columns", &["a part of an image is 0x4", SIZE], |image| image.cropped(0, 0, 0, 4)),
        hash("a hash in upper case", "AB".repeat(32)),
        hash("a hash of 63 digits", "a".repeat(63)),
        hash("a hash that is a path", format!("../{}", "a".repeat(61))),
        hash("a hash of a million letters", "\u{e9}".repeat(1 << 19)),
    ]
}
