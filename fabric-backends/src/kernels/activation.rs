//! Activation functions and their gradients.

use rayon::prelude::*;

use super::lanes::{map, vectorised, zip};
use super::math::{erf, exp, sigmoid};
use crate::ops::Pointwise;

const SLOPE: f32 = 1.702;

#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[inline(always)]
pub(crate) fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 - s).mul_add(x, 1.0)
}

#[inline(always)]
fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(SLOPE * x)
}

#[inline(always)]
fn quick_gelu_slope(x: f32) -> f32 {
    let s = sigmoid(SLOPE * x);
    s * (1.0 - s).mul_add(SLOPE * x, 1.0)
}

/// The cumulative normal distribution function.
#[inline(always)]
fn normal(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal(x)
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    // 1 / sqrt(2 pi)
    const DENSITY: f32 = 0.398_942_3;
    (x * DENSITY).mul_add(exp(-0.5 * x * x), normal(x))
}

/// Computes `out = f(x)`.
pub(crate) fn forward(kind: Pointwise, x: &[f32], out: &mut [f32]) {
    match kind {
        Pointwise::Silu => map(x, out, silu),
        Pointwise::Gelu => map(x, out, gelu),
        Pointwise::QuickGelu => map(x, out, quick_gelu),
    }
}

/// Computes `out = f'(x) · gradient`.
pub(crate) fn backward(kind: Pointwise, x: &[f32], gradient: &[f32], out: &mut [f32]) {
    match kind {
        Pointwise::Silu => zip(
            x,
            gradient,
            out,
            #[inline(always)]
            |x, g| g * silu_slope(x),
        ),
        Pointwise::Gelu => zip(
            x,
            gradient,
            out,
            #[inline(always)]
            |x, g| g * gelu_slope(x),
        ),
        Pointwise::QuickGelu => zip(
            x,
            gradient,
            out,
            #[inline(always)]
            |x, g| g * quick_gelu_slope(x),
        ),
    }
}

/// Computes the gated GELU of rows of `2 * channels`: the first half times the GELU of the second.
pub(crate) fn geglu(channels: usize, x: &[f32], out: &mut [f32]) {
    let rows = rows_of_a_task(channels);
    out.par_chunks_mut(rows * channels).zip(x.par_chunks(rows * 2 * channels)).for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(2 * channels)) {
                    let (value, gate) = x.split_at(channels);
                    for ((out, value), gate) in out.iter_mut().zip(value).zip(gate) {
                        *out = value * gelu(*gate);
                    }
                }
            },
        );
    });
}

/// Computes the gradient of the input of [`geglu`].
pub(crate) fn geglu_backward(channels: usize, x: &[f32], gradient: &[f32], out: &mut [f32]) {
    let rows = rows_of_a_task(channels);
    let tasks = out.par_chunks_mut(rows * 2 * channels).zip(x.par_chunks(rows * 2 * channels));
    tasks.zip(gradient.par_chunks(rows * channels)).for_each(|((out, x), gradient)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = out.chunks_exact_mut(2 * channels).zip(x.chunks_exact(2 * channels));
                for ((out, x), gradient) in rows.zip(gradient.chunks_exact(channels)) {
                    let (value, gate) = x.split_at(channels);
                    let (to_value, to_gate) = out.split_at_mut(channels);
                    for at in 0..channels {
                        to_value[at] = gradient[at] * gelu(gate[at]);
                        to_gate[at] = gradient[at] * value[at] * gelu_slope(gate[at]);
                    }
                }
            },
        );
    });
}

fn rows_of_a_task(channels: usize) -> usize {
    (super::lanes::GRAIN / channels.max(1)).max(1)
}
