//! Softmax over rows, and its derivative.

use rayon::prelude::*;

use super::lanes::{GRAIN, largest, sum, sum_two, vectorised};
use super::math::exp;

/// Each row of `length` becomes `e^x / Σ e^x`.
pub(crate) fn forward(length: usize, x: &mut [f32]) {
    x.par_chunks_mut((GRAIN / length).max(1) * length).for_each(|rows| {
        vectorised(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(length) {
                    let top = largest(row);
                    for x in row.iter_mut() {
                        *x = exp(*x - top);
                    }
                    let scale = 1.0
                        / sum(
                            row,
                            #[inline(always)]
                            |x| x,
                        );
                    for x in row {
                        *x *= scale;
                    }
                }
            },
        );
    });
}

/// `out = y · (gradient - Σ y · gradient)`, row by row.
pub(crate) fn backward(length: usize, y: &[f32], gradient: &[f32], out: &mut [f32]) {
    let task = (GRAIN / length).max(1) * length;
    out.par_chunks_mut(task).zip(y.par_chunks(task)).zip(gradient.par_chunks(task)).for_each(|((out, y), gradient)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = y.chunks_exact(length).zip(gradient.chunks_exact(length));
                for (out, (y, gradient)) in out.chunks_exact_mut(length).zip(rows) {
                    let (dot, _) = sum_two(
                        y,
                        gradient,
                        #[inline(always)]
                        |y, g| (y * g, 0.0),
                    );
                    for ((out, y), gradient) in out.iter_mut().zip(y).zip(gradient) {
                        *out = y * (gradient - dot);
                    }
                }
            },
        );
    });
}
