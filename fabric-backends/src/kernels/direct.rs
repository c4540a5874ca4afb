//! Convolutions with a 3x3 kernel, stride 1 and padding 1, without unfolding the windows.
//!
//! The rows of an image lie one after the other with a single zero between them. Each kernel tap then reads the
//! whole image at a constant offset, so that a convolution is nine sums over shifted runs of memory, whatever
//! the width. The results at the zeros are discarded.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::conv::{Conv, Part, with_scratch};
use super::isa::arch;
use super::lanes::{total, vectorised};
use super::shared::Shared;

/// Taps of the kernel.
pub(super) const TAPS: usize = 9;

/// Registers along the images, and output channels, whose sums fill 32 registers. With 16 registers, half as
/// many channels are processed at a time.
const ALONG: usize = 3;
const OUTPUTS: usize = 8;

/// Sums are computed in blocks of this many places: a multiple of [`ALONG`] registers of any processor.
const BLOCK: usize = ALONG * 16;

/// Maximum number of channels for which this is faster than products over windows, whose blocks fit the caches
/// better.
const FEW_CHANNELS: usize = 256;

/// Approximate number of values in the padded images of a part: what the L2 cache holds beside the weights.
const CACHED: usize = 1 << 17;

/// Memory layout of the images of a part: a zero after each row, and a row of zeros between images.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip {
    images: usize,
    rows: usize,
    pub(super) width: usize,
}

impl Strip {
    pub(super) fn of(conv: &Conv, part: &Part) -> Self {
        Self { images: part.images.len(), rows: part.rows.len(), width: conv.windows.output[1] }
    }

    fn pitch(&self) -> usize {
        self.width + 1
    }

    /// Returns the distance of each tap's values from the first tap's.
    pub(super) fn shifts(&self) -> [usize; TAPS] {
        std::array::from_fn(|tap| tap / 3 * self.pitch() + tap % 3)
    }

    /// Number of places for which sums are computed.
    pub(super) fn places(&self) -> usize {
        ((self.images * (self.rows + 1) - 1) * self.pitch()).next_multiple_of(BLOCK)
    }

    /// Number of values of a channel: the places, a row more above and below, and a zero before and after.
    pub(super) fn padded(&self) -> usize {
        self.places() + 2 * self.pitch() + 2
    }

    /// Calls `f` for each run of pixels among the `length` places from `first` on, with the index of the run's
    /// first place relative to `first`, its image, its first pixel within the part's rows of that image, and
    /// its length.
    #[inline(always)]
    pub(super) fn runs(&self, first: usize, length: usize, mut f: impl FnMut(usize, usize, usize, usize)) {
        let mut at = 0;
        while at < length {
            let (line, x) = ((first + at) / self.pitch(), (first + at) % self.pitch());
            let (image, row) = (line / (self.rows + 1), line % (self.rows + 1));
            if image >= self.images {
                return;
            }
            let run = self.width.saturating_sub(x).min(length - at);
            if row < self.rows && run > 0 {
                f(at, image, row * self.width + x, run);
            }
            at += run.max(1);
        }
    }
}

impl Conv {
    /// Whether this convolution uses the direct kernels.
    pub(super) fn is_direct(&self) -> bool {
        self.windows.is_same_3x3() && self.windows.channels.max(self.outputs) <= FEW_CHANNELS
    }

    /// Approximate number of output pixels per part.
    pub(super) fn direct_columns(&self) -> usize {
        (CACHED / self.windows.channels.max(self.outputs)).clamp(256, 1024)
    }

    /// Computes one part of the result, on `all` threads or on this one.
    pub(super) fn slide(&self, (x, weight, bias): (&[f32], &[f32], &[f32]), part: &Part, out: &Shared<'_>, all: bool) {
        let strip = Strip::of(self, part);
        let (channels, area) = (self.windows.channels, self.windows.area());
        let weight = weight.as_chunks::<TAPS>().0;
        with_scratch([channels * strip.padded(), 0], |padded, _| {
            self.pad(x, part, strip, padded, all);
            let group = |first: usize| {
                // Beyond the last channel, the last one is repeated.
                let output = |at: usize| (first + at).min(self.outputs - 1);
                let write = |at: usize, place: usize, length: usize, sums: &[[f32; BLOCK]]| {
                    let count = sums.len().min(self.outputs.saturating_sub(first + at));
                    strip.runs(place, length, |from, image, pixel, run| {
                        let plane = (part.images.start + image) * self.outputs + first + at;
                        for (nth, sums) in sums[..count].iter().enumerate() {
                            let to = (plane + nth) * area + part.rows.start * strip.width + pixel;
                            #[allow(unsafe_code, reason = "channels of a part are not contiguous")]
                            // SAFETY: no other task accesses these rows of this channel.
                            unsafe { out.part(to..to + run) }.copy_from_slice(&sums[from..from + run]);
                        }
                    });
                };
                let weights = std::array::from_fn(|at| &weight[output(at) * channels..][..channels]);
                let starts = std::array::from_fn(|at| if bias.is_empty() { 0.0 } else { bias[output(at)] });
                arch().dispatch(Slide { strip, padded, weights, starts, write });
            };
            let groups = self.outputs.div_ceil(OUTPUTS);
            if all {
                (0..groups).into_par_iter().for_each(|number| group(number * OUTPUTS));
            } else {
                (0..groups).for_each(|number| group(number * OUTPUTS));
            }
        });
    }

