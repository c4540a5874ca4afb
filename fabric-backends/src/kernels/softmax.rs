//! Softmax over rows, and its gradient.

use rayon::prelude::*;

use super::lanes::{GRAIN, dot, largest, total, vectorised};
use super::math::exp;

/// Computes `out = e^x / Σ e^x` for each row of `length` elements.
pub(crate) fn forward(length: usize, x: &[f32], out: &mut [f32]) {
    let task = (GRAIN / length).max(1) * length;
    out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(length).zip(x.chunks_exact(length)) {
                    let top = largest(x);
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = exp(*x - top);
                    }
                    let scale = 1.0 / total(out);
                    for x in out {
                        *x *= scale;
                    }
                }
            },
        );
    });
}

/// Computes the gradient of the input, `out = y · (gradient - Σ y · gradient)` for each row; `y` is the
/// softmax.
pub(crate) fn backward(length: usize, y: &[f32], gradient: &[f32], out: &mut [f32]) {
    let task = (GRAIN / length).max(1) * length;
    out.par_chunks_mut(task).zip(y.par_chunks(task)).zip(gradient.par_chunks(task)).for_each(|((out, y), gradient)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = y.chunks_exact(length).zip(gradient.chunks_exact(length));
                for (out, (y, gradient)) in out.chunks_exact_mut(length).zip(rows) {
                    let mean = dot(y, gradient);
                    for ((out, y), gradient) in out.iter_mut().zip(y).zip(gradient) {
                        *out = y * (gradient - mean);
                    }
                }
            },
        );
    });
}
