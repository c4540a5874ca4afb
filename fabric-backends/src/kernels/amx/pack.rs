//! Rounds factors to bf16 and arranges them in tiles.

use super::tiles::Factor;
use super::{BLOCK, DEPTH, TILE};
use crate::kernels::isa::arch;
use crate::kernels::lanes::vectorised;

/// Words of a tile.
const WORDS: usize = TILE * TILE;

/// A tile: rows of words.
pub(super) type Tile = [[u32; TILE]; TILE];

/// View of a slice as a matrix: element `(outer, depth)` lies at `outer * self.outer + depth * self.depth`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) outer: usize,
    pub(super) depth: usize,
}

/// Axis along which the rows of a tile lie: the first factor of a product has its outer index there, the second
/// one its pairs of depths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Outer,
    Depths,
}

/// Returns the number of words of a packed matrix.
pub(super) fn length([outer, depth]: [usize; 2]) -> usize {
    outer.next_multiple_of(BLOCK) / TILE * panel(depth)
}

/// Returns the number of words of sixteen outer indices of a packed matrix.
pub(super) fn panel(depth: usize) -> usize {
    depth.div_ceil(DEPTH) * WORDS
}

/// Packs a matrix of this size, padded with zeros: all depths of sixteen outer indices, then of the next.
pub(super) fn pack(matrix: Matrix<'_>, [outer, depth]: [usize; 2], rows: Rows, to: &mut [u32]) {
    let tiles = to.as_chunks_mut::<TILE>().0.as_chunks_mut::<TILE>().0;
    for (block, tiles) in tiles.chunks_exact_mut(depth.div_ceil(DEPTH)).enumerate() {
        let first = block * TILE;
        let outers = TILE.min(outer.saturating_sub(first));
        if outers == 0 {
            tiles.fill([[0; TILE]; TILE]);
            continue;
        }
        vectorised(
            #[inline(always)]
            || {
                for (tile, from) in tiles.iter_mut().zip((0..).step_by(DEPTH)) {
                    let numbers = &matrix.numbers[first * matrix.outer + from * matrix.depth..];
                    pack_tile(Matrix { numbers, ..matrix }, [outers, DEPTH.min(depth - from)], rows, tile);
                }
            },
        );
    }
}

/// Packs at most 16 outer indices and 32 depths.
#[inline(always)]
pub(super) fn pack_tile(matrix: Matrix<'_>, size: [usize; 2], rows: Rows, tile: &mut Tile) {
    let is_along = if matrix.depth == 1 {
        along(matrix, size, tile);
        Rows::Outer
    } else if matrix.outer == 1 {
        across(matrix, size, tile);
        Rows::Depths
    } else {
        scattered(matrix, size, tile);
        Rows::Outer
    };
    if is_along != rows {
        transpose(tile);
    }
}

/// Packs a matrix whose depths are contiguous, with outer indices as rows.
#[inline(always)]
fn along(matrix: Matrix<'_>, [outers, depths]: [usize; 2], tile: &mut Tile) {
    for (outer, row) in tile.iter_mut().enumerate() {
        *row = if outer >= outers {
            [0; TILE]
        } else {
            let numbers = &matrix.numbers[outer * matrix.outer..][..depths];
            match numbers.first_chunk::<DEPTH>() {
                Some(numbers) => pairs(numbers),
                None => {
                    let mut padded = [0.0; DEPTH];
                    padded[..depths].copy_from_slice(numbers);
                    pairs(&padded)
                }
            }
        };
    }
}

/// Packs a matrix whose outer indices are contiguous, with pairs of depths as rows.
#[inline(always)]
fn across(matrix: Matrix<'_>, [outers, depths]: [usize; 2], tile: &mut Tile) {
    const ZERO: [f32; TILE] = [0.0; TILE];
    if outers == TILE {
        for (pair, row) in tile.iter_mut().enumerate() {
            let numbers = |depth: usize| {
                let numbers = if depth < depths { &matrix.numbers[depth * matrix.depth..] } else { &ZERO };
                numbers.first_chunk().expect("sixteen outer indices")
            };
            *row = interleave(numbers(2 * pair), numbers(2 * pair + 1));
        }
        return;
    }
    for (pair, row) in tile.iter_mut().enumerate() {
        let [low, high] = [2 * pair, 2 * pair + 1].map(|depth| {
            let mut padded = ZERO;
            if depth < depths {
                padded[..outers].copy_from_slice(&matrix.numbers[depth * matrix.depth..][..outers]);
            }
            padded
        });
        *row = interleave(&low, &high);
    }
}

