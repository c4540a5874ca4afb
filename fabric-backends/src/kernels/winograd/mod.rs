//! Convolutions with a 3x3 kernel, stride 1 and padding 1, by Winograd's F(4x4, 3x3) (Lavin and Gray 2016): a
//! tile of 4x4 outputs takes 36 multiplications per pair of channels instead of 144.
//!
//! [`input_transform`] and [`kernels`] transform input tiles and kernels to 6x6 elements, called places here.
//! At each place, one matrix product sums over all channels ([`multiply`]). [`output_transform`] turns these
//! sums into outputs.

mod input_transform;
mod kernels;
mod multiply;
mod output_transform;
mod points;

use std::ops::Range;

use rayon::prelude::*;

use super::conv::{Conv, with_scratch};
use super::panels::ACROSS;
use super::shared::Shared;
use input_transform::InputTransform;
use kernels::Kernels;
use multiply::Multiply;
use output_transform::OutputTransform;
use points::{INPUTS, OUTPUTS};

/// Places of a transformed tile or kernel.
const PLACES: usize = INPUTS * INPUTS;

/// Elements of a kernel.
const TAPS: usize = 9;

/// Output channels that are processed at a time with 32 registers; half as many with 16.
const CHANNELS: usize = 8;

/// Approximate number of values that each of the three transformed matrices may have at a time: what the
/// last-level cache may hold.
const CACHED: usize = 4 << 20;

/// Lanes of the longest vector of any processor.
const LANES: usize = 16;

/// Input channels per task. The task buffers their values before it writes them, because memory takes long runs
/// much faster than scattered cache lines.
const TOGETHER: usize = 8;

/// Minimum number of tiles per image for which this is faster, since the kernels are transformed on each call.
const MANY_TILES: usize = 64;

/// Minimum number of channels for which this is faster.
const MANY_CHANNELS: usize = 64;

#[cfg(test)]
mod tests;

/// Rows of tiles that are processed together, numbered across all images.
#[derive(Debug, Clone)]
struct Tiles {
    rows: Range<usize>,
    /// Tiles of an image along its height and width.
    down: usize,
    across: usize,
}

impl Tiles {
    fn count(&self) -> usize {
        self.rows.len() * self.across
    }

    /// Returns the image of a row of tiles, and the row's first line of pixels in that image.
    fn row(&self, number: usize) -> (usize, usize) {
        (number / self.down, number % self.down * OUTPUTS)
    }
}

impl Conv {
    /// Whether this convolution uses the Winograd kernels. The number of images does not matter, so that an
    /// image has the same result in every batch.
    pub(super) fn is_winograd(&self) -> bool {
        let tiles = self.windows.output.map(|length| length.div_ceil(OUTPUTS));
        self.windows.is_same_3x3()
            && self.windows.channels.min(self.outputs) >= MANY_CHANNELS
            && tiles[0] * tiles[1] >= MANY_TILES
    }

    /// Computes `out[n, o] = Σ weight[o] · windows(x[n]) + bias[o]`, tile by tile.
    pub(super) fn by_tiles(&self, arch: pulp::Arch, (x, weight, bias): (&[f32], &[f32], &[f32]), out: &Shared<'_>) {
        let inputs = self.windows.channels;
        let [down, across] = self.windows.output.map(|length| length.div_ceil(OUTPUTS));
        let rows = x.len() / (inputs * self.windows.input_area()) * down;
        // As many as may be processed together, in parts of nearly equal size.
        let even = |all: usize, most: usize| all.div_ceil(all.div_ceil(most.max(1)));
        let together = even(rows, CACHED / (PLACES * inputs.max(self.outputs) * across));
        let outputs = even(self.outputs, CACHED / (PLACES * inputs)).next_multiple_of(CHANNELS);
        for first in (0..rows).step_by(together) {
            let tiles = &Tiles { rows: first..rows.min(first + together), down, across };
            let columns = tiles.count().next_multiple_of(LANES);
            let lengths = [inputs * columns, outputs * inputs, outputs * columns].map(|length| PLACES * length);
            with_scratch([lengths[0], lengths[1] + lengths[2]], |transformed, rest| {
                let (kernels, sums) = rest.split_at_mut(lengths[1]);
                let to = &Shared::new(transformed);
                (0..inputs).into_par_iter().step_by(TOGETHER).for_each(|first| {
                    let channels = first..inputs.min(first + TOGETHER);
                    with_scratch([PLACES * TOGETHER * ACROSS * LANES, 0], |buffer, _| {
                        arch.dispatch(InputTransform { conv: self, tiles, x, channels, buffer, to });
                    });
                });
                for first in (0..self.outputs).step_by(outputs) {
                    let to = &Shared::new(kernels);
                    let outputs = first..self.outputs.min(first + outputs);
                    outputs.clone().into_par_iter().step_by(CHANNELS).for_each(|channel| {
                        with_scratch([PLACES * kernels::TAKEN * CHANNELS, 0], |buffer, _| {
                            let all = outputs.len().next_multiple_of(CHANNELS);
                            let outputs = first..channel;
                            arch.dispatch(Kernels { conv: self, weight, outputs, all, buffer, to });
                        });
                    });
                    let to = &Shared::new(sums);
                    let (transformed, kernels) = (&*transformed, &*kernels);
                    (0..PLACES).into_par_iter().for_each(|place| {
                        let sizes = [outputs.len(), inputs, tiles.count()];
                        arch.dispatch(Multiply { place, sizes, transformed, kernels, to });
                    });
                    let sums = &*sums;
                    outputs.clone().into_par_iter().step_by(CHANNELS).for_each(|channel| {
                        let outputs = first..channel;
                        arch.dispatch(OutputTransform { conv: self, tiles, sums, bias, outputs, out });
                    });
                }
            });
        }
    }
}
