//! Products of a few rows with a matrix that is packed once and reused for many rows.

use std::ops::Range;

use pulp::Simd;

/// Vectors side by side in a panel. With eight rows, the sums and their operands fit into 32 registers.
pub(crate) const ACROSS: usize = 3;

/// Matrix `[depth, columns]`, packed in panels of [`ACROSS`] vectors of columns, each panel row by row. The
/// last vector is padded with zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a> {
    numbers: &'a [f32],
    depth: usize,
    vectors: usize,
}

impl<'a> Panels<'a> {
    /// Wraps a matrix of `depth` rows and `vectors` vectors of columns that is already packed.
    pub(crate) fn packed(numbers: &'a [f32], [depth, vectors]: [usize; 2]) -> Self {
        Self { numbers, depth, vectors }
    }

    /// Packs a matrix for vectors of this length: `copy(row, column, to)` writes the elements of a row from a
    /// column on.
    #[inline(always)]
    pub(crate) fn pack(
        [depth, columns]: [usize; 2],
        lanes: usize,
        numbers: &'a mut Vec<f32>,
        copy: impl Fn(usize, usize, &mut [f32]),
    ) -> Self {
        let vectors = columns.div_ceil(lanes);
        let length = depth * vectors * lanes;
        if numbers.len() < length {
            numbers.resize(length, 0.0);
        }
        let numbers = &mut numbers[..length];
        for (panel, first) in numbers.chunks_mut(depth * ACROSS * lanes).zip((0..).step_by(ACROSS * lanes)) {
            let width = panel.len() / depth;
            let count = width.min(columns - first);
            for (row, to) in panel.chunks_exact_mut(width).enumerate() {
                copy(row, first, &mut to[..count]);
                to[count..].fill(0.0);
            }
        }
        Self { numbers, depth, vectors }
    }

    /// Computes `out = factors · matrix`, or `out += factors · matrix`, for these rows and vectors of the
    /// matrix; the first vector must start a panel. `factors(row)` returns the factors of that row of the
    /// matrix for each of the `N` rows of `out`, which are `stride` apart.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd, const N: usize>(
        self,
        simd: S,
        factors: impl Fn(usize) -> [f32; N] + Copy,
        (rows, vectors): (Range<usize>, Range<usize>),
        (out, stride): (&mut [f32], usize),
        add: bool,
    ) {
        for first in vectors.clone().step_by(ACROSS) {
            let width = ACROSS.min(self.vectors - first);
            let panel = &self.numbers[first * self.depth * S::F32_LANES..][..self.depth * width * S::F32_LANES];
            let panel = &panel[rows.start * width * S::F32_LANES..rows.end * width * S::F32_LANES];
            let out = &mut out[(first - vectors.start) * S::F32_LANES..];
            match width {
                1 => of_panel::<S, N, 1>(simd, factors, panel, (out, stride), add),
                2 => of_panel::<S, N, 2>(simd, factors, panel, (out, stride), add),
                _ => of_panel::<S, N, ACROSS>(simd, factors, panel, (out, stride), add),
            }
        }
    }
}

#[inline(always)]
fn of_panel<S: Simd, const N: usize, const W: usize>(
    simd: S,
    factors: impl Fn(usize) -> [f32; N],
    panel: &[f32],
    (out, stride): (&mut [f32], usize),
    add: bool,
) {
    let width = W * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); W]; N];
    for (row, line) in panel.chunks_exact(width).enumerate() {
        let line = S::as_simd_f32s(line).0;
        let line: [S::f32s; W] = std::array::from_fn(|vector| line[vector]);
        let factors = factors(row);
        for (sums, factor) in sums.iter_mut().zip(factors) {
            let factor = simd.splat_f32s(factor);
            for (sum, x) in sums.iter_mut().zip(line) {
                *sum = simd.mul_add_f32s(factor, x, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let out = S::as_mut_simd_f32s(&mut out[row * stride..][..width]).0;
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = if add { simd.add_f32s(*out, *sum) } else { *sum };
        }
    }
}
