//! Sums over slices in sixteen lanes, as many as the widest registers have; more exact than a single running
//! sum.

use rayon::prelude::*;

use super::isa::arch;

const LANES: usize = 16;

/// Elements per task: enough to be worth a task, few enough to stay in the L1 cache.
pub(crate) const GRAIN: usize = 16 * 1024;

/// Runs `f` compiled for the selected instruction set. All functions that `f` calls must be inlined into it.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    arch().dispatch(f)
}

/// `Σ f(x)`.
#[inline(always)]
pub(crate) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += f(*x);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|x| f(*x)).sum::<f32>()
}

/// `Σ x`.
#[inline(always)]
pub(crate) fn total(x: &[f32]) -> f32 {
    sum(
        x,
        #[inline(always)]
        |x| x,
    )
}

/// `Σ x · y`.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let (products, _) = sum_two(
        x,
        y,
        #[inline(always)]
        |x, y| (x * y, 0.0),
    );
    products
}

/// `Σ f(x, y)`, where `f` returns a pair; sums both components.
#[inline(always)]
pub(crate) fn sum_two(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> (f32, f32)) -> (f32, f32) {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let (mut first, mut second) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    for (x, y) in xs.iter().zip(ys) {
        for lane in 0..LANES {
            let (a, b) = f(x[lane], y[lane]);
            first[lane] += a;
            second[lane] += b;
        }
    }
    let (mut first, mut second) = (first.iter().sum::<f32>(), second.iter().sum::<f32>());
    for (x, y) in x_rest.iter().zip(y_rest) {
        let (a, b) = f(*x, *y);
        first += a;
        second += b;
    }
    (first, second)
}

/// Returns the largest value; NaN is ignored.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a })
}

/// Computes `out = f(x)` on all threads.
pub(crate) fn map(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32 + Copy + Send + Sync) {
    out.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = f(*x);
                }
            },
        );
    });
}

/// Computes `out = f(x, y)` on all threads.
pub(crate) fn zip(x: &[f32], y: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32 + Copy + Send + Sync) {
    out.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).zip(y.par_chunks(GRAIN)).for_each(|((out, x), y)| {
        vectorised(
            #[inline(always)]
            || {
                for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                    *out = f(*x, *y);
                }
            },
        );
    });
}

/// Returns the elementwise sum of parts of this length, added in their order.
pub(crate) fn add_up(parts: &[Vec<f32>], length: usize) -> Vec<f32> {
    let mut total = vec![0.0_f32; length];
    total.par_chunks_mut(GRAIN).enumerate().for_each(|(at, total)| {
        for part in parts {
            for (sum, x) in total.iter_mut().zip(&part[at * GRAIN..]) {
                *sum += x;
            }
        }
    });
    total
}
