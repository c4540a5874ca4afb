//! Convolutions with a 3x3 kernel, stride 1 and padding 1, without unfolding the windows: in the memory layout
//! of [`Strip`], each kernel tap is a product of tiles at a constant offset.

use rayon::prelude::*;

use super::pack::{Matrix, Rows, block, interleave, length, pack, pack_tile, panel, positions};
use super::product::with_words;
use super::tiles::{Factor, Sums, with_tiles};
use super::{BLOCK, DEPTH, TILE, is_on};
use crate::kernels::conv::{Conv, Part, with_scratch};
use crate::kernels::direct::{Strip, TAPS};
use crate::kernels::lanes::{add_up, total, vectorised};
use crate::kernels::shared::Shared;

/// Number of channels below which most of a tile would be empty.
const MANY_CHANNELS: usize = 16;

/// Approximate number of values in the images of a part: what the L2 cache holds beside the weights.
const CACHED: usize = 1 << 18;

/// Maximum number of separate partial sums of the weight gradient, independent of the number of threads.
const SUMS: usize = 16;

/// Size of a weight from which there is only one sum, whose blocks of output channels occupy all threads.
const LARGE: usize = 1 << 18;

impl Conv {
    /// Whether this convolution is computed in bf16.
    pub(in crate::kernels) fn is_tiled(&self) -> bool {
        is_on() && self.has_tiles()
    }

    /// Whether these kernels can compute this convolution, and fast.
    pub(super) fn has_tiles(&self) -> bool {
        self.windows.is_same_3x3() && self.windows.channels.min(self.outputs) >= MANY_CHANNELS
    }

    /// Splits the output into parts of about as many pixels as are worth a task.
    fn tiled_parts(&self, x: &[f32]) -> Vec<Part> {
        self.parts_of(x, (CACHED / self.windows.channels.max(self.outputs)).clamp(256, 2048))
    }

    /// Computes `out[n, o] = Σ weight[o] · windows(x[n]) + bias[o]`; an empty slice means no bias.
    pub(in crate::kernels) fn forward_tiled(&self, (x, weight, bias): (&[f32], &[f32], &[f32]), out: &Shared<'_>) {
        let channels = self.windows.channels;
        let size = [self.outputs, channels];
        // One packed matrix `[outputs, channels]` for each tap.
        let mut weights = vec![0_u32; TAPS * length(size)];
        weights.par_chunks_exact_mut(length(size)).enumerate().for_each(|(tap, to)| {
            let matrix = Matrix { numbers: &weight[tap..], outer: channels * TAPS, depth: TAPS };
            pack(matrix, size, Rows::Outer, to);
        });
        self.tiled_parts(x).par_iter().for_each(|part| self.tiled_part(x, &weights, bias, part, out));
    }

