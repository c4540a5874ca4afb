//! Matrix products.

use rayon::prelude::*;

use super::amx;
use super::shared::Shared;

/// Strides of a matrix in a slice: element `(i, j)` lies at `i * row + j * column`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Strides {
    /// Strides of contiguous rows of this length.
    pub(crate) fn rows(length: usize) -> Self {
        Self { row: length, column: 1 }
    }

    /// Strides of the transposed matrix.
    pub(crate) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row }
    }

    /// Number of elements from the first to the last of a matrix of this size.
    fn reach(self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.row + (columns - 1) * self.column + 1
    }
}

/// Computes `out = a · b`, or `out += a · b`, on this thread and always in f32, for attention: its backward pass must
/// find the same weights as the forward pass. `a` is `[m, k]`, `b` is `[k, n]`, neither of them empty.
pub(crate) fn gemm(
    sizes: [usize; 3],
    (out, strides): (&mut [f32], Strides),
    a: (&[f32], Strides),
    b: (&[f32], Strides),
    add: bool,
) {
    let start = if add { Start::Result } else { Start::Nothing };
    #[allow(unsafe_code, reason = "nobody else has this slice")]
    // SAFETY: `out` is borrowed exclusively.
    unsafe {
        multiply(sizes, Target { all: &Shared::new(out), first: 0, strides }, a, b, start, false);
    }
}

/// Initial value to which a product is added.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Zero: earlier values of the result are overwritten.
    Nothing,
    /// The current values of the result.
    Result,
    /// These values in each row.
    Row(&'a [f32]),
    /// These values in each column.
    Column(&'a [f32]),
}

/// Where a product is written: the index of its first element in a shared slice, and its strides.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) all: &'a Shared<'a>,
    pub(crate) first: usize,
    pub(crate) strides: Strides,
}

impl Target<'_> {
    /// Returns the part from this row and column on.
    fn from(self, row: usize, column: usize) -> Self {
        Self { first: self.first + row * self.strides.row + column * self.strides.column, ..self }
    }
}

/// Computes a product on this thread into a part of a slice that several threads write.
///
/// # Safety
///
/// No other thread may read or write the elements of this result during the call.
#[allow(unsafe_code, reason = "threads write rows or columns of one matrix, which interleave")]
pub(crate) unsafe fn gemm_shared(
    sizes: [usize; 3],
    out: Target<'_>,
    a: (&[f32], Strides),
    b: (&[f32], Strides),
    start: Start<'_>,
) {
    // SAFETY: the caller's promise is the same.
    unsafe { multiply(sizes, out, a, b, start, amx::is_fast(sizes, out.strides)) }
}

/// Computes [`gemm_shared`], on the tile registers if `in_tiles`.
///
/// # Safety
///
/// No other thread may read or write the elements of this result during the call.
#[allow(unsafe_code, reason = "threads write rows or columns of one matrix, which interleave")]
unsafe fn multiply(
    [m, n, k]: [usize; 3],
    out: Target<'_>,
    (a, a_at): (&[f32], Strides),
    (b, b_at): (&[f32], Strides),
    start: Start<'_>,
    in_tiles: bool,
) {
    assert!(m > 0 && n > 0 && k > 0, "gemm: {m} x {k} x {n}");
    assert!(a_at.reach(m, k) <= a.len() && b_at.reach(k, n) <= b.len());
    match start {
        Start::Nothing | Start::Result => (),
        Start::Row(values) => {
            assert!(out.strides.column == 1 && values.len() >= n);
            for row in 0..m {
                let first = out.from(row, 0).first;
                // SAFETY: these are elements of this result, to which the caller promised exclusive access.
                unsafe { out.all.part(first..first + n) }.copy_from_slice(&values[..n]);
            }
        }
        Start::Column(values) => {
            assert!(out.strides.column == 1 && values.len() >= m);
            for (row, value) in values[..m].iter().enumerate() {
                let first = out.from(row, 0).first;
                // SAFETY: these are elements of this result, to which the caller promised exclusive access.
                unsafe { out.all.part(first..first + n) }.fill(*value);
            }
        }
    }
    let Target { all, first, strides: out_at } = out;
    let add = !matches!(start, Start::Nothing);
    if in_tiles {
        // SAFETY: the caller promised exclusive access to the elements of the result.
        return unsafe { amx::product([m, n, k], out, (a, a_at), (b, b_at), add) };
    }
    let out = all.pointer(first, out_at.reach(m, n));
    let step = |stride: usize| stride as isize;
    // SAFETY: the three matrices lie within their slices, as the assertion above and that of `pointer` check,
    // and the caller promised exclusive access to the elements of the result.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            step(out_at.column),
            step(out_at.row),
            add,
            a.as_ptr(),
            step(a_at.column),
            step(a_at.row),
            b.as_ptr(),
            step(b_at.column),
            step(b_at.row),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Computes [`gemm_shared`] on all threads.
///
/// # Safety
///
/// No other thread may read or write the elements of this result during the call.
#[allow(unsafe_code, reason = "threads write rows or columns of one matrix, which interleave")]
pub(crate) unsafe fn product_shared(
    [m, n, k]: [usize; 3],
    out: Target<'_>,
    (a, a_at): (&[f32], Strides),
    (b, b_at): (&[f32], Strides),
    start: Start<'_>,
) {
    // The longer side is split, so that each task reuses what it packs of the other one as often as possible.
    let in_tiles = amx::is_fast([m, n, k], out.strides);
    let cut = |length: usize| match in_tiles {
        true => amx::part_length(length),
        false => length.div_ceil(16).next_multiple_of(32).min(512),
    };
    let (rows, columns) = if m >= n { (cut(m), n) } else { (m, cut(n)) };
    let blocks: Vec<_> =
        (0..m).step_by(rows).flat_map(|row| (0..n).step_by(columns).map(move |column| (row, column))).collect();
    blocks.into_par_iter().for_each(|(row, column)| {
        let sizes = [rows.min(m - row), columns.min(n - column), k];
        let (a, b) = (&a[row * a_at.row..], &b[column * b_at.column..]);
        let start = match start {
            Start::Nothing | Start::Result => start,
            Start::Row(values) => Start::Row(&values[column..]),
            Start::Column(values) => Start::Column(&values[row..]),
        };
        // SAFETY: no other task accesses this block, and the caller promised exclusive access to the result.
        unsafe { multiply(sizes, out.from(row, column), (a, a_at), (b, b_at), start, in_tiles) }
    });
}

/// Computes [`product_shared`] into contiguous rows of `n` elements; does nothing if the result is empty.
pub(crate) fn product(
    sizes: [usize; 3],
    out: &mut [f32],
    a: (&[f32], Strides),
    b: (&[f32], Strides),
    start: Start<'_>,
) {
    let [m, n, _] = sizes;
    if m * n == 0 {
        return;
    }
    #[allow(unsafe_code, reason = "nobody else has this slice")]
    // SAFETY: `out` is borrowed exclusively.
    unsafe {
        product_shared(sizes, Target { all: &Shared::new(out), first: 0, strides: Strides::rows(n) }, a, b, start);
    }
}
