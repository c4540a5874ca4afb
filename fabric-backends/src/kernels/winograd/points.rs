//! The transforms along one axis of a tile. They compute the convolution as a product of polynomials, from the
//! values of the polynomials at six points.
//!
//! The points are 0, ±3/4, ±3/2 and infinity. The paper's points 0, ±1, ±2 and infinity need fewer
//! multiplications in the transforms but have twice the rounding error.

use pulp::Simd;

/// Outputs of a tile along an axis.
pub(super) const OUTPUTS: usize = 4;

/// Inputs of a tile along an axis; also the number of points.
pub(super) const INPUTS: usize = OUTPUTS + 2;

/// The points, and their squares.
const NEAR: f32 = 0.75;
const FAR: f32 = 1.5;
const NEAR2: f32 = NEAR * NEAR;
const FAR2: f32 = FAR * FAR;

#[inline(always)]
pub(super) fn load<S: Simd>(_: S, x: &[f32]) -> S::f32s {
    S::as_simd_f32s(&x[..S::F32_LANES]).0[0]
}

#[inline(always)]
pub(super) fn store<S: Simd>(to: &mut [f32], x: S::f32s) {
    S::as_mut_simd_f32s(&mut to[..S::F32_LANES]).0[0] = x;
}

/// `x - factor · y`.
#[inline(always)]
fn less<S: Simd>(simd: S, x: S::f32s, factor: f32, y: S::f32s) -> S::f32s {
    simd.mul_add_f32s(simd.splat_f32s(-factor), y, x)
}

/// Returns [`of_input`] at the points `±point`; `other2` is the square of the other pair of points.
#[inline(always)]
fn input_pair<S: Simd>(simd: S, x: [S::f32s; INPUTS], point: f32, other2: f32) -> [S::f32s; 2] {
    let (even, odd) = (less(simd, x[4], other2, x[2]), less(simd, x[3], other2, x[1]));
    let odd = simd.mul_f32s(simd.splat_f32s(point), odd);
    [simd.add_f32s(even, odd), simd.sub_f32s(even, odd)]
}

/// Input transform of six pixels: multiplies by the paper's `Bᵀ`.
#[inline(always)]
pub(super) fn of_input<S: Simd>(simd: S, x: [S::f32s; INPUTS]) -> [S::f32s; INPUTS] {
    let ([a, b], [c, d]) = (input_pair(simd, x, NEAR, FAR2), input_pair(simd, x, FAR, NEAR2));
    let product = simd.splat_f32s(NEAR2 * FAR2);
    let first = simd.mul_add_f32s(product, x[0], less(simd, x[4], NEAR2 + FAR2, x[2]));
    let last = simd.mul_add_f32s(product, x[1], less(simd, x[5], NEAR2 + FAR2, x[3]));
    [first, a, b, c, d, last]
}

/// Returns [`of_kernel`] at the points `±point`; `other2` is the square of the other pair of points.
#[inline(always)]
fn kernel_pair<S: Simd>(simd: S, x: [S::f32s; 3], point: f32, other2: f32) -> [S::f32s; 2] {
    let point2 = point * point;
    let whole = 1.0 / (2.0 * point2 * (point2 - other2));
    let (even, odd) =
        (two(simd, (whole, x[0]), (point2 * whole, x[2])), simd.mul_f32s(simd.splat_f32s(point * whole), x[1]));
    [simd.add_f32s(even, odd), simd.sub_f32s(even, odd)]
}

/// Kernel transform of three taps: multiplies by the paper's `G`, which includes the divisors that [`of_input`]
/// omits.
#[inline(always)]
pub(super) fn of_kernel<S: Simd>(simd: S, x: [S::f32s; 3]) -> [S::f32s; INPUTS] {
    let ([a, b], [c, d]) = (kernel_pair(simd, x, NEAR, FAR2), kernel_pair(simd, x, FAR, NEAR2));
    [simd.mul_f32s(simd.splat_f32s(1.0 / (NEAR2 * FAR2)), x[0]), a, b, c, d, x[2]]
}

/// `a · x + b · y`.
#[inline(always)]
fn two<S: Simd>(simd: S, (a, x): (f32, S::f32s), (b, y): (f32, S::f32s)) -> S::f32s {
    simd.mul_add_f32s(simd.splat_f32s(a), x, simd.mul_f32s(simd.splat_f32s(b), y))
}

/// Output transform of the sums at the six points: multiplies by the paper's `Aᵀ`.
#[inline(always)]
pub(super) fn of_sums<S: Simd>(simd: S, x: [S::f32s; INPUTS]) -> [S::f32s; OUTPUTS] {
    let (near, far) = (simd.add_f32s(x[1], x[2]), simd.add_f32s(x[3], x[4]));
    let (near_odd, far_odd) = (simd.sub_f32s(x[1], x[2]), simd.sub_f32s(x[3], x[4]));
    [
        simd.add_f32s(x[0], simd.add_f32s(near, far)),
        two(simd, (NEAR, near_odd), (FAR, far_odd)),
        two(simd, (NEAR2, near), (FAR2, far)),
        simd.add_f32s(x[5], two(simd, (NEAR2 * NEAR, near_odd), (FAR2 * FAR, far_odd))),
    ]
}
