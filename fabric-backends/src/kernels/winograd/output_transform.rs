//! Transform of the sums at all places into outputs.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::points::{INPUTS, OUTPUTS, load, of_sums, store};
use super::{ACROSS, CHANNELS, LANES, PLACES, Tiles};
use crate::kernels::conv::Conv;
use crate::kernels::shared::Shared;

/// Computes [`CHANNELS`] output channels of all tiles from their sums at all places.
pub(super) struct OutputTransform<'a> {
    pub(super) conv: &'a Conv,
    pub(super) tiles: &'a Tiles,
    pub(super) sums: &'a [f32],
    pub(super) bias: &'a [f32],
    /// Start: the first output channel in `sums`. End: the first output channel of this task.
    pub(super) outputs: Range<usize>,
    pub(super) out: &'a Shared<'a>,
}

impl WithSimd for OutputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let first = self.outputs.end;
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, CHANNELS>(simd, first);
        } else {
            self.run::<S, { CHANNELS / 2 }>(simd, first);
            self.run::<S, { CHANNELS / 2 }>(simd, first + CHANNELS / 2);
        }
    }
}

impl OutputTransform<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(&self, simd: S, first: usize) {
        let lanes = S::F32_LANES;
        let vectors = self.tiles.count().div_ceil(lanes);
        let block = &self.sums[(first - self.outputs.start) * PLACES * vectors * lanes..];
        for panel in (0..vectors).step_by(ACROSS) {
            let width = ACROSS.min(vectors - panel) * lanes;
            let sums = &block[panel * lanes * PLACES * N..][..width * PLACES * N];
            for (at, output) in (first..self.conv.outputs.min(first + N)).enumerate() {
                let bias = simd.splat_f32s(if self.bias.is_empty() { 0.0 } else { self.bias[output] });
                for column in (0..width).step_by(lanes) {
                    let mut rows = [[simd.splat_f32s(0.0); INPUTS]; OUTPUTS];
                    for right in 0..INPUTS {
                        let column = std::array::from_fn(
                            #[inline(always)]
                            |down| load(simd, &sums[((down * INPUTS + right) * N + at) * width + column..]),
                        );
                        for (row, x) in rows.iter_mut().zip(of_sums(simd, column)) {
                            row[right] = x;
                        }
                    }
                    let mut apart = [[[0.0_f32; LANES]; OUTPUTS]; OUTPUTS];
                    for (apart, row) in apart.iter_mut().zip(rows) {
                        for (apart, x) in apart.iter_mut().zip(of_sums(simd, row)) {
                            store::<S>(apart, simd.add_f32s(x, bias));
                        }
                    }
                    self.write(output, panel * lanes + column, lanes, &apart);
                }
            }
        }
    }

    /// Writes the tiles of a vector to a channel: four lines of four pixels, each as a vector over the tiles.
    #[inline(always)]
    fn write(&self, output: usize, first: usize, lanes: usize, apart: &[[[f32; LANES]; OUTPUTS]; OUTPUTS]) {
        let [height, width] = self.conv.windows.output;
        let end = self.tiles.count().min(first + lanes);
        let mut tile = first;
        while tile < end {
            let (row, column) = (tile / self.tiles.across, tile % self.tiles.across);
            let run = (end - tile).min(self.tiles.across - column);
            let (image, top) = self.tiles.row(self.tiles.rows.start + row);
            let plane = (image * self.conv.outputs + output) * height * width;
            let left = column * OUTPUTS;
            let pixels = (run * OUTPUTS).min(width - left);
            for (apart, line) in apart.iter().zip(top..height) {
                let to = plane + line * width + left;
                #[allow(unsafe_code, reason = "channels of an image are shared out")]
                // SAFETY: no other task accesses this channel.
                let to = unsafe { self.out.part(to..to + pixels) };
                let (whole, rest) = to.as_chunks_mut::<OUTPUTS>();
                let from = tile - first;
                for (from, to) in (from..LANES).zip(whole.iter_mut()) {
                    *to = [apart[0][from], apart[1][from], apart[2][from], apart[3][from]];
                }
                for (to, apart) in rest.iter_mut().zip(apart) {
                    *to = apart[from + whole.len()];
                }
            }
            tile += run;
        }
    }
}
