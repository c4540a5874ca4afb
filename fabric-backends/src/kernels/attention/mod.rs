//! Tiled softmax attention with a bias for each key: memory grows with the number of keys, not with keys times
//! queries (Dao et al. 2022; Milakov and Gimelshein 2018).

mod forward;

use rayon::prelude::*;

use super::gemm::{Strides, gemm};
use super::lanes::{dot, largest, total, vectorised};
use super::math::exp;
use super::shared::Shared;

/// Sizes and options of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) rows: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    /// Keys of all groups together.
    pub(crate) keys: usize,
    /// Channels of a head.
    pub(crate) dim: usize,
    /// Bias added to the logits of each key; empty means no bias.
    pub(crate) bias: &'a [f32],
    /// Whether a query sees only the keys up to its own position.
    pub(crate) causal: bool,
}

/// View of a slice as `[rows, heads, tokens, dim]`, with the strides of rows, heads and tokens. Channels are
/// contiguous.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) strides: [usize; 3],
}

impl<'a> Tokens<'a> {
    /// Returns the matrix `[tokens, dim]` of a head, from this token on.
    fn head(self, row: usize, head: usize, first: usize) -> (&'a [f32], Strides) {
        let at = row * self.strides[0] + head * self.strides[1] + first * self.strides[2];
        (&self.numbers[at..], Strides { row: self.strides[2], column: 1 })
    }
}

/// Keys and values of one group; all groups share one softmax.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group<'a> {
    pub(crate) key: Tokens<'a>,
    pub(crate) value: Tokens<'a>,
    /// Number of keys.
    pub(crate) count: usize,
}

/// Queries per tile of the backward pass.
const QUERIES: usize = 128;

impl Attention<'_> {
    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Computes the logits of these queries for these keys.
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

    /// Computes the gradients of query, key and value, as `[rows, tokens, heads, dim]`, from the gradient of
    /// the result.
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

    /// Writes tokens of one head, from token `first` on, into `[rows, count, heads, dim]`.
    fn scatter(&self, to: &Shared<'_>, from: &[f32], row: usize, head: usize, (first, count): (usize, usize)) {
        for (number, from) in (first..).zip(from.chunks_exact(self.dim)) {
            let at = ((row * count + number) * self.heads + head) * self.dim;
            #[allow(unsafe_code, reason = "heads of a token lie side by side")]
            // SAFETY: no other task accesses this head of this row.
            unsafe { to.part(at..at + self.dim) }.copy_from_slice(from);
        }
    }
}