    /// Computes one part of the result.
    fn tiled_part(&self, x: &[f32], weights: &[u32], bias: &[f32], part: &Part, out: &Shared<'_>) {
        let strip = Strip::of(self, part);
        let (channels, area, outputs) = (self.windows.channels, self.windows.area(), self.outputs);
        let shifts = strip.shifts();
        // A word has two channels of one place, which is where a tile has its depth.
        let line = strip.places().next_multiple_of(BLOCK) + shifts[TAPS - 1];
        let pairs = channels.next_multiple_of(DEPTH) / 2;
        with_words([pairs * line, 0], |words, _| {
            with_scratch([channels * strip.padded(), 0], |padded, _| {
                self.pad(x, part, strip, padded, false);
                for (pair, words) in words.chunks_exact_mut(line).enumerate() {
                    let channel = |channel| padded.chunks_exact(strip.padded()).nth(channel).unwrap_or(&[]);
                    interleave_lines(channel(2 * pair), channel(2 * pair + 1), words);
                }
            });
            let steps: Vec<_> = (0..TAPS)
                .flat_map(|tap| {
                    let of_weight = positions(channels).map(move |at| tap * length([outputs, channels]) + at);
                    of_weight.enumerate().map(move |(step, at)| [at, step * TILE * line + shifts[tap]])
                })
                .collect();
            with_tiles(|tiles| {
                let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
                for first in (0..outputs).step_by(BLOCK) {
                    let panel = panel(channels);
                    let weights = &weights[first / TILE * panel..];
                    let weights = Factor { words: weights, stride: TILE, second: panel };
                    for place in (0..strip.places()).step_by(BLOCK) {
                        let words = Factor { words: &words[place..], stride: line, second: TILE };
                        tiles.multiply(weights, words, &steps, &mut sums);
                        vectorised(
                            #[inline(always)]
                            || {
                                let write = |from: usize, image: usize, pixel: usize, run: usize| {
                                    for (output, sums) in (first..outputs).zip(&sums.0) {
                                        let plane = ((part.images.start + image) * outputs + output) * area;
                                        let to = plane + part.rows.start * strip.width + pixel;
                                        #[allow(unsafe_code, reason = "channels of a part are not contiguous")]
                                        // SAFETY: no other task accesses these rows of this image.
                                        let to = unsafe { out.part(to..to + run) };
                                        let bias = bias.get(output).copied().unwrap_or(0.0);
                                        to.iter_mut().zip(&sums[from..]).for_each(|(to, sum)| *to = sum + bias);
                                    }
                                };
                                strip.runs(place, BLOCK, write);
                            },
                        );
                    }
                }
            });
        });
    }

    /// Writes the gradient of the weight to `of_weight` and returns that of the bias.
    pub(in crate::kernels) fn weight_gradient_tiled(
        &self,
        x: &[f32],
        gradient: &[f32],
        of_weight: &mut [f32],
    ) -> Vec<f32> {
        let parts = self.tiled_parts(x);
        let channels = self.windows.channels;
        let [rows, columns] = [self.outputs, channels].map(|length| length.next_multiple_of(BLOCK));
        let count = if of_weight.len() >= LARGE { 1 } else { SUMS };
        let sums: (Vec<_>, Vec<_>) = parts
            .par_chunks(parts.len().div_ceil(count).max(1))
            .map(|parts| {
                // `[block of outputs, tap, output, channel]`.
                let mut of_weight = vec![0.0_f32; TAPS * rows * columns];
                let mut of_bias = vec![0.0_f32; self.outputs];
                for part in parts {
                    self.correlate_tiled((x, gradient), part, (&mut of_weight, &mut of_bias));
                }
                (of_weight, of_bias)
            })
            .unzip();
        let sum = add_up(&sums.0, TAPS * rows * columns);
        of_weight.par_chunks_exact_mut(channels * TAPS).enumerate().for_each(|(output, of_weight)| {
            for (tap, first) in (0..TAPS).map(|tap| (tap, (output / BLOCK * TAPS + tap) * BLOCK + output % BLOCK)) {
                let sums = &sum[first * columns..][..channels];
                of_weight[tap..].iter_mut().step_by(TAPS).zip(sums).for_each(|(to, sum)| *to = *sum);
            }
        });
        add_up(&sums.1, self.outputs)
    }

