//! Gradients of a convolution.

use rayon::prelude::*;

use super::conv::{Conv, Part, with_scratch};
use super::gemm::{Start, Strides, Target, gemm_shared, product};
use super::lanes::{add_up, total, vectorised};
use super::shared::Shared;
use super::unfold::Windows;

/// Maximum number of separate partial sums of the weight gradient, independent of the number of threads.
const SUMS: usize = 16;

/// With fewer parts than this, all threads share the product of each part. A constant, not the number of
/// threads, so that the order of summation does not depend on the threads.
const FEW: usize = 4;

/// Size of a weight from which a single sum is large enough to occupy all threads.
const LARGE: usize = 1 << 18;

impl Conv {
    /// Writes the gradient of `x` to `out`.
    pub(crate) fn input_gradient(&self, weight: &[f32], gradient: &[f32], out: &mut [f32]) {
        let windows = &self.windows;
        let fits = (0..2).all(|axis| {
            windows.stride[axis] == 1
                && windows.padding[axis] < windows.kernel[axis]
                && windows.output[axis] + windows.kernel[axis] == windows.input[axis] + 2 * windows.padding[axis] + 1
        });
        let (depth, area, outputs) = (windows.rows(), windows.area(), self.outputs);
        // With fewer output pixels than kernels, the matrix of windows is smaller than the rotated kernels.
        let few = gradient.len() < outputs * outputs;
        if fits && !few {
            // Equals a convolution of the gradient with the kernels rotated by 180 degrees.
            let padding = [0, 1].map(|axis| windows.kernel[axis] - 1 - windows.padding[axis]);
            let back =
                Windows { channels: self.outputs, input: windows.output, output: windows.input, padding, ..*windows };
            let back = Self { windows: back, outputs: windows.channels };
            return back.forward(gradient, &self.turned(weight), &[], out);
        }
        let image = windows.channels * windows.input_area();
        let tasks = out.par_chunks_exact_mut(image).zip(gradient.par_chunks_exact(outputs * area));
        tasks.for_each(|(out, gradient)| {
            with_scratch([depth * area, 0], |matrix, _| {
                let weight = (weight, Strides::rows(depth).transposed());
                let gradient = (gradient, Strides::rows(area));
                product([depth, area, outputs], matrix, weight, gradient, Start::Nothing);
                let planes = out.par_chunks_exact_mut(windows.input_area());
                let rows = matrix.par_chunks_exact(windows.taps() * area);
                planes.zip(rows).for_each(|(plane, rows)| {
                    plane.fill(0.0);
                    windows.fold(rows, plane);
                });
            });
        });
    }

    /// Transposes `[outputs, channels, ..]` to `[channels, outputs, ..]` and rotates each kernel by 180
    /// degrees.
    fn turned(&self, weight: &[f32]) -> Vec<f32> {
        let (taps, channels, outputs) = (self.windows.taps(), self.windows.channels, self.outputs);
        let mut turned = vec![0.0; weight.len()];
        turned.par_chunks_exact_mut(outputs * taps).enumerate().for_each(|(channel, turned)| {
            for (output, turned) in turned.chunks_exact_mut(taps).enumerate() {
                let from = &weight[(output * channels + channel) * taps..][..taps];
                turned.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
            }
        });
        turned
    }

    /// Writes the gradient of the weight to `of_weight` and returns that of the bias.
    pub(crate) fn weight_gradient(&self, x: &[f32], gradient: &[f32], of_weight: &mut [f32]) -> Vec<f32> {
        if self.is_tiled() {
            return self.weight_gradient_tiled(x, gradient, of_weight);
        }
        let parts = self.parts(x);
        let sum = |parts: &[Part], of_weight: &mut [f32], all: bool| {
            let mut of_bias = vec![0.0_f32; self.outputs];
            if parts.is_empty() {
                of_weight.fill(0.0);
            }
            for (nth, part) in parts.iter().enumerate() {
                // The first part overwrites `of_weight`, which saves clearing it.
                let start = if nth == 0 { Start::Nothing } else { Start::Result };
                self.add_part((x, gradient), part, (of_weight, &mut of_bias), start, all);
            }
            of_bias
        };
        if parts.len() < FEW || of_weight.len() >= LARGE {
            return sum(&parts, of_weight, true);
        }
        let sums: (Vec<_>, Vec<_>) = parts
            .par_chunks(parts.len().div_ceil(SUMS))
            .map(|parts| {
                let mut of_weight = vec![0.0_f32; of_weight.len()];
                let of_bias = sum(parts, &mut of_weight, false);
                (of_weight, of_bias)
            })
            .unzip();
        of_weight.copy_from_slice(&add_up(&sums.0, of_weight.len()));
        add_up(&sums.1, self.outputs)
    }

    /// Adds one part to the gradients, on `all` threads or on this one; `start` is the initial value of the
    /// weight gradient.
    fn add_part(
        &self,
        (x, gradient): (&[f32], &[f32]),
        part: &Part,
        (of_weight, of_bias): (&mut [f32], &mut [f32]),
        start: Start<'_>,
        all: bool,
    ) {
        if self.is_direct() {
            if matches!(start, Start::Nothing) {
                of_weight.fill(0.0);
            }
            return self.correlate((x, gradient), part, (of_weight, of_bias), all);
        }
        let (depth, area, outputs) = (self.windows.rows(), self.windows.area(), self.outputs);
        let (rows, columns) = self.columns(part);
        with_scratch([depth * columns, outputs * columns], |windows, gathered| {
            self.unfold(x, part, windows, all);
            for (at, image) in part.images.clone().enumerate() {
                for output in 0..outputs {
                    let first = (image * outputs + output) * area + part.rows.start * self.windows.output[1];
                    gathered[output * columns + at * rows..][..rows].copy_from_slice(&gradient[first..first + rows]);
                }
            }
            for (of_bias, gradient) in of_bias.iter_mut().zip(gathered.chunks_exact(columns)) {
                *of_bias += vectorised(
                    #[inline(always)]
                    || total(gradient),
                );
            }
            let (a, b) = ((&*gathered, Strides::rows(columns)), (&*windows, Strides::rows(columns).transposed()));
            let sizes = [outputs, depth, columns];
            if all {
                product(sizes, of_weight, a, b, start);
            } else {
                let target = Target { all: &Shared::new(of_weight), first: 0, strides: Strides::rows(depth) };
                #[allow(unsafe_code, reason = "nobody else has this slice")]
                // SAFETY: `of_weight` is borrowed exclusively.
                unsafe {
                    gemm_shared(sizes, target, a, b, start);
                }
            }
        });
    }
}
