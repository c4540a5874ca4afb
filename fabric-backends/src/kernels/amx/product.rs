//! Matrix products.

use std::cell::RefCell;

use super::pack::{Matrix, Rows, block, length, pack, positions};
use super::tiles::{Sums, with_tiles};
use super::{BLOCK, is_on};
use crate::kernels::gemm::{Strides, Target};

/// Shortest axis that fills a block.
const MIN_AXIS: usize = BLOCK;

/// Multiplications below which packing costs more than is gained.
const MIN_MULTIPLICATIONS: usize = 1 << 19;

/// Longest axis of the factors that are packed at a time, which bounds the memory of a thread: 8 MiB each.
const MAX_PART: usize = 2048;

thread_local! {
    /// Buffers for two packed factors. They are reused, as fresh memory costs more than filling it.
    static SCRATCH: RefCell<[Vec<u32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Calls `f` with two buffers of these lengths that begin at a cache line; their values are arbitrary.
pub(super) fn with_words<R>(lengths: [usize; 2], f: impl FnOnce(&mut [u32], &mut [u32]) -> R) -> R {
    const LINE: usize = 64;
    // The buffers are taken out during the call: a task that this thread runs while it waits allocates its own.
    let mut buffers = SCRATCH.take();
    let [a, b] = &mut buffers;
    let [a, b] = [(a, lengths[0]), (b, lengths[1])].map(|(buffer, length)| {
        if buffer.len() < length + LINE {
            buffer.resize(length + LINE, 0);
        }
        let first = buffer.as_ptr().align_offset(LINE);
        &mut buffer[first..first + length]
    });
    let result = f(a, b);
    SCRATCH.set(buffers);
    result
}

/// Whether a product of this size into such a result is computed in bf16.
pub(in crate::kernels) fn is_fast(sizes: [usize; 3], out: Strides) -> bool {
    let multiplications = sizes.iter().product::<usize>();
    is_on() && out.column == 1 && sizes.iter().all(|size| *size >= MIN_AXIS) && multiplications >= MIN_MULTIPLICATIONS
}

/// Returns the length of the parts into which a side of a product is cut, one for each thread.
pub(in crate::kernels) fn part_length(length: usize) -> usize {
    length.div_ceil(rayon::current_num_threads()).next_multiple_of(BLOCK)
}

/// Computes `out = a · b`, or `out += a · b`, on this thread; `a` is `[m, k]`, `b` is `[k, n]`.
///
/// # Safety
///
/// No other thread may read or write the elements of this result during the call.
#[allow(unsafe_code, reason = "threads write rows or columns of one matrix, which interleave")]
pub(in crate::kernels) unsafe fn product(
    [m, n, k]: [usize; 3],
    out: Target<'_>,
    (a, a_at): (&[f32], Strides),
    (b, b_at): (&[f32], Strides),
    add: bool,
) {
    let part = |length: usize, first: usize| MAX_PART.min(length - first);
    for column in (0..n).step_by(MAX_PART) {
        for depth in (0..k).step_by(MAX_PART) {
            let b = (&b[depth * b_at.row + column * b_at.column..], b_at);
            for row in (0..m).step_by(MAX_PART) {
                let sizes = [part(m, row), part(n, column), part(k, depth)];
                let a = (&a[row * a_at.row + depth * a_at.column..], a_at);
                let first = out.first + row * out.strides.row + column;
                // SAFETY: the caller's promise is the same.
                unsafe { product_of_parts(sizes, Target { first, ..out }, a, b, add || depth > 0) }
            }
        }
    }
}

/// Computes [`product`] of factors that are packed at once.
///
/// # Safety
///
/// No other thread may read or write the elements of this result during the call.
#[allow(unsafe_code, reason = "threads write rows or columns of one matrix, which interleave")]
unsafe fn product_of_parts(
    [m, n, k]: [usize; 3],
    out: Target<'_>,
    (a, a_at): (&[f32], Strides),
    (b, b_at): (&[f32], Strides),
    add: bool,
) {
    with_words([length([m, k]), length([n, k])], |a_words, b_words| {
        pack(Matrix { numbers: a, outer: a_at.row, depth: a_at.column }, [m, k], Rows::Outer, a_words);
        pack(Matrix { numbers: b, outer: b_at.column, depth: b_at.row }, [n, k], Rows::Depths, b_words);
        let steps: Vec<_> = positions(k).map(|position| [position; 2]).collect();
        with_tiles(|tiles| {
            let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
            for column in (0..n).step_by(BLOCK) {
                let width = BLOCK.min(n - column);
                for row in (0..m).step_by(BLOCK) {
                    tiles.multiply(block(a_words, row, k), block(b_words, column, k), &steps, &mut sums);
                    for (row, sums) in (row..m).zip(&sums.0) {
                        let first = out.first + row * out.strides.row + column;
                        // SAFETY: these are elements of this result, to which the caller promised exclusive
                        // access.
                        let to = unsafe { out.all.part(first..first + width) };
                        if add {
                            to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
                        } else {
                            to.copy_from_slice(&sums[..width]);
                        }
                    }
                }
            }
        });
    });
}