    /// Adds one part to the gradients of weight and bias.
    fn correlate_tiled(
        &self,
        (x, gradient): (&[f32], &[f32]),
        part: &Part,
        (of_weight, of_bias): (&mut [f32], &mut [f32]),
    ) {
        let strip = Strip::of(self, part);
        let (channels, places, outputs) = (self.windows.channels, strip.places(), self.outputs);
        let shifts = strip.shifts();
        let columns = channels.next_multiple_of(BLOCK);
        // A word has two neighbouring places of one channel. The first half of the lines begins with the pair
        // of places 0 and 1, the second one with that of 1 and 2.
        let lines = places.next_multiple_of(DEPTH) / 2 + shifts[TAPS - 1] / 2 + 1;
        let lines = lines.next_multiple_of(TILE);
        with_words([length([outputs, places]), 2 * lines * columns], |gradients, words| {
            with_scratch([channels * strip.padded(), outputs * places], |padded, spread| {
                self.pad(x, part, strip, padded, false);
                self.spread(gradient, part, strip, spread);
                for (of_bias, spread) in of_bias.iter_mut().zip(spread.chunks_exact(places)) {
                    *of_bias += vectorised(
                        #[inline(always)]
                        || total(spread),
                    );
                }
                pack(Matrix { numbers: spread, outer: places, depth: 1 }, [outputs, places], Rows::Outer, gradients);
                for (first, words) in words.chunks_exact_mut(lines * columns).enumerate() {
                    let matrix = Matrix { numbers: padded, outer: strip.padded(), depth: 1 };
                    pair_places(matrix, [channels, strip.padded()], first, words, columns);
                }
            });
            let words = &*words;
            let correlate = |(number, of_weight): (usize, &mut [f32])| {
                let gradients = block(gradients, number * BLOCK, places);
                let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
                let mut steps = vec![[0; 2]; places.div_ceil(DEPTH)];
                with_tiles(|tiles| {
                    for (shift, of_weight) in shifts.iter().zip(of_weight.chunks_exact_mut(BLOCK * columns)) {
                        let first = (shift % 2 * lines + shift / 2) * columns;
                        for ((number, step), at) in steps.iter_mut().enumerate().zip(positions(places)) {
                            *step = [at, first + number * TILE * columns];
                        }
                        for channel in (0..columns).step_by(BLOCK) {
                            let words = Factor { words: &words[channel..], stride: columns, second: TILE };
                            tiles.multiply(gradients, words, &steps, &mut sums);
                            for (to, sums) in of_weight.chunks_exact_mut(columns).zip(&sums.0) {
                                to[channel..][..BLOCK].iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
                            }
                        }
                    }
                });
            };
            let each = TAPS * BLOCK * columns;
            if channels * outputs * TAPS >= LARGE {
                of_weight.par_chunks_exact_mut(each).enumerate().for_each(correlate);
            } else {
                of_weight.chunks_exact_mut(each).enumerate().for_each(correlate);
            }
        });
    }
}

/// Writes words of two lines of numbers; what they lack is zero.
fn interleave_lines(low: &[f32], high: &[f32], words: &mut [u32]) {
    vectorised(
        #[inline(always)]
        || {
            let numbers = |line: &[f32], first: usize| {
                let mut numbers = [0.0; TILE];
                match line.get(first..first + TILE) {
                    Some(whole) => numbers.copy_from_slice(whole),
                    None => {
                        let rest = line.get(first..).unwrap_or(&[]);
                        numbers[..rest.len()].copy_from_slice(rest);
                    }
                }
                numbers
            };
            for (words, first) in words.chunks_mut(TILE).zip((0..).step_by(TILE)) {
                words.copy_from_slice(&interleave(&numbers(low, first), &numbers(high, first))[..words.len()]);
            }
        },
    );
}

/// Writes words of neighbouring places: line `i` has places `first + 2 * i` and the next one of each channel.
fn pair_places(matrix: Matrix<'_>, [channels, places]: [usize; 2], first: usize, words: &mut [u32], columns: usize) {
    vectorised(
        #[inline(always)]
        || {
            let mut tile = [[0; TILE]; TILE];
            for (lines, place) in words.chunks_exact_mut(TILE * columns).zip((first..).step_by(DEPTH)) {
                for channel in (0..columns).step_by(TILE) {
                    let size = [channels.saturating_sub(channel).min(TILE), places.saturating_sub(place).min(DEPTH)];
                    if size.contains(&0) {
                        tile = [[0; TILE]; TILE];
                    } else {
                        let numbers = &matrix.numbers[channel * matrix.outer + place..];
                        pack_tile(Matrix { numbers, ..matrix }, size, Rows::Depths, &mut tile);
                    }
                    for (line, row) in lines.chunks_exact_mut(columns).zip(&tile) {
                        line[channel..channel + TILE].copy_from_slice(row);
                    }
                }
            }
        },
    );
}
