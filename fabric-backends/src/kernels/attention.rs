//! Softmax attention by tiles, with a bias for each key: memory grows with the keys, not with their product with the
//! queries (Dao et al. 2022; Milakov and Gimelshein 2018).

use rayon::prelude::*;

use super::gemm::{Strides, gemm};
use super::lanes::{dot, largest, total, vectorised};
use super::math::exp;
use super::shared::Shared;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) rows: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// Channels of a head.
    pub(crate) dim: usize,
    /// Added to the logits of each key; empty stands for zeros.
    pub(crate) bias: &'a [f32],
    /// Whether a query sees only the keys up to its own number.
    pub(crate) causal: bool,
}

/// `[rows, heads, tokens, dim]` in a slice: how far apart rows, heads and tokens lie. Channels lie side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) strides: [usize; 3],
}

impl<'a> Tokens<'a> {
    /// The matrix `[tokens, dim]` of a head, from this token on.
    fn head(self, row: usize, head: usize, first: usize) -> (&'a [f32], Strides) {
        let at = row * self.strides[0] + head * self.strides[1] + first * self.strides[2];
        (&self.numbers[at..], Strides { row: self.strides[2], column: 1 })
    }
}

/// Queries and keys of a tile. Its logits fill a quarter of a usual second cache.
const QUERIES: usize = 128;
const KEYS: usize = 512;

