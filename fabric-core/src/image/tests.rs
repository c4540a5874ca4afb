//! Tests with ordinary image files and with damaged or malicious ones.

use std::io::{self, Read};

use burn::tensor::{Device, Tensor, TensorData};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat};

use super::*;

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// Two pixels, red and blue, as a palette of two bits; written by Pillow.
const PALETTE: &str = "89504e470d0a1a0a0000000d4948445200000002000000010203000000894c97190000000c504c5445ff00000000ff00000000\
    000091c60cc30000000a4944415478da631000000012001108debdc30000000049454e44ae426082";

/// The same, with the red one transparent.
const PALETTE_ALPHA: &str = "89504e470d0a1a0a0000000d4948445200000002000000010203000000894c97190000000c504c5445ff00000000ff0000\
    0000000091c60cc30000000174524e530040e6d8660000000a4944415478da631000000012001108debdc30000000049454e44ae426082";

/// Black and white in one bit each; written by Pillow.
const ONE_BIT: &str = "89504e470d0a1a0a0000000d4948445200000002000000010100000000dc5942270000000a4944415478da6370000000420041\
    84bf8e620000000049454e44ae426082";

/// 3x2 pixels of (10, 200, 30), lossless WebP; written by Pillow.
const WEBP: &str = "524946461e000000574542505650384c110000002f024000000750e42ad4a3ff8188e87f0000";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn device() -> Device {
    fabric_backends::default_device().unwrap()
}

fn png(width: u32, height: u32, kind: ExtendedColorType, data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    PngEncoder::new(&mut file).write_image(data, width, height, kind).unwrap();
    file
}

/// An irregular pattern of colours.
fn noise(width: usize, height: usize) -> Image {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Image::from_rgb(width, height, (0..width * height * 3).map(|_| next()).collect()).unwrap()
}

#[test]
fn every_kind_of_pixel_becomes_8_bit_rgb() {
    let pixels = |file: &[u8]| Image::from_bytes(file).unwrap().rgb().to_vec();
    assert_eq!(pixels(&bytes(PALETTE)), [RED, BLUE].concat());
    assert_eq!(pixels(&bytes(ONE_BIT)), [0, 0, 0, 255, 255, 255]);
    assert_eq!(pixels(&bytes(WEBP)), [10, 200, 30].repeat(6));
    assert_eq!(pixels(&png(2, 1, ExtendedColorType::L8, &[7, 9])), [7, 7, 7, 9, 9, 9]);
    // 16 bits: a step of 8 bits is 257, so that 0x0180 is nearer to 1 than to 2.
    let sixteen: Vec<u8> = [0x0000_u16, 0x0180, 0xffff, 0x00ff, 0x1010, 0x0101].map(u16::to_ne_bytes).concat();
    assert_eq!(pixels(&png(2, 1, ExtendedColorType::Rgb16, &sixteen)), [0, 1, 255, 1, 16, 1]);
    assert_eq!(pixels(&png(2, 1, ExtendedColorType::L16, &sixteen[..4])), [0, 0, 0, 1, 1, 1]);
}

#[test]
fn alpha_is_dropped_and_shows_the_colour_beneath() {
    let clear = [200, 100, 50, 0];
    assert_eq!(Image::from_bytes(&png(1, 1, ExtendedColorType::Rgba8, &clear)).unwrap().rgb(), &clear[..3]);
    assert_eq!(Image::from_bytes(&png(1, 1, ExtendedColorType::La8, &[80, 0])).unwrap().rgb(), [80, 80, 80]);
    assert_eq!(Image::from_bytes(&bytes(PALETTE_ALPHA)).unwrap().rgb(), [RED, BLUE].concat());
}

