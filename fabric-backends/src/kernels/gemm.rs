//! Matrix products on one thread; who calls it splits the work.

/// A matrix in a slice: element `(i, j)` lies at `i * row + j * column`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Strides {
    /// Rows of this length, one after the other.
    pub(crate) fn rows(length: usize) -> Self {
        Self { row: length, column: 1 }
    }

    /// The transposed view.
    pub(crate) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row }
    }

    /// Elements that a matrix of this size reaches over.
    fn reach(self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.row + (columns - 1) * self.column + 1
    }
}

/// `out = a · b`, or `out += a · b`; `a` is `[m, k]`, `b` is `[k, n]`, none of them empty.
pub(crate) fn gemm(
    [m, n, k]: [usize; 3],
    (out, out_at): (&mut [f32], Strides),
    (a, a_at): (&[f32], Strides),
    (b, b_at): (&[f32], Strides),
    add: bool,
) {
    assert!(m > 0 && n > 0 && k > 0, "gemm: {m} x {k} x {n}");
    assert!(out_at.reach(m, n) <= out.len() && a_at.reach(m, k) <= a.len() && b_at.reach(k, n) <= b.len());
    let step = |stride: usize| stride as isize;
    #[allow(unsafe_code, reason = "the crate takes pointers and strides")]
    // SAFETY: the three matrices lie within their slices, as was just asserted, and `out` is borrowed alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
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
