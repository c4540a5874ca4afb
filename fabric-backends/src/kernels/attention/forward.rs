//! Forward pass of attention: a few queries at a time over tiles of keys, with an online softmax.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Attention, Group, Tokens};
use crate::kernels::isa::arch;
use crate::kernels::lanes::largest;
use crate::kernels::math::exp2_of_negative;
use crate::kernels::panels::{ACROSS, Panels};
use crate::kernels::shared::Shared;

/// Queries that are processed at a time with 32 registers; half as many with 16.
const ROWS: usize = 8;

/// Queries that read a tile of keys before the next tile is loaded: a multiple of [`ROWS`].
const QUERIES: usize = 128;

/// Keys per tile: whole panels for vectors of 4, 8 and 16 lanes. The logits of a tile stay in the L1 cache.
const KEYS: usize = 480;

/// Buffers that a thread reuses from one task to the next.
#[derive(Debug, Default)]
struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    sums: Vec<f32>,
}

impl Attention<'_> {
    /// Computes `softmax(query · key / sqrt(dim) + bias) · value` into `[rows, queries, heads, dim]`.
    pub(crate) fn forward(&self, query: Tokens<'_>, groups: &[Group<'_>], out: &mut [f32]) {
        debug_assert_eq!(groups.iter().map(|group| group.count).sum::<usize>(), self.keys, "keys of all groups");
        let out = &Shared::new(out);
        // Each task packs the keys and values of its head, so heads are split only where threads would be idle.
        let pieces = (4 * rayon::current_num_threads()).div_ceil(self.rows * self.heads);
        let piece = self.queries.div_ceil(pieces).next_multiple_of(ROWS);
        let heads = (0..self.rows).flat_map(|row| (0..self.heads).map(move |head| (row, head)));
        let tasks: Vec<_> =
            heads.flat_map(|at| (0..self.queries).step_by(piece).map(move |first| (at, first))).collect();
        tasks.into_par_iter().for_each_init(Scratch::default, |scratch, ((row, head), first)| {
            let queries = first..self.queries.min(first + piece);
            arch().dispatch(Head { sizes: self, query, groups, row, head, queries, scratch, out });
        });
    }
}

/// Task that computes some queries of one head.
struct Head<'a> {
    sizes: &'a Attention<'a>,
    query: Tokens<'a>,
    groups: &'a [Group<'a>],
    row: usize,
    head: usize,
    queries: Range<usize>,
    scratch: &'a mut Scratch,
    out: &'a Shared<'a>,
}

impl WithSimd for Head<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 { self.run::<S, ROWS>(simd) } else { self.run::<S, { ROWS / 2 }>(simd) }
    }
}