impl Attention<'_> {
    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// The logits of these queries for these keys.
    fn logits(
        &self,
        query: (&[f32], Strides),
        key: (&[f32], Strides),
        [first_query, queries, first_key, keys]: [usize; 4],
        out: &mut [f32],
    ) {
        let turned = (key.0, key.1.transposed());
        gemm([queries, keys, self.dim], (out, Strides::rows(keys)), query, turned, false);
        let scale = self.scale();
        vectorised(
            #[inline(always)]
            || {
                for (number, row) in (first_query..).zip(out.chunks_exact_mut(keys)) {
                    if self.bias.is_empty() {
                        for x in row.iter_mut() {
                            *x *= scale;
                        }
                    } else {
                        for (x, bias) in row.iter_mut().zip(&self.bias[first_key..]) {
                            *x = x.mul_add(scale, *bias);
                        }
                    }
                    if self.causal {
                        let seen = (number + 1).saturating_sub(first_key).min(keys);
                        row[seen..].fill(f32::NEG_INFINITY);
                    }
                }
            },
        );
    }

    /// Tasks: row, head, first query.
    fn tasks(&self) -> Vec<(usize, usize, usize)> {
        let heads = (0..self.rows).flat_map(|row| (0..self.heads).map(move |head| (row, head)));
        heads.flat_map(|(row, head)| (0..self.queries).step_by(QUERIES).map(move |first| (row, head, first))).collect()
    }

    /// `softmax(query · key / sqrt(dim) + bias) · value`, into `[rows, queries, heads, dim]`.
    pub(crate) fn forward(&self, query: Tokens<'_>, key: Tokens<'_>, value: Tokens<'_>, out: &mut [f32]) {
        let (dim, tile) = (self.dim, KEYS.min(self.keys));
        let out = Shared::new(out);
        self.tasks().into_par_iter().for_each_init(
            || (vec![0.0_f32; QUERIES.min(self.queries) * tile], vec![0.0_f32; QUERIES.min(self.queries) * dim]),
            |(logits, sums), (row, head, first)| {
                let queries = QUERIES.min(self.queries - first);
                let sums = &mut sums[..queries * dim];
                let (mut tops, mut totals) = ([f32::NEG_INFINITY; QUERIES], [0.0_f32; QUERIES]);
                // A causal query sees no key beyond the last query of its tile.
                let last = if self.causal { self.keys.min(first + queries) } else { self.keys };
                for first_key in (0..last).step_by(tile) {
                    let keys = tile.min(last - first_key);
                    let logits = &mut logits[..queries * keys];
                    let part = [first, queries, first_key, keys];
                    self.logits(query.head(row, head, first), key.head(row, head, first_key), part, logits);
                    vectorised(
                        #[inline(always)]
                        || {
                            let state = tops.iter_mut().zip(&mut totals).zip(sums.chunks_exact_mut(dim));
                            for (logits, ((top, whole), sums)) in logits.chunks_exact_mut(keys).zip(state) {
                                let highest = largest(logits).max(*top);
                                if highest > *top {
                                    // What was summed so far counts less beside a larger logit.
                                    let less = exp(*top - highest);
                                    *whole *= less;
                                    for x in sums {
                                        *x *= less;
                                    }
                                    *top = highest;
                                }
                                for x in logits.iter_mut() {
                                    *x = exp(*x - highest);
                                }
                                *whole += total(logits);
                            }
                        },
                    );
                    let seen = value.head(row, head, first_key);
                    gemm(
                        [queries, dim, keys],
                        (sums, Strides::rows(dim)),
                        (logits, Strides::rows(keys)),
                        seen,
                        first_key > 0,
                    );
                }
                for ((number, sums), total) in (first..).zip(sums.chunks_exact(dim)).zip(&totals) {
                    let at = ((row * self.queries + number) * self.heads + head) * dim;
                    #[allow(unsafe_code, reason = "heads of a token lie side by side")]
                    // SAFETY: no other task has this query of this head.
                    let out = unsafe { out.part(at..at + dim) };
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = sum / total;
                    }
                }
            },
        );
    }

    /// The gradients of query, key and value, as `[rows, tokens, heads, dim]`, from those of the result.
    pub(crate) fn backward(
        &self,
        [query, key, value, gradient]: [Tokens<'_>; 4],
        [to_query, to_key, to_value]: [&mut [f32]; 3],
    ) {
        let (dim, keys) = (self.dim, self.keys);
        let [to_query, to_key, to_value] = [to_query, to_key, to_value].map(Shared::new);
        let heads: Vec<_> = (0..self.rows).flat_map(|row| (0..self.heads).map(move |head| (row, head))).collect();
        let tile = QUERIES.min(self.queries);
        heads.into_par_iter().for_each_init(
            || [tile * keys, tile * keys, tile * dim, keys * dim, keys * dim].map(|length| vec![0.0_f32; length]),
            |[share, slope, of_query, of_key, of_value], (row, head)| {
                for first in (0..self.queries).step_by(QUERIES) {
                    let queries = QUERIES.min(self.queries - first);
                    let (share, slope) = (&mut share[..queries * keys], &mut slope[..queries * keys]);
                    let of_query = &mut of_query[..queries * dim];
                    let wide = Strides::rows(keys);
                    let (q, g) = (query.head(row, head, first), gradient.head(row, head, first));
                    let (k, v) = (key.head(row, head, 0), value.head(row, head, 0));
                    self.logits(q, k, [first, queries, 0, keys], share);
                    gemm([queries, keys, dim], (slope, wide), g, (v.0, v.1.transposed()), false);
                    let scale = self.scale();
                    vectorised(
                        #[inline(always)]
                        || {
                            for (share, slope) in share.chunks_exact_mut(keys).zip(slope.chunks_exact_mut(keys)) {
                                let top = largest(share);
                                for x in share.iter_mut() {
                                    *x = exp(*x - top);
                                }
                                let whole = 1.0 / total(share);
                                for x in share.iter_mut() {
                                    *x *= whole;
                                }
                                let mean = dot(share, slope);
                                for (slope, share) in slope.iter_mut().zip(share) {
                                    *slope = *share * (*slope - mean) * scale;
                                }
                            }
                        },
                    );
                    let again = first > 0;
                    let narrow = Strides::rows(dim);
                    gemm([queries, dim, keys], (of_query, narrow), (slope, wide), k, false);
                    gemm([keys, dim, queries], (of_key, narrow), (slope, wide.transposed()), q, again);
                    gemm([keys, dim, queries], (of_value, narrow), (share, wide.transposed()), g, again);
                    self.scatter(&to_query, of_query, row, head, (first, self.queries));
                }
                self.scatter(&to_key, of_key, row, head, (0, keys));
                self.scatter(&to_value, of_value, row, head, (0, keys));
            },
        );
    }

    /// Writes a head's tokens, from the `first` of `count` on, among those of the other heads.
    fn scatter(&self, to: &Shared<'_>, from: &[f32], row: usize, head: usize, (first, count): (usize, usize)) {
        for (number, from) in (first..).zip(from.chunks_exact(self.dim)) {
            let at = ((row * count + number) * self.heads + head) * self.dim;
            #[allow(unsafe_code, reason = "heads of a token lie side by side")]
            // SAFETY: no other task has this head of this row.
            unsafe { to.part(at..at + self.dim) }.copy_from_slice(from);
        }
    }
}