/// Packs a matrix without contiguous axis, with outer indices as rows.
#[inline(always)]
fn scattered(matrix: Matrix<'_>, [outers, depths]: [usize; 2], tile: &mut Tile) {
    *tile = [[0; TILE]; TILE];
    for (outer, row) in tile[..outers].iter_mut().enumerate() {
        let mut padded = [0.0; DEPTH];
        let numbers = matrix.numbers[outer * matrix.outer..].iter().step_by(matrix.depth);
        for (to, number) in padded[..depths].iter_mut().zip(numbers) {
            *to = *number;
        }
        *row = pairs(&padded);
    }
}

/// Returns words of neighbouring numbers.
#[inline(always)]
fn pairs(numbers: &[f32; DEPTH]) -> [u32; TILE] {
    let mut words = [0; TILE];
    for (word, pair) in words.iter_mut().zip(numbers.as_chunks::<2>().0) {
        *word = word_of(pair[0], pair[1]);
    }
    words
}

/// Returns words of one number of each slice.
#[inline(always)]
pub(super) fn interleave(low: &[f32; TILE], high: &[f32; TILE]) -> [u32; TILE] {
    let mut words = [0; TILE];
    for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
        *word = word_of(*low, *high);
    }
    words
}

#[inline(always)]
fn word_of(low: f32, high: f32) -> u32 {
    rounded(low) >> 16 | rounded(high) & 0xffff_0000
}

/// Rounds to the nearest bf16, ties to even, in the upper half of the word.
#[inline(always)]
fn rounded(number: f32) -> u32 {
    const QUIET_NAN: u32 = 0x7fc0_0000;
    let bits = number.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if number.is_nan() { QUIET_NAN } else { rounded }
}

#[inline(always)]
fn transpose(tile: &mut Tile) {
    #[cfg(target_arch = "x86_64")]
    if let pulp::Arch::V4(_) = arch() {
        #[allow(unsafe_code, reason = "the compiler makes scalar code of the plain implementation")]
        // SAFETY: the processor has AVX-512.
        unsafe {
            transpose_avx512(tile);
        }
        return;
    }
    let from = *tile;
    for (i, row) in tile.iter_mut().enumerate() {
        for (word, from) in row.iter_mut().zip(&from) {
            *word = from[i];
        }
    }
}

/// Transposes blocks of 4x4 words within all registers, then the blocks.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "loads and stores of whole rows")]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(tile: &mut Tile) {
    use std::arch::x86_64::{
        _mm512_loadu_epi32, _mm512_shuffle_i32x4 as shuffle, _mm512_storeu_epi32, _mm512_unpackhi_epi32,
        _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    };
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xdd;
    // SAFETY: a row has sixteen words.
    let row = |at: usize| unsafe { _mm512_loadu_epi32(tile[at].as_ptr().cast()) };
    let blocks: [_; 4] = std::array::from_fn(|block| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| row(4 * block + at));
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (lower, higher) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(low, lower),
            _mm512_unpackhi_epi64(low, lower),
            _mm512_unpacklo_epi64(high, higher),
            _mm512_unpackhi_epi64(high, higher),
        ]
    });
    for at in 0..4 {
        let [a, b, c, d] = blocks.map(|block| block[at]);
        let (even, odd) = (shuffle::<EVEN>(a, b), shuffle::<ODD>(a, b));
        let (evens, odds) = (shuffle::<EVEN>(c, d), shuffle::<ODD>(c, d));
        let rows = [
            shuffle::<EVEN>(even, evens),
            shuffle::<EVEN>(odd, odds),
            shuffle::<ODD>(even, evens),
            shuffle::<ODD>(odd, odds),
        ];
        for (block, row) in rows.into_iter().enumerate() {
            // SAFETY: a row has sixteen words.
            unsafe { _mm512_storeu_epi32(tile[4 * block + at].as_mut_ptr().cast(), row) }
        }
    }
}

/// Returns the first block of a packed matrix from this outer index on, a multiple of 32.
pub(super) fn block(words: &[u32], outer: usize, depth: usize) -> Factor<'_> {
    let panel = panel(depth);
    Factor { words: &words[outer / TILE * panel..][..2 * panel], stride: TILE, second: panel }
}

/// Positions of the tiles of a packed matrix along its depth.
pub(super) fn positions(depth: usize) -> impl Iterator<Item = usize> {
    (0..depth.div_ceil(DEPTH)).map(|step| step * WORDS)
}