#[test]
fn exif_orientation_is_applied() {
    // Orientation 6: the left side of the stored pixels is the top of the image.
    let exif = bytes("49492a0008000000010012010300010000000600000000000000");
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_exif_metadata(exif.clone()).unwrap();
    encoder.write_image(&[RED, BLUE].concat(), 2, 1, ExtendedColorType::Rgb8).unwrap();
    let image = Image::from_bytes(&file).unwrap();
    assert_eq!((image.width(), image.height()), (1, 2));
    assert_eq!([image.pixel(0, 0), image.pixel(0, 1)], [RED, BLUE]);

    let mut file = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut file, 100);
    encoder.set_exif_metadata(exif).unwrap();
    let row = [RED.repeat(16), BLUE.repeat(16)].concat();
    encoder.write_image(&row.repeat(16), 32, 16, ExtendedColorType::Rgb8).unwrap();
    let image = Image::from_bytes(&file).unwrap();
    assert_eq!((image.width(), image.height()), (16, 32));
    assert!(image.pixel(8, 2)[0] > 250 && image.pixel(8, 30)[2] > 250, "red on top, blue below");
}

#[test]
fn one_pixel_is_an_image_everywhere() {
    let one = Image::filled(1, 1, [10, 20, 30]).unwrap();
    assert_eq!(Image::from_bytes(&one.to_png_bytes().unwrap()).unwrap(), one);
    for fit in [Fit::Squash, Fit::SquashLanczos, Fit::Cover, Fit::Contain] {
        assert_eq!(one.fit(8, 8, fit).unwrap().rgb(), [10, 20, 30].repeat(64));
    }
    let crops = [Crop::Centre, Crop::Stretch, Crop::Pad, Crop::Top, Crop::Bottom, Crop::Left, Crop::Right];
    for crop in crops {
        assert_eq!(one.crop_square(5, crop).unwrap().rgb(), [10, 20, 30].repeat(25));
    }
    // Degenerate sizes work as well.
    let line = Image::filled(40_000, 1, RED).unwrap();
    for crop in crops {
        assert_eq!(line.crop_square(224, crop).unwrap().width(), 224);
    }
    for fit in [Fit::Squash, Fit::SquashLanczos, Fit::Cover, Fit::Contain] {
        assert_eq!(line.fit(64, 128, fit).unwrap().height(), 128);
    }
}

#[test]
fn a_file_cut_short_is_an_error_or_still_whole() {
    let image = noise(24, 16);
    let mut jpeg = Vec::new();
    JpegEncoder::new(&mut jpeg).write_image(image.rgb(), 24, 16, ExtendedColorType::Rgb8).unwrap();
    for file in [image.to_png_bytes().unwrap(), jpeg, bytes(WEBP)] {
        let whole = Image::from_bytes(&file).unwrap();
        for length in 0..file.len() {
            if let Ok(got) = Image::from_bytes(&file[..length]) {
                assert_eq!(got, whole, "{length} of {} bytes", file.len());
            }
        }
        assert!(Image::from_bytes(&file[..file.len() / 2]).is_err());
    }
}

#[test]
fn damaged_files_never_panic() {
    let image = noise(24, 16);
    let mut jpeg = Vec::new();
    JpegEncoder::new(&mut jpeg).write_image(image.rgb(), 24, 16, ExtendedColorType::Rgb8).unwrap();
    let mut refused = 0;
    for file in [image.to_png_bytes().unwrap(), jpeg, bytes(WEBP), bytes(PALETTE)] {
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] ^= flip;
                refused += usize::from(Image::from_bytes(&damaged).is_err());
            }
        }
    }
    assert!(refused > 1000, "checksums tell: {refused}");
}

#[test]
fn what_is_no_image_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(matches!(Image::open(at("missing.png")), Err(ImageError::Read { .. })));
    assert!(matches!(Image::open(folder.path()), Err(ImageError::NotAFile { got: "a directory", .. })));
    std::fs::write(at("empty.png"), []).unwrap();
    assert!(matches!(Image::open(at("empty.png")), Err(ImageError::Format { .. })));
    std::fs::write(at("text.png"), "not an image").unwrap();
    let error = Image::open(at("text.png")).unwrap_err().to_string();
    assert!(error.contains("text.png") && error.contains("6e 6f 74 20"), "{error}");
    assert!(matches!(Image::from_bytes(b"GIF89a\x01\0\x01\0\0\0\0"), Err(ImageError::Format { .. })));
    std::fs::File::create(at("long.png")).unwrap().set_len(1 << 30).unwrap();
    assert!(matches!(Image::open(at("long.png")), Err(ImageError::FileSize { .. })));
}

