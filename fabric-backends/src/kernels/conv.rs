//! Convolutions as matrix products over windows, a few rows or pictures at a time.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Strides, gemm};
use super::lanes::{add_up, sum, vectorised};
use super::shared::Shared;
use super::unfold::Windows;

/// A convolution of `[rows, channels, height, width]` with `outputs` kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    pub(crate) windows: Windows,
    pub(crate) outputs: usize,
}

/// Columns of windows that one product takes: enough for the product to be worth its packing.
const COLUMNS: usize = 512;

/// Sums of weight gradients that are kept apart, however many threads there are.
const PARTS: usize = 8;

/// A part of a convolution's work: these pictures' output rows. Several pictures are always whole.
#[derive(Debug, Clone)]
struct Part {
    pictures: Range<usize>,
    rows: Range<usize>,
}

thread_local! {
    /// Windows, and a product that must still be taken apart: kept, as fresh memory costs more than filling it.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// The two buffers of this thread, of at least these lengths.
fn with_scratch<R>(lengths: [usize; 2], f: impl FnOnce(&mut [f32], &mut [f32]) -> R) -> R {
    // Taken out meanwhile: a task that this thread runs in between finds its own.
    let [mut a, mut b] = SCRATCH.take();
    for (buffer, length) in [(&mut a, lengths[0]), (&mut b, lengths[1])] {
        if buffer.len() < length {
            buffer.resize(length, 0.0);
        }
    }
    let result = f(&mut a[..lengths[0]], &mut b[..lengths[1]]);
    SCRATCH.set([a, b]);
    result
}

impl Conv {
    /// `out[n, o] = Σ weight[o] · windows(x[n]) + bias[o]`; no bias is an empty slice.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let (depth, area, outputs) = (self.windows.rows(), self.windows.area(), self.outputs);
        let out = Shared::new(out);
        self.parts(x).into_par_iter().for_each(|part| {
            let rows = part.rows.len() * self.windows.output[1];
            let columns = part.pictures.len() * rows;
            with_scratch([depth * columns, outputs * columns], |windows, product| {
                self.unfold(x, &part, windows);
                let (a, b) = ((weight, Strides::rows(depth)), (&*windows, Strides::rows(columns)));
                gemm([outputs, columns, depth], (product, Strides::rows(columns)), a, b, false);
                for (at, picture) in part.pictures.clone().enumerate() {
                    for output in 0..outputs {
                        let first = (picture * outputs + output) * area + part.rows.start * self.windows.output[1];
                        let from = &product[output * columns + at * rows..][..rows];
                        #[allow(unsafe_code, reason = "rows of a picture are not contiguous over its channels")]
                        // SAFETY: no other part of the work has these rows of this picture.
                        let to = unsafe { out.part(first..first + rows) };
                        match bias.get(output) {
                            None => to.copy_from_slice(from),
                            Some(bias) => to.iter_mut().zip(from).for_each(|(to, from)| *to = from + bias),
                        }
                    }
                }
            });
        });
    }

    /// The gradient of `x`, which is `out`.
    pub(crate) fn input_gradient(&self, weight: &[f32], gradient: &[f32], out: &mut [f32]) {
        let (windows, outputs) = (&self.windows, self.outputs);
        let [height, width] = windows.kernel;
        let fits = (0..2).all(|axis| {
            windows.stride[axis] == 1
                && windows.padding[axis] < windows.kernel[axis]
                && windows.output[axis] + windows.kernel[axis] == windows.input[axis] + 2 * windows.padding[axis] + 1
        });
        if fits {
            // The same as a convolution of the gradient with the kernels turned by half a turn.
            let mut turned = vec![0.0; weight.len()];
            let area = height * width;
            for output in 0..outputs {
                for channel in 0..windows.channels {
                    let from = &weight[(output * windows.channels + channel) * area..][..area];
                    let to = &mut turned[(channel * outputs + output) * area..][..area];
                    to.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
                }
            }
            let padding = [0, 1].map(|axis| windows.kernel[axis] - 1 - windows.padding[axis]);
            let back = Windows { channels: outputs, input: windows.output, output: windows.input, padding, ..*windows };
            return Self { windows: back, outputs: windows.channels }.forward(gradient, &turned, &[], out);
        }
        let (depth, area) = (windows.rows(), windows.area());
        let picture = windows.channels * windows.input_area();
        let tasks = out.par_chunks_exact_mut(picture).zip(gradient.par_chunks_exact(outputs * area));
        tasks.for_each(|(out, gradient)| {
            with_scratch([depth * area, 0], |matrix, _| {
                let turned = (weight, Strides::rows(depth).transposed());
                let gradient = (gradient, Strides::rows(area));
                gemm([depth, area, outputs], (matrix, Strides::rows(area)), turned, gradient, false);
                out.fill(0.0);
                windows.fold(matrix, (0, area), out);
            });
        });
    }

    /// The gradients of the weight and of the bias.
    pub(crate) fn weight_gradient(&self, x: &[f32], gradient: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (depth, area, outputs) = (self.windows.rows(), self.windows.area(), self.outputs);
        let parts = self.parts(x);
        let sums: Vec<_> = parts
            .par_chunks(parts.len().div_ceil(PARTS).max(1))
            .map(|parts| {
                let (mut of_weight, mut of_bias) = (vec![0.0_f32; outputs * depth], vec![0.0_f32; outputs]);
                for part in parts {
                    let rows = part.rows.len() * self.windows.output[1];
                    let columns = part.pictures.len() * rows;
                    with_scratch([depth * columns, outputs * columns], |windows, gathered| {
                        self.unfold(x, part, windows);
                        for (at, picture) in part.pictures.clone().enumerate() {
                            for output in 0..outputs {
                                let first =
                                    (picture * outputs + output) * area + part.rows.start * self.windows.output[1];
                                let from = &gradient[first..first + rows];
                                gathered[output * columns + at * rows..][..rows].copy_from_slice(from);
                                of_bias[output] += vectorised(
                                    #[inline(always)]
                                    || {
                                        sum(
                                            from,
                                            #[inline(always)]
                                            |x| x,
                                        )
                                    },
                                );
                            }
                        }
                        let a = (&*gathered, Strides::rows(columns));
                        let b = (&*windows, Strides::rows(columns).transposed());
                        gemm([outputs, depth, columns], (&mut of_weight, Strides::rows(depth)), a, b, true);
                    });
                }
                (of_weight, of_bias)
            })
            .collect();
        let (of_weight, of_bias): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
        (add_up(&of_weight, outputs * depth), add_up(&of_bias, outputs))
    }

    /// All windows of a part, side by side.
    fn unfold(&self, x: &[f32], part: &Part, matrix: &mut [f32]) {
        let rows = part.rows.len() * self.windows.output[1];
        let length = part.pictures.len() * rows;
        let picture = self.windows.channels * self.windows.input_area();
        for (at, index) in part.pictures.clone().enumerate() {
            let x = &x[index * picture..][..picture];
            self.windows.unfold(x, part.rows.clone(), matrix, (at * rows, length));
        }
    }

    /// The work in parts of about [`COLUMNS`].
    fn parts(&self, x: &[f32]) -> Vec<Part> {
        let pictures = x.len() / (self.windows.channels * self.windows.input_area());
        let [height, width] = self.windows.output;
        let area = height * width;
        if area >= COLUMNS {
            let rows = (COLUMNS / width).max(1);
            let starts = (0..pictures).flat_map(|picture| (0..height).step_by(rows).map(move |row| (picture, row)));
            return starts
                .map(|(picture, row)| Part { pictures: picture..picture + 1, rows: row..height.min(row + rows) })
                .collect();
        }
        let together = (COLUMNS / area).max(1);
        (0..pictures)
            .step_by(together)
            .map(|first| Part { pictures: first..pictures.min(first + together), rows: 0..height })
            .collect()
    }
}
