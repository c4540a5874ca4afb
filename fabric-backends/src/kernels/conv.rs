//! Convolutions as matrix products over unfolded windows (im2col), a few rows or images at a time.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Start, Strides, Target, gemm_shared, product_shared};
use super::isa::arch;
use super::shared::Shared;
use super::unfold::Windows;

/// Convolution of `[rows, channels, height, width]` with `outputs` kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    pub(crate) windows: Windows,
    pub(crate) outputs: usize,
}

/// Columns of windows in one product: enough to be worth the packing of the product's operands.
const COLUMNS: usize = 512;

/// Part of a convolution's output: these rows of these images. A part with several images has all of their
/// rows.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
}

thread_local! {
    /// Buffers for windows and intermediate results. They are reused, as fresh memory costs more than filling
    /// it.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Calls `f` with the two buffers of this thread, cut to these lengths; their values are arbitrary.
pub(super) fn with_scratch<R>(lengths: [usize; 2], f: impl FnOnce(&mut [f32], &mut [f32]) -> R) -> R {
    // The buffers are taken out during the call: a task that this thread runs while it waits allocates its own.
    let mut buffers = SCRATCH.take();
    for (buffer, length) in buffers.iter_mut().zip(lengths) {
        if buffer.len() < length {
            buffer.resize(length, 0.0);
        }
    }
    let [a, b] = &mut buffers;
    let result = f(&mut a[..lengths[0]], &mut b[..lengths[1]]);
    SCRATCH.set(buffers);
    result
}

impl Conv {
    /// Computes `out[n, o] = Σ weight[o] · windows(x[n]) + bias[o]`; an empty slice means no bias.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let out = Shared::new(out);
        if self.is_tiled() {
            return self.forward_tiled((x, weight, bias), &out);
        }
        if self.is_winograd() {
            return self.by_tiles(arch(), (x, weight, bias), &out);
        }
        let parts = self.parts(x);
        // With fewer parts than threads, all threads share the product of each part, whose sums may round
        // differently.
        if parts.len() < rayon::current_num_threads() {
            parts.iter().for_each(|part| self.multiply((x, weight, bias), part, &out, true));
        } else {
            parts.par_iter().for_each(|part| self.multiply((x, weight, bias), part, &out, false));
        }
    }

    /// Computes one part of the result, on `all` threads or on this one.
    fn multiply(&self, (x, weight, bias): (&[f32], &[f32], &[f32]), part: &Part, out: &Shared<'_>, all: bool) {
        if self.is_direct() {
            return self.slide((x, weight, bias), part, out, all);
        }
        let (depth, area, outputs) = (self.windows.rows(), self.windows.area(), self.outputs);
        let (rows, columns) = self.columns(part);
        let weight = (weight, Strides::rows(depth));
        let start = if bias.is_empty() { Start::Nothing } else { Start::Column(bias) };
        let first = part.images.start * outputs * area + part.rows.start * self.windows.output[1];
        let place = Target { all: out, first, strides: Strides::rows(area) };
        let sizes = [outputs, columns, depth];
        #[allow(unsafe_code, reason = "rows of an image are not contiguous over its channels")]
        // SAFETY: no other task accesses these rows of these images or this thread's buffer.
        let multiply = |target: Target<'_>, matrix: (&[f32], Strides)| unsafe {
            if all {
                product_shared(sizes, target, weight, matrix, start);
            } else {
                gemm_shared(sizes, target, weight, matrix, start);
            }
        };
        let one = part.images.len() == 1;
        if one && self.windows.is_image() {
            let first = part.images.start * self.windows.channels * area + part.rows.start * self.windows.output[1];
            return multiply(place, (&x[first..], Strides::rows(area)));
        }
        with_scratch([depth * columns, if one { 0 } else { outputs * columns }], |windows, product| {
            self.unfold(x, part, windows, all);
            let matrix = (&*windows, Strides::rows(columns));
            if one {
                return multiply(place, matrix);
            }
            multiply(Target { all: &Shared::new(product), first: 0, strides: Strides::rows(columns) }, matrix);
            for (at, image) in part.images.clone().enumerate() {
                for output in 0..outputs {
                    let first = (image * outputs + output) * area;
                    #[allow(unsafe_code, reason = "rows of an image are not contiguous over its channels")]
                    // SAFETY: no other task accesses these images.
                    let to = unsafe { out.part(first..first + rows) };
                    to.copy_from_slice(&product[output * columns + at * rows..][..rows]);
                }
            }
        });
    }

    /// Writes all windows of a part side by side into `matrix`, on `all` threads or on this one.
    pub(super) fn unfold(&self, x: &[f32], part: &Part, matrix: &mut [f32], all: bool) {
        let (rows, length) = self.columns(part);
        let area = self.windows.input_area();
        let channel = |(channel, matrix): (usize, &mut [f32])| {
            for (at, image) in part.images.clone().enumerate() {
                let plane = &x[(image * self.windows.channels + channel) * area..][..area];
                self.windows.unfold(plane, part.rows.clone(), matrix, (at * rows, length));
            }
        };
        let each = self.windows.taps() * length;
        if all {
            matrix.par_chunks_exact_mut(each).enumerate().for_each(channel);
        } else {
            matrix.chunks_exact_mut(each).enumerate().for_each(channel);
        }
    }

    /// Returns the number of output pixels of a part in one image, and in all its images.
    pub(super) fn columns(&self, part: &Part) -> (usize, usize) {
        let rows = part.rows.len() * self.windows.output[1];
        (rows, part.images.len() * rows)
    }

    /// Splits the output into parts of about as many pixels as are worth a task.
    pub(super) fn parts(&self, x: &[f32]) -> Vec<Part> {
        self.parts_of(x, if self.is_direct() { self.direct_columns() } else { COLUMNS })
    }

    /// Splits the output into parts of about this many pixels.
    pub(super) fn parts_of(&self, x: &[f32], columns: usize) -> Vec<Part> {
        let images = x.len() / (self.windows.channels * self.windows.input_area());
        let [height, width] = self.windows.output;
        let area = height * width;
        if area >= columns {
            let rows = (columns / width).max(1);
            let starts = (0..images).flat_map(|image| (0..height).step_by(rows).map(move |row| (image, row)));
            return starts
                .map(|(image, row)| Part { images: image..image + 1, rows: row..height.min(row + rows) })
                .collect();
        }
        let together = (columns / area).max(1);
        (0..images)
            .step_by(together)
            .map(|first| Part { images: first..images.min(first + together), rows: 0..height })
            .collect()
    }
}
