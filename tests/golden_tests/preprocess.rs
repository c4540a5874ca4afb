//! Image preprocessing, compared with Pillow, transformers and diffusers.

use fabric::core::image::{Crop, Filter, Fit, Image, clip_pixels, vae_pixels};

use super::harness::Golden;

/// Compares every preprocessing result in the file.
///
/// Resized images must be equal bit by bit: a difference of 1 in 255 already exceeds the tolerance.
#[test]
fn preprocess_equals_the_authors_code() {
    let golden = Golden::open("preprocess");
    for key in golden.keys() {
        let (case, what) = key.split_once('/').expect("CASE/WHAT");
        let image = image(&golden, &format!("{case}/image"));
        let (name, size) = what.split_once('_').unwrap_or((what, ""));
        let shape = golden.shape(&key);
        let got = match name {
            "image" => continue,
            "bicubic" => resized(&image, size, Filter::Bicubic),
            "lanczos" => resized(&image, size, Filter::Lanczos),
            "bilinear" => resized(&image, size, Filter::Bilinear),
            "vae" => {
                let (width, height) = image.size_in_multiples_of(8);
                let pixels = vae_pixels(&image, width, height, Fit::SquashLanczos).expect("a size that fits");
                strided(&pixels, width, height, &shape)
            }
            clip => {
                let size = clip.strip_prefix("clip").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{key}"));
                let pixels = clip_pixels(&image, size, Crop::Centre).expect("a size that fits");
                strided(&pixels, size, size, &shape)
            }
        };
        golden.compare_values(&key, &got);
    }
    golden.finish();
}

/// The reference images of FABRIC's authors' code: squashed to 512x512 by Pillow's default filter.
#[test]
fn reference_images_are_squashed_as_by_the_authors() {
    let golden = Golden::open("fabric");
    let image = image(&golden, "image_to_tensor/in");
    let pixels = vae_pixels(&image, 512, 512, Fit::Squash).expect("a size that fits");
    let shape = golden.shape("image_to_tensor/out_strided");
    let got = strided(&pixels, 512, 512, &shape);
    let expected = golden.values("image_to_tensor/out_strided");
    assert!(super::harness::relative_error(&got, &expected) < 1e-6);
}

fn image(golden: &Golden, key: &str) -> Image {
    let shape = golden.shape(key);
    let rgb = golden.values(key).into_iter().map(|value| value as u8).collect();
    Image::from_rgb(shape[1], shape[0], rgb).expect("the pixels of an image")
}

/// Resizes an image to the `HEIGHTxWIDTH` of a key; returns its bytes as numbers.
fn resized(image: &Image, size: &str, filter: Filter) -> Vec<f64> {
    let (height, width) = size.split_once('x').expect("HEIGHTxWIDTH");
    let number = |text: &str| text.parse::<usize>().expect("a number of pixels");
    let got = image.resize(number(width), number(height), filter).expect("a size that fits");
    got.rgb().iter().map(|value| f64::from(*value)).collect()
}

/// Takes every n-th pixel, where n is the ratio of our size to the golden tensor's.
fn strided(pixels: &[f32], width: usize, height: usize, shape: &[usize]) -> Vec<f64> {
    let stride = height.div_ceil(shape[1]);
    assert_eq!(
        [height.div_ceil(stride), width.div_ceil(stride)],
        shape[1..],
        "a golden of {width}x{height}, every {stride}th pixel"
    );
    let mut got = Vec::new();
    for plane in pixels.chunks_exact(width * height) {
        for row in plane.chunks_exact(width).step_by(stride) {
            got.extend(row.iter().step_by(stride).map(|value| f64::from(*value)));
        }
    }
    got
}
