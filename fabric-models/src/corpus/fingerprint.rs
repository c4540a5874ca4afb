//! Identity of an encoder: its embeddings of a few fixed images.
//!
//! Embeddings depend on all weights, on the configuration and on the preprocessing, so their change shows a change of
//! any of these, also for encoders of other programs. A hash of the weights would not cover the preprocessing.

use fabric_core::image::Image;
use fabric_core::{Error, InvalidValue};

use super::embedder::embed;
use super::rows::Row;
use super::{CorpusError, ImageEmbedder};

/// Distance between normalised embeddings below which they count as equal. Devices, kernels and 16-bit weights round
/// differently, so the bits cannot be compared; an index is then used whose embeddings differ by this rounding.
/// Products in bf16 (`FABRIC_MATMUL=bf16`) move embeddings by up to 0.01, half of this tolerance.
const TOLERANCE: f64 = 0.02;

/// Number of fixed images.
pub(super) const PROBE_COUNT: usize = 3;

/// Returns the normalised embeddings of the fixed images.
pub(super) fn fingerprint(encoder: &dyn ImageEmbedder) -> Result<Vec<Row>, CorpusError> {
    let rows = embed(encoder, &probes(), None)?;
    let finite: Option<Vec<Row>> = rows.into_iter().collect();
    finite.ok_or_else(|| {
        let help = "the weights are damaged, or the encoder overflows: get the file again, or run it in f32";
        let value = InvalidValue::new("embedding of a test image", "NaN or infinity", "finite numbers", help);
        CorpusError::Encoder(Error::Settings(value))
    })
}

/// Returns whether two fingerprints are those of one encoder, apart from rounding.
pub(super) fn is_same_encoder(a: &[Row], b: &[Row]) -> bool {
    let is_near = |(a, b): (&Row, &Row)| {
        let squares = a.iter().zip(b.iter()).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2));
        a.len() == b.len() && squares.sum::<f64>().sqrt() <= TOLERANCE
    };
    a.len() == b.len() && a.iter().zip(b).all(is_near)
}

/// Returns the fixed images: a gradient, large squares, and noise. They are not square, so that cropping shows.
fn probes() -> [Image; PROBE_COUNT] {
    [gradient(320, 240), squares(240, 320, 40), squares(448, 256, 2)]
}

/// Returns an image with red from left to right and green from top to bottom.
fn gradient(width: usize, height: usize) -> Image {
    let pixel = |at: usize| [(at % width * 255 / width) as u8, (at / width * 255 / height) as u8, 0];
    image(width, height, (0..width * height).flat_map(pixel).collect())
}

/// Returns an image of squares of pseudo-random colours.
fn squares(width: usize, height: usize, side: usize) -> Image {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let (columns, rows) = (width.div_ceil(side), height.div_ceil(side));
    let colours: Vec<[u8; 3]> = (0..columns * rows).map(|_| [byte(), byte(), byte()]).collect();
    let pixel = |at: usize| colours[(at / width / side) * columns + (at % width) / side];
    image(width, height, (0..width * height).flat_map(pixel).collect())
}

fn image(width: usize, height: usize, rgb: Vec<u8>) -> Image {
    Image::from_rgb(width, height, rgb).expect("three bytes for each pixel of a valid size")
}