    /// Adds one part to the gradients of weight and bias, on `all` threads or on this one.
    pub(super) fn correlate(
        &self,
        (x, gradient): (&[f32], &[f32]),
        part: &Part,
        (of_weight, of_bias): (&mut [f32], &mut [f32]),
        all: bool,
    ) {
        let strip = Strip::of(self, part);
        let (channels, places) = (self.windows.channels, strip.places());
        with_scratch([channels * strip.padded(), self.outputs * places], |padded, spread| {
            self.pad(x, part, strip, padded, all);
            self.spread(gradient, part, strip, spread);
            for (of_bias, spread) in of_bias.iter_mut().zip(spread.chunks_exact(places)) {
                *of_bias += vectorised(
                    #[inline(always)]
                    || total(spread),
                );
            }
            let group = |(of_weight, spread): (&mut [f32], &[f32])| {
                arch().dispatch(Correlate { strip, padded, spread, of_weight });
            };
            let (weights, spreads) = (OUTPUTS * channels * TAPS, OUTPUTS * places);
            if all {
                of_weight.par_chunks_mut(weights).zip(spread.par_chunks(spreads)).for_each(group);
            } else {
                of_weight.chunks_mut(weights).zip(spread.chunks(spreads)).for_each(group);
            }
        });
    }

    /// Copies the gradients of a part to the places of [`Strip`], with zeros between the rows.
    pub(super) fn spread(&self, gradient: &[f32], part: &Part, strip: Strip, to: &mut [f32]) {
        let places = strip.places();
        for (output, spread) in to.chunks_exact_mut(places).enumerate() {
            spread.fill(0.0);
            strip.runs(0, places, |to, image, pixel, run| {
                let plane = ((part.images.start + image) * self.outputs + output) * self.windows.area();
                let from = plane + part.rows.start * strip.width + pixel;
                spread[to..to + run].copy_from_slice(&gradient[from..from + run]);
            });
        }
    }

    /// Copies the images of a part to the layout of [`Strip`], on `all` threads or on this one. The rows above
    /// and below the part are those of the image where it has any.
    pub(super) fn pad(&self, x: &[f32], part: &Part, strip: Strip, padded: &mut [f32], all: bool) {
        let [height, width] = self.windows.input;
        let channel = |(channel, padded): (usize, &mut [f32])| {
            padded[0] = 0.0;
            let lines = strip.images * (strip.rows + 1) + 1;
            let (lines, rest) = padded[1..].split_at_mut(lines * strip.pitch());
            rest.fill(0.0);
            for (line, to) in lines.chunks_exact_mut(strip.pitch()).enumerate() {
                let (image, row) = if strip.images == 1 {
                    // Line 0 is the row above the part.
                    (0, (part.rows.start + line).checked_sub(1).filter(|row| *row < height))
                } else {
                    let above = line % (strip.rows + 1);
                    (line / (strip.rows + 1), above.checked_sub(1))
                };
                let Some(row) = row else {
                    to.fill(0.0);
                    continue;
                };
                let plane = ((part.images.start + image) * self.windows.channels + channel) * height * width;
                to[..width].copy_from_slice(&x[plane + row * width..][..width]);
                to[width] = 0.0;
            }
        };
        if all {
            padded.par_chunks_exact_mut(strip.padded()).enumerate().for_each(channel);
        } else {
            padded.chunks_exact_mut(strip.padded()).enumerate().for_each(channel);
        }
    }
}

/// Computes a group of output channels, block by block, and passes the sums to `write(first channel, first
/// place, places, sums of each channel)`.
struct Slide<'a, W> {
    strip: Strip,
    padded: &'a [f32],
    weights: [&'a [[f32; TAPS]]; OUTPUTS],
    starts: [f32; OUTPUTS],
    write: W,
}