impl Head<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let Self { sizes, query, groups, row, head, queries, scratch, out } = self;
        let (dim, keys, lanes) = (sizes.dim, sizes.keys, S::F32_LANES);
        debug_assert!(
            KEYS.is_multiple_of(ACROSS * lanes) && QUERIES.is_multiple_of(N),
            "tiles of whole panels and blocks"
        );
        let (query, query_at) = query.head(row, head, 0);
        // The bias is an extra channel of the keys, for which each query has a 1.
        let channels = dim + usize::from(!sizes.bias.is_empty());
        let key = Panels::pack(
            [channels, keys],
            lanes,
            &mut scratch.keys,
            #[inline(always)]
            |channel, first, to| {
                if channel == dim {
                    for (to, bias) in to.iter_mut().zip(&sizes.bias[first..]) {
                        *to = bias * std::f32::consts::LOG2_E;
                    }
                    return;
                }
                let mut to = &mut to[..];
                let mut before = first;
                for group in groups {
                    // Number of keys of the group in this range.
                    let count = group.count.saturating_sub(before).min(to.len());
                    let (part, rest) = to.split_at_mut(count);
                    if count > 0 {
                        let (key, at) = group.key.head(row, head, before);
                        for (token, to) in part.iter_mut().enumerate() {
                            *to = key[token * at.row + channel];
                        }
                    }
                    before = before.saturating_sub(group.count);
                    to = rest;
                }
            },
        );
        let value = Panels::pack(
            [keys, dim],
            lanes,
            &mut scratch.values,
            #[inline(always)]
            |mut token, first, to| {
                for group in groups {
                    if token < group.count {
                        let (value, _) = group.value.head(row, head, token);
                        to.copy_from_slice(&value[first..][..to.len()]);
                        break;
                    }
                    token -= group.count;
                }
            },
        );
        let wide = dim.next_multiple_of(lanes);
        let most = QUERIES.min(queries.len().next_multiple_of(N));
        for (buffer, length) in [(&mut scratch.queries, most * channels), (&mut scratch.sums, most * wide)] {
            if buffer.len() < length {
                buffer.resize(length, 0.0);
            }
        }
        let (scaled, sums) = (&mut scratch.queries[..most * channels], &mut scratch.sums[..most * wide]);
        let logits = &mut [[0.0_f32; KEYS]; N];
        // Logits to base 2, because powers of 2 are cheaper than powers of e.
        let scale = std::f32::consts::LOG2_E / (dim as f32).sqrt();
        for first in queries.clone().step_by(QUERIES) {
            let count = QUERIES.min(queries.end - first);
            // The queries of a block lie channel by channel. Places beyond the last query repeat it.
            for (block, scaled) in (0..count).step_by(N).zip(scaled.chunks_exact_mut(N * channels)) {
                if channels > dim {
                    scaled[N * dim..].fill(1.0);
                }
                for at in 0..N {
                    let number = first + (block + at).min(count - 1);
                    let query = &query[number * query_at.row..][..dim];
                    for (to, x) in scaled.as_chunks_mut::<N>().0.iter_mut().zip(query) {
                        to[at] = x * scale;
                    }
                }
            }
            let mut running = [Running { top: f32::NEG_INFINITY, total: 0.0 }; QUERIES];
            // A tile of keys stays in the L2 cache while all these queries read it.
            for first_key in (0..keys).step_by(KEYS) {
                for block in (0..count).step_by(N) {
                    // A causal query sees no key beyond its own position.
                    let last = if sizes.causal { keys.min(first + block + N) } else { keys };
                    if last <= first_key {
                        continue;
                    }
                    let seen = KEYS.min(last - first_key);
                    let vectors = first_key / lanes..(first_key + seen).div_ceil(lanes);
                    let factors = scaled[block * channels..][..N * channels].as_chunks::<N>().0;
                    key.multiply::<S, N>(
                        simd,
                        #[inline(always)]
                        |channel| factors[channel],
                        (0..channels, vectors),
                        (logits.as_flattened_mut(), KEYS),
                        false,
                    );
                    let sums = &mut sums[block * wide..][..N * wide];
                    let rows = logits.iter_mut().zip(sums.chunks_exact_mut(wide));
                    for (at, (logits, sums)) in rows.enumerate() {
                        let number = block + at;
                        if sizes.causal {
                            let own = (first + number + 1).saturating_sub(first_key).min(seen);
                            logits[own..seen].fill(f32::NEG_INFINITY);
                        }
                        running[number].share(&mut logits[..seen], sums);
                    }
                    value.multiply::<S, N>(
                        simd,
                        #[inline(always)]
                        |token: usize| {
                            // Lets the compiler prove that the index is in bounds.
                            let token = token.min(KEYS - 1);
                            std::array::from_fn(
                                #[inline(always)]
                                |at| logits[at][token],
                            )
                        },
                        (first_key..first_key + seen, 0..wide / lanes),
                        (sums, wide),
                        first_key > 0,
                    );
                }
            }
            for (number, (running, sums)) in (first..first + count).zip(running.iter().zip(sums.chunks_exact(wide))) {
                let to = ((row * sizes.queries + number) * sizes.heads + head) * dim;
                #[allow(unsafe_code, reason = "heads of a token lie side by side")]
                // SAFETY: no other task accesses this query of this head.
                let out = unsafe { out.part(to..to + dim) };
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = sum / running.total;
                }
            }
        }
    }
}

/// State of a query's online softmax over the keys so far.
#[derive(Debug, Clone, Copy)]
struct Running {
    /// The largest logit.
    top: f32,
    /// The sum of `2^(logit - top)` over all logits so far.
    total: f32,
}

impl Running {
    /// Replaces the logits of a tile with `2^(logit - top)` and adds them to the total. Scales the earlier
    /// total and `sums` down if the tile contains a new largest logit.
    #[inline(always)]
    fn share(&mut self, logits: &mut [f32], sums: &mut [f32]) {
        let highest = largest(logits).max(self.top);
        if highest > self.top {
            let less = exp2_of_negative(self.top - highest);
            self.total *= less;
            for x in sums {
                *x *= less;
            }
            self.top = highest;
        }
        self.total += powers(logits, highest);
    }
}

/// Replaces each `x` with `2^(x - top)` and returns their sum.
#[inline(always)]
fn powers(x: &mut [f32], top: f32) -> f32 {
    let (chunks, rest) = x.as_chunks_mut::<16>();
    let mut lanes = [0.0_f32; 16];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp2_of_negative(*x - top);
            *lane += *x;
        }
    }
    for x in rest.iter_mut() {
        *x = exp2_of_negative(*x - top);
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}
