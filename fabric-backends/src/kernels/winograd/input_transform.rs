//! Transform of the input tiles.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::points::{INPUTS, OUTPUTS, load, of_input, store};
use super::{ACROSS, LANES, PLACES, Tiles};
use crate::kernels::conv::Conv;
use crate::kernels::shared::Shared;

/// Transforms the input tiles of some channels; writes panels of `[channels, tiles]` for each place.
pub(super) struct InputTransform<'a> {
    pub(super) conv: &'a Conv,
    pub(super) tiles: &'a Tiles,
    pub(super) x: &'a [f32],
    pub(super) channels: Range<usize>,
    pub(super) buffer: &'a mut [f32],
    pub(super) to: &'a Shared<'a>,
}

impl WithSimd for InputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { conv, tiles, x, channels, buffer, to } = self;
        let (inputs, lanes) = (conv.windows.channels, S::F32_LANES);
        let vectors = tiles.count().div_ceil(lanes);
        for first in (0..vectors).step_by(ACROSS) {
            let width = ACROSS.min(vectors - first) * lanes;
            let run = channels.len() * width;
            for (at, channel) in channels.clone().enumerate() {
                for column in (0..width).step_by(lanes) {
                    let apart = pixels_apart(conv, tiles, x, channel, first * lanes + column, lanes);
                    let mut rows = [[simd.splat_f32s(0.0); INPUTS]; INPUTS];
                    for right in 0..INPUTS {
                        let column = std::array::from_fn(
                            #[inline(always)]
                            |down| load(simd, &apart[down][right]),
                        );
                        for (row, x) in rows.iter_mut().zip(of_input(simd, column)) {
                            row[right] = x;
                        }
                    }
                    for (row, buffer) in rows.into_iter().zip(buffer.chunks_exact_mut(INPUTS * run)) {
                        for (x, buffer) in of_input(simd, row).into_iter().zip(buffer.chunks_exact_mut(run)) {
                            store::<S>(&mut buffer[at * width + column..], x);
                        }
                    }
                }
            }
            for (at, buffer) in buffer.chunks_exact(run).take(PLACES).enumerate() {
                let to_at = (at * vectors + first) * lanes * inputs + channels.start * width;
                #[allow(unsafe_code, reason = "channels of a panel interleave")]
                // SAFETY: no other task accesses these channels.
                unsafe { to.part(to_at..to_at + run) }.copy_from_slice(buffer);
            }
        }
    }
}

/// Returns the pixels of a channel that a vector of tiles reads: six lines of six pixels, each as a vector over
/// the tiles. Pixels outside the image are 0; lanes beyond the last tile are unspecified.
#[inline(always)]
fn pixels_apart(
    conv: &Conv,
    tiles: &Tiles,
    x: &[f32],
    channel: usize,
    first: usize,
    lanes: usize,
) -> [[[f32; LANES]; INPUTS]; INPUTS] {
    let [height, width] = conv.windows.input;
    let mut apart = [[[0.0_f32; LANES]; INPUTS]; INPUTS];
    let end = tiles.count().min(first + lanes);
    let mut tile = first;
    while tile < end {
        let (row, column) = (tile / tiles.across, tile % tiles.across);
        let run = (end - tile).min(tiles.across - column);
        let (image, top) = tiles.row(tiles.rows.start + row);
        let plane = &x[(image * conv.windows.channels + channel) * height * width..][..height * width];
        let left = column * OUTPUTS;
        for (at, apart) in apart.iter_mut().enumerate() {
            let mut line = [0.0_f32; LANES * OUTPUTS + 2];
            if let Some(number) = (top + at).checked_sub(1).filter(|number| *number < height) {
                let pixels = &plane[number * width..][..width];
                let begin = left.saturating_sub(1);
                let end = width.min(left + run * OUTPUTS + 1);
                line[begin + 1 - left..][..end - begin].copy_from_slice(&pixels[begin..end]);
            }
            for (to, line) in (tile - first..LANES).zip(line.windows(INPUTS).step_by(OUTPUTS)).take(run) {
                for (apart, x) in apart.iter_mut().zip(line) {
                    apart[to] = *x;
                }
            }
        }
        tile += run;
    }
    apart
}