/// A file of zeros without end that counts the bytes that are read from it.
struct Zeros {
    count: usize,
}

impl Read for Zeros {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        to.fill(0);
        self.count += to.len();
        Ok(to.len())
    }
}

#[test]
fn a_file_that_is_no_image_is_not_read_to_its_end() {
    let mut file = Zeros { count: 0 };
    let error = decode::read_bytes("zeros.png", &mut file).unwrap_err();
    assert!(matches!(&error, ImageError::Format { place, .. } if place == "`zeros.png`"), "{error}");
    assert!(file.count < 1000, "{} bytes", file.count);
}

#[test]
fn a_colour_profile_of_far_more_bytes_than_the_image_is_left_out() {
    let image = noise(6, 4);
    let png = image.to_png_bytes().unwrap();
    let with_profile = |bytes: usize| {
        let profile = [b"profile\0\0".as_slice(), &fdeflate::compress_to_vec(&vec![0; bytes])].concat();
        let (head, pixels) = png.split_at(33);
        [head, &chunk(b"iCCP", &profile), pixels].concat()
    };
    for (bytes, is_kept) in [(1 << 20, true), (80 << 20, false)] {
        let file = with_profile(bytes);
        assert!(file.len() < 1 << 20, "{} bytes", file.len());
        let profile = decode::decoder(ImageFormat::Png, &file).unwrap().icc_profile().unwrap();
        assert_eq!(profile.is_some(), is_kept, "{bytes} bytes");
        assert_eq!(Image::from_bytes(&file).unwrap(), image);
    }
}

#[test]
fn a_decompression_bomb_is_refused_before_it_goes_off() {
    for (width, height) in [(60_000_u32, 60_000_u32), (1 << 20, 1), (9000, 9000)] {
        let got = Image::from_bytes(&png_header(width, height)).unwrap_err();
        assert!(matches!(got, ImageError::Size { .. }), "{width}x{height}: {got}");
    }
    // The size counts before anything that stands in front of the pixels.
    let header = &png_header(60_000, 60_000)[..33];
    let unread = [header, &chunk(b"iCCP", b"profile\0\0no zlib stream"), b"and no chunk"].concat();
    assert!(matches!(Image::from_bytes(&unread), Err(ImageError::Size { .. })));
    // A side of 0, and a valid size whose pixels are missing.
    assert!(Image::from_bytes(&png_header(0, 5)).is_err());
    assert!(matches!(Image::from_bytes(&png_header(8000, 8000)), Err(ImageError::Corrupt { .. })));
}

/// A PNG file of the given size that ends where its pixels should begin.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = bytes("89504e470d0a1a0a0000000d");
    let body = [b"IHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    file.extend([body.as_slice(), &crc(&body).to_be_bytes(), &bytes("0000000a4944415478da")].concat());
    file
}

/// A chunk of a PNG file with its length and checksum.
fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [name.as_slice(), data].concat();
    [(data.len() as u32).to_be_bytes().as_slice(), &body, &crc(&body).to_be_bytes()].concat()
}

