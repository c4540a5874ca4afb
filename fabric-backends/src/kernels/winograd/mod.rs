//! Convolutions with a kernel of 3x3, a stride of 1 and a padding of 1, by Winograd's F(4x4, 3x3) (Lavin and Gray 2016):
//! a tile of 4x4 outputs takes 36 products per pair of channels instead of 144.
//!
//! Tiles of the input and kernels are brought to 36 places each ([`input_transform`], [`kernels`]); at each place all channels are
//! one product of matrices ([`multiply`]); and from the sums there come the outputs ([`output_transform`]).

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

/// Places at which tiles and kernels are multiplied.
const PLACES: usize = INPUTS * INPUTS;

/// Numbers of a kernel.
const TAPS: usize = 9;

/// Output channels that are worked on at once, where there are 32 registers; half of them where there are 16.
const CHANNELS: usize = 8;

/// Numbers of each of the three matrices over all places that are kept at once, about: what the last cache may hold.
const CACHED: usize = 4 << 20;

/// The longest vector of any processor.
const LANES: usize = 16;

/// Input channels of a task, whose values it gathers before it writes them: memory takes long runs far faster than one
/// line here and one there.
const TOGETHER: usize = 8;

/// Tiles of an image from which on this is faster: the kernels have to be transformed on each call.
const MANY_TILES: usize = 64;

/// Channels from which on this is faster.
const MANY_CHANNELS: usize = 64;

#[cfg(test)]
mod tests;

/// Rows of tiles that are worked on at once: those of all images are numbered through.
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

    /// The image of a row, and its first pixel's line there.
    fn row(&self, number: usize) -> (usize, usize) {
        (number / self.down, number % self.down * OUTPUTS)
    }
}

impl Conv {
    /// Whether this is a convolution for this file. Whatever the number of images, so that an image's result is the
    /// same in every batch.
    pub(super) fn is_winograd(&self) -> bool {
        let tiles = self.windows.output.map(|length| length.div_ceil(OUTPUTS));
        self.windows.is_same_3x3()
            && self.windows.channels.min(self.outputs) >= MANY_CHANNELS
            && tiles[0] * tiles[1] >= MANY_TILES
    }

    /// `out[n, o] = Σ weight[o] · windows(x[n]) + bias[o]`, tile by tile.
    pub(super) fn by_tiles(&self, arch: pulp::Arch, (x, weight, bias): (&[f32], &[f32], &[f32]), out: &Shared<'_>) {
        let inputs = self.windows.channels;
        let [down, across] = self.windows.output.map(|length| length.div_ceil(OUTPUTS));
        let rows = x.len() / (inputs * self.windows.input_area()) * down;
        // As many as are kept at once, and as even as can be.
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
