//! Matrix products.

use std::cell::RefCell;

use super::pack::{Matrix, Rows, block, length, pack, positions};
use super::tiles::{Sums, multiply, with_tiles};
use super::{BLOCK, is_on};
use crate::kernels::gemm::{Strides, Target};

/// Length below which an axis would leave most of a tile empty.
const SHORT: usize = 32;

/// Multiplications below which packing costs more than is gained.
const FEW: usize = 1 << 19;

/// Longest side of a part of a product, which bounds the memory of a packed factor.
const LONG: usize = 2048;

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

/// Whether [`product`] computes a product of this size into such a result.
pub(in crate::kernels) fn takes(sizes: [usize; 3], out: Strides) -> bool {
    is_on() && out.column == 1 && sizes.iter().all(|size| *size >= SHORT) && sizes.iter().product::<usize>() >= FEW
}

/// Returns the length of the parts into which a side of a product is cut, one for each thread.
pub(in crate::kernels) fn cut(length: usize) -> usize {
    length.div_ceil(rayon::current_num_threads()).next_multiple_of(BLOCK).min(LONG)
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
    with_words([length([m, k]), length([n, k])], |a_words, b_words| {
        pack(Matrix { numbers: a, outer: a_at.row, depth: a_at.column }, [m, k], Rows::Outer, a_words);
        pack(Matrix { numbers: b, outer: b_at.column, depth: b_at.row }, [n, k], Rows::Depths, b_words);
        let steps: Vec<_> = positions(k).map(|position| [position; 2]).collect();
        with_tiles(|| {
            let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
            for column in (0..n).step_by(BLOCK) {
                let width = BLOCK.min(n - column);
                for row in (0..m).step_by(BLOCK) {
                    multiply(block(a_words, row, k), block(b_words, column, k), &steps, &mut sums);
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