/// The checksum of a PNG chunk.
fn crc(body: &[u8]) -> u32 {
    !body.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_decoder_that_panics_is_an_error_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("palette.png");
    // Pixels 0 to 3 in four rows, as the bytes of an uncompressed zlib stream with its checksum.
    let pixels = bytes("7801011400ebff000001020300000102030000010203000001020300f00019");
    let whole = chunk(b"tRNS", &[5]);
    for alpha in [&[][..], &whole] {
        for length in [1, 2, 4, 5, 7, 766, 767] {
            let file = [
                bytes("89504e470d0a1a0a"),
                chunk(b"IHDR", &bytes("00000004000000040803000000")),
                chunk(b"PLTE", &vec![1; length]),
                alpha.to_vec(),
                chunk(b"IDAT", &pixels),
                chunk(b"IEND", &[]),
            ];
            std::fs::write(&path, file.concat()).unwrap();
            let got = Image::open(&path).unwrap_err();
            assert!(matches!(got, ImageError::Corrupt { format: "PNG", .. }), "{length}: {got}");
            assert!(got.to_string().contains("palette.png"), "{got}");
        }
    }
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(matches!(Image::from_rgb(0, 3, Vec::new()), Err(ImageError::Size { .. })));
    assert!(matches!(Image::from_rgb(usize::MAX, usize::MAX, Vec::new()), Err(ImageError::Size { .. })));
    assert!(matches!(Image::from_rgb(2, 2, vec![0; 11]), Err(ImageError::Length { expected: 12, got: 11, .. })));
    let image = noise(4, 4);
    assert!(image.resize(0, 4, Filter::Bicubic).is_err());
    assert!(image.fit(4, usize::MAX, Fit::Cover).is_err());
    assert!(clip_pixels(&image, 0, Crop::Pad).is_err());
    assert!(vae_pixels(&image, 100_000, 100_000, Fit::Squash).is_err());
    assert!(contact_sheet(&[], 4).is_err());
    assert!(contact_sheet(&[vec![(&image, Mark::None)]], usize::MAX).is_err());
}

#[test]
fn saved_images_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let image = noise(20, 13);
    let png = folder.path().join("a.PNG");
    image.save(&png).unwrap();
    assert_eq!(Image::open(&png).unwrap(), image);
    let smooth = Image::filled(16, 16, [90, 120, 60]).unwrap();
    smooth.save(folder.path().join("b.jpeg")).unwrap();
    let got = Image::open(folder.path().join("b.jpeg")).unwrap();
    assert!(got.rgb().iter().zip(smooth.rgb()).all(|(a, b)| a.abs_diff(*b) <= 2));
    assert!(matches!(image.save(folder.path().join("c.gif")), Err(ImageError::Extension { .. })));
    assert!(matches!(image.save(folder.path().join("no/such/c.png")), Err(ImageError::Write { .. })));
    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2, "nothing is left beside them");
}

#[test]
fn a_hash_names_size_and_pixels() {
    let wide = Image::from_rgb(2, 1, vec![1; 6]).unwrap();
    let tall = Image::from_rgb(1, 2, vec![1; 6]).unwrap();
    assert_ne!(wide.content_hash(), tall.content_hash());
    // Frozen, because it names files. SHA-256 of two u64 (little-endian) and the pixels.
    let text = wide.content_hash().to_string();
    assert_eq!(text, "9dd4fb3b1127fa01204bd02c4c42f7068cad5566929ffb8afbf5a216a5cb0fb2");
    assert_eq!(text.parse::<ContentHash>().unwrap(), wide.content_hash());
    let bad = ["", "../../etc/passwd", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"é".repeat(32)];
    for bad in bad {
        assert!(bad.parse::<ContentHash>().is_err(), "{bad}");
    }
}

#[test]
fn the_same_size_is_the_same_image() {
    let image = noise(9, 7);
    for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
        assert_eq!(image.resize(9, 7, filter).unwrap(), image);
        // Check that this is not only due to the short cut.
        assert_eq!(image.resample(resize::Axis::whole(9), resize::Axis::whole(7), filter), image);
    }
}

#[test]
fn a_window_is_cut_from_the_whole() {
    let image = noise(31, 47);
    let whole = image.resize(40, 60, Filter::Bicubic).unwrap();
    let x = resize::Axis { full: 40, start: 3, len: 11 };
    let y = resize::Axis { full: 60, start: 20, len: 7 };
    let window = image.resample(x, y, Filter::Bicubic);
    for (column, row) in (0..11).flat_map(|column| (0..7).map(move |row| (column, row))) {
        assert_eq!(window.pixel(column, row), whole.pixel(column + 3, row + 20));
    }
}