impl<W: Fn(usize, usize, usize, &[[f32; BLOCK]])> WithSimd for Slide<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, OUTPUTS>(simd, 0);
        } else {
            self.run::<S, { OUTPUTS / 2 }>(simd, 0);
            self.run::<S, { OUTPUTS / 2 }>(simd, OUTPUTS / 2);
        }
    }
}

impl<W: Fn(usize, usize, usize, &[[f32; BLOCK]])> Slide<'_, W> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(&self, simd: S, first: usize) {
        let (pitch, length) = (self.strip.pitch(), ALONG * S::F32_LANES);
        let weights: [&[[f32; TAPS]]; N] = std::array::from_fn(|at| self.weights[first + at]);
        for place in (0..self.strip.places()).step_by(length) {
            let mut sums: [[S::f32s; ALONG]; N] =
                std::array::from_fn(|at| [simd.splat_f32s(self.starts[first + at]); ALONG]);
            for (channel, x) in self.padded.chunks_exact(self.strip.padded()).enumerate() {
                let weights: [&[f32; TAPS]; N] = std::array::from_fn(|at| &weights[at][channel]);
                for ky in 0..3 {
                    let x = &x[place + ky * pitch..][..length + 2];
                    add::<S, N>(simd, &x[0..], weights.map(|weights| weights[3 * ky]), &mut sums);
                    add::<S, N>(simd, &x[1..], weights.map(|weights| weights[3 * ky + 1]), &mut sums);
                    add::<S, N>(simd, &x[2..], weights.map(|weights| weights[3 * ky + 2]), &mut sums);
                }
            }
            let mut values = [[0.0; BLOCK]; N];
            for (values, sums) in values.iter_mut().zip(&sums) {
                S::as_mut_simd_f32s(&mut values[..length]).0.copy_from_slice(sums);
            }
            (self.write)(first, place, length, &values);
        }
    }
}

/// Adds to the weight gradients of a group of at most [`OUTPUTS`] channels.
struct Correlate<'a> {
    strip: Strip,
    padded: &'a [f32],
    /// Gradients of the outputs in the layout of [`Strip`], [`Strip::places`] values per channel.
    spread: &'a [f32],
    of_weight: &'a mut [f32],
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let outputs = self.spread.len() / self.strip.places();
        if S::REGISTER_COUNT >= 32 && outputs == OUTPUTS {
            return self.run::<S, OUTPUTS>(simd, 0);
        }
        for first in (0..outputs).step_by(OUTPUTS / 2) {
            match outputs - first {
                1 => self.run::<S, 1>(simd, first),
                2 => self.run::<S, 2>(simd, first),
                3 => self.run::<S, 3>(simd, first),
                _ => self.run::<S, { OUTPUTS / 2 }>(simd, first),
            }
        }
    }
}

impl Correlate<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let (places, length) = (self.strip.places(), self.strip.padded());
        let channels = self.padded.len() / length;
        let gradients: [&[S::f32s]; N] =
            std::array::from_fn(|at| S::as_simd_f32s(&self.spread[(first + at) * places..][..places]).0);
        for (channel, x) in self.padded.chunks_exact(length).enumerate() {
            for ky in 0..3 {
                let x: [&[S::f32s]; 3] =
                    std::array::from_fn(|kx| S::as_simd_f32s(&x[ky * self.strip.pitch() + kx..][..places]).0);
                let mut sums = [[simd.splat_f32s(0.0); 3]; N];
                for place in 0..gradients[0].len() {
                    let x: [S::f32s; 3] = std::array::from_fn(|kx| x[kx][place]);
                    for (sums, gradient) in sums.iter_mut().zip(&gradients) {
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = simd.mul_add_f32s(x, gradient[place], *sum);
                        }
                    }
                }
                for (at, sums) in sums.into_iter().enumerate() {
                    let to = &mut self.of_weight[((first + at) * channels + channel) * TAPS + 3 * ky..][..3];
                    for (to, sum) in to.iter_mut().zip(sums) {
                        *to += simd.reduce_sum_f32s(sum);
                    }
                }
            }
        }
    }
}

/// Computes `sums += weight · x` for each output channel's weight at one tap of the kernel.
#[inline(always)]
fn add<S: Simd, const N: usize>(simd: S, x: &[f32], weights: [f32; N], sums: &mut [[S::f32s; ALONG]; N]) {
    let x = S::as_simd_f32s(&x[..ALONG * S::F32_LANES]).0;
    let x: [S::f32s; ALONG] = std::array::from_fn(|at| x[at]);
    for (sums, weight) in sums.iter_mut().zip(weights) {
        let weight = simd.splat_f32s(weight);
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = simd.mul_add_f32s(x, weight, *sum);
        }
    }
}