#[test]
fn crops_look_where_they_say() {
    // Red, green and blue thirds of an image that is three squares wide.
    let row = [RED.repeat(8), [0, 255, 0].repeat(8), BLUE.repeat(8)].concat();
    let wide = Image::from_rgb(24, 8, row.repeat(8)).unwrap();
    let middle = |crop| wide.crop_square(8, crop).unwrap().pixel(4, 4);
    assert_eq!(middle(Crop::Left), RED);
    assert_eq!(middle(Crop::Centre), [0, 255, 0]);
    assert_eq!(middle(Crop::Right), BLUE);
    assert_eq!(middle(Crop::Top), [0, 255, 0]);
    let padded = wide.crop_square(24, Crop::Pad).unwrap();
    assert_eq!([padded.pixel(2, 2), padded.pixel(2, 12), padded.pixel(22, 12)], [[0; 3], RED, BLUE]);
    assert_eq!(wide.fit(8, 8, Fit::Cover).unwrap().pixel(4, 4), [0, 255, 0]);
    assert_eq!(wide.fit(24, 24, Fit::Contain).unwrap(), padded);
    let squashed = wide.fit(9, 9, Fit::Squash).unwrap();
    assert_eq!([squashed.pixel(0, 4), squashed.pixel(8, 4)], [RED, BLUE]);
}

#[test]
fn pixels_survive_the_way_to_a_vae_and_back() {
    let images = [noise(16, 8), Image::filled(16, 8, [0, 255, 128]).unwrap()];
    let pixels = vae_batch(&images, 16, 8, Fit::Squash, &device()).unwrap();
    assert_eq!(pixels.dims(), [2, 3, 8, 16]);
    assert_eq!(from_tensor(pixels).unwrap(), images);
    assert!(from_tensor(Tensor::zeros([0, 3, 8, 8], &device())).unwrap().is_empty());
}

#[test]
fn decoded_values_are_cut_off_and_rounded_half_to_even() {
    // (x / 2 + 0.5) * 255: 64.5 goes to 64, 65.5 to 66, 127.5 to 128; in f32 these are exact halves.
    let values = vec![-7.0_f32, -0.494_117_65, -0.486_274_5, 0.0, 1.0, 9.0];
    let pixels = Tensor::from_data(TensorData::new(values, [1, 3, 1, 2]), &device());
    assert_eq!(from_tensor(pixels).unwrap()[0].rgb(), [0, 66, 255, 64, 128, 255]);
}

#[test]
fn a_nan_is_an_error_and_not_a_black_image() {
    let mut values = vec![0.0_f32; 2 * 3 * 4];
    values[13] = f32::NAN;
    values[14] = f32::INFINITY;
    let pixels = Tensor::from_data(TensorData::new(values, [2, 3, 2, 2]), &device());
    let got = from_tensor(pixels).unwrap_err();
    assert!(matches!(got, ImageError::NotFinite { index: 1, got: 2, total: 12 }), "{got}");
}

#[test]
fn a_contact_sheet_frames_what_was_judged() {
    let (large, small) = (Image::filled(10, 6, BLUE).unwrap(), Image::filled(4, 4, BLUE).unwrap());
    let rows = [vec![(&large, Mark::Liked), (&small, Mark::None)], vec![(&large, Mark::Disliked)]];
    let sheet = contact_sheet(&rows, 4).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (4 * 3 + 20, 4 * 3 + 12));
    let paper = sheet.pixel(0, 0);
    assert_eq!([sheet.pixel(4, 4), sheet.pixel(13, 9), sheet.pixel(4 + 10 + 4 + 3, 4 + 1)], [BLUE; 3]);
    assert!(sheet.pixel(2, 2)[1] > 150 && sheet.pixel(2, 2)[0] < 100, "a green frame in the gap");
    assert!(sheet.pixel(2, 12)[0] > 150 && sheet.pixel(2, 12)[1] < 100, "a red frame in the gap");
    assert_eq!([sheet.pixel(1, 1), sheet.pixel(20, 4), sheet.pixel(31, 23)], [paper; 3]);
}
