//! Attention to decoupled tokens: each in a softmax of its own, or several in a common one.

use std::ops::Range;

use burn::tensor::Tensor;
use fabric_backends::ops::{KeyGroup, grouped_attention};

use super::attend::{cuts, merge_heads, rows_of, split_heads};
use super::{AttnExtras, DecoupledTokens};

/// Decoupled tokens in one softmax, and the rows that see all of them.
#[derive(Debug)]
pub(super) struct Softmax<'a> {
    rows: Range<usize>,
    /// The tokens, with their index among all decoupled tokens.
    tokens: Vec<(usize, &'a DecoupledTokens)>,
}

/// Returns the softmaxes of the decoupled tokens of a batch of `rows` rows: one for each that shares none, and one for each
/// range of rows that sees the same shared tokens.
pub(super) fn softmaxes(rows: usize, extras: &AttnExtras) -> Vec<Softmax<'_>> {
    let acting = extras.decoupled.iter().enumerate().filter(|(_, tokens)| tokens.scale != 0.0);
    let (common, own): (Vec<_>, Vec<_>) = acting.partition(|(_, tokens)| tokens.is_in_common_softmax());
    let mut all: Vec<Softmax<'_>> =
        own.into_iter().map(|one| Softmax { rows: one.1.rows.clone(), tokens: vec![one] }).collect();
    for rows in cuts(rows, common.iter().map(|(_, tokens)| &tokens.rows)) {
        let seen = common.iter().filter(|(_, tokens)| tokens.rows.start <= rows.start && rows.end <= tokens.rows.end);
        let tokens: Vec<_> = seen.copied().collect();
        if !tokens.is_empty() {
            all.push(Softmax { rows, tokens });
        }
    }
    all
}

impl Softmax<'_> {
    /// Adds the result, scaled and masked, to the rows of `out` that see the tokens.
    ///
    /// # Shapes
    ///
    /// - `out`, `query`: `[rows, queries, heads * head_dim]`
    /// - returns: same shape
    pub(super) fn add(&self, out: Tensor<3>, query: &Tensor<3>, heads: usize) -> Tensor<3> {
        self.add_with(out, query, heads, |_, value| value)
    }

    /// Adds what only the tokens of these indices contribute to the result: all keys are in the softmax, and the values of
    /// the others are 0.
    pub(super) fn add_share(
        &self,
        out: Tensor<3>,
        query: &Tensor<3>,
        heads: usize,
        counts: impl Fn(usize) -> bool,
    ) -> Tensor<3> {
        if !self.tokens.iter().any(|(index, _)| counts(*index)) {
            return out;
        }
        self.add_with(out, query, heads, |index, value| if counts(index) { value } else { value.zeros_like() })
    }

    fn add_with(
        &self,
        out: Tensor<3>,
        query: &Tensor<3>,
        heads: usize,
        value: impl Fn(usize, Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let [rows, queries, channels] = out.dims();
        let q = split_heads(rows_of(query, &self.rows), heads);
        // The weights in a common softmax are relative to the largest scale, which is a factor on the result.
        let scale = self.tokens.iter().map(|(_, tokens)| tokens.scale).reduce(f32::max).unwrap_or_default();
        let groups = self.tokens.iter().map(|&(index, tokens)| KeyGroup {
            key: split_heads(self.own_rows(tokens, &tokens.key), heads),
            value: split_heads(value(index, self.own_rows(tokens, &tokens.value)), heads),
            weights: tokens.weights_times(tokens.scale / scale),
        });
        let mut seen = merge_heads(grouped_attention(q, groups.collect())) * scale;
        // Only tokens with a softmax of their own have a mask.
        if let [(_, DecoupledTokens { mask: Some(mask), .. })] = &self.tokens[..] {
            seen = seen * mask.clone();
        }
        if self.rows == (0..rows) {
            return out + seen;
        }
        let added = rows_of(&out, &self.rows) + seen;
        out.slice_assign([self.rows.clone(), 0..queries, 0..channels], added)
    }

    /// Returns the keys or values of tokens for the rows of this softmax; a single row is for all.
    fn own_rows(&self, tokens: &DecoupledTokens, x: &Tensor<3>) -> Tensor<3> {
        let from = self.rows.start - tokens.rows.start;
        if x.dims()[0] == 1 { x.clone() } else { rows_of(x, &(from..from + self.rows.len())) }
    }
}

impl DecoupledTokens {
    /// Whether the tokens are in a common softmax: they share it, and have neither a mask nor a negative scale.
    fn is_in_common_softmax(&self) -> bool {
        self.shares_softmax && self.mask.is_none() && self.scale > 0.0
    }

    /// Returns runs of keys with their weights times a factor; none for 1 everywhere.
    fn weights_times(&self, factor: f32) -> Vec<(usize, f32)> {
        // A weight must stay above 0, however small it is beside others.
        let times = |weight: f32| (weight * factor).max(f32::MIN_POSITIVE);
        match &self.weights[..] {
            runs if factor == 1.0 => runs.to_vec(),
            [] => vec![(self.key.dims()[1], times(1.0))],
            runs => runs.iter().map(|&(keys, weight)| (keys, times(weight))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::attention::attend;

    const CHANNELS: usize = 8;

    fn device() -> Device {
        fabric_backends::default_device().expect("a device")
    }

    fn random(shape: [usize; 3]) -> Tensor<3> {
        Tensor::random(shape, Distribution::Uniform(-2.0, 2.0), &device())
    }

    fn tokens(rows: Range<usize>, scale: f32) -> DecoupledTokens {
        let (key, value) = (random([1, 3, CHANNELS]), random([1, 3, CHANNELS]));
        DecoupledTokens { rows, key, value, scale, mask: None, weights: Vec::new(), shares_softmax: true }
    }

    /// Returns what decoupled tokens add to three rows.
    fn added(query: &Tensor<3>, decoupled: Vec<DecoupledTokens>) -> Vec<f32> {
        let zeros = query.zeros_like();
        let extras = AttnExtras { joint: Vec::new(), decoupled };
        let out = attend(query.clone(), zeros.clone(), zeros, 2, &extras);
        out.to_data().try_to_vec().expect("f32")
    }

    #[track_caller]
    fn assert_near(a: &[f32], b: &[f32]) {
        let most = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.len() == b.len() && most < 1e-5, "differ by {most}");
    }

    fn joined(parts: [&DecoupledTokens; 2], weights: Vec<(usize, f32)>, scale: f32) -> DecoupledTokens {
        let of = |f: fn(&DecoupledTokens) -> &Tensor<3>| Tensor::cat(parts.map(|part| f(part).clone()).to_vec(), 1);
        let (key, value) = (of(|part| &part.key), of(|part| &part.value));
        let rows = parts[0].rows.clone();
        DecoupledTokens { rows, key, value, scale, mask: None, weights, shares_softmax: false }
    }

    #[test]
    fn tokens_that_share_a_softmax_are_weighted_by_their_scales() {
        let query = random([3, 5, CHANNELS]);
        let (one, half) = (tokens(0..3, 0.8), tokens(0..3, 0.4));
        let expected = joined([&one, &half], vec![(3, 1.0), (3, 0.5)], 0.8);
        assert_near(&added(&query, vec![one.clone(), half.clone()]), &added(&query, vec![expected]));
        // Each with its own softmax is a sum.
        let own = |tokens: &DecoupledTokens| DecoupledTokens { shares_softmax: false, ..tokens.clone() };
        let [a, b] = [&one, &half].map(|tokens| added(&query, vec![own(tokens)]));
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_near(&added(&query, vec![own(&one), own(&half)]), &sum);
        // Alone in the common softmax is as alone.
        assert_near(&added(&query, vec![half.clone()]), &b);
    }

    #[test]
    fn the_same_image_twice_is_the_image_once() {
        let query = random([3, 5, CHANNELS]);
        let one = tokens(0..3, 0.7);
        assert_near(&added(&query, vec![one.clone(); 4]), &added(&query, vec![one]));
    }

    #[test]
    fn rows_see_only_their_own_tokens() {
        let query = random([3, 5, CHANNELS]);
        let (all, last) = (tokens(0..3, 1.0), tokens(2..3, 1.0));
        let got = added(&query, vec![all.clone(), last.clone()]);
        let two = 2 * 5 * CHANNELS;
        assert_near(&got[..two], &added(&query, vec![all.clone()])[..two]);
        let both = joined([&DecoupledTokens { rows: 2..3, ..all }, &last], Vec::new(), 1.0);
        assert_near(&got[two..], &added(&query, vec![both])[two..]);
    }

    #[test]
    fn keys_of_each_row_stay_with_their_row() {
        let query = random([3, 5, CHANNELS]);
        let (key, value) = (random([3, 3, CHANNELS]), random([3, 3, CHANNELS]));
        let each = DecoupledTokens { key: key.clone(), value: value.clone(), ..tokens(0..3, 1.0) };
        let last = tokens(2..3, 1.0);
        let got = added(&query, vec![each, last.clone()]);
        let of = |row: usize| DecoupledTokens {
            rows: row..row + 1,
            key: key.clone().narrow(0, row, 1),
            value: value.clone().narrow(0, row, 1),
            ..last.clone()
        };
        let expected = added(&query, vec![of(0), of(1), joined([&of(2), &last], Vec::new(), 1.0)]);
        assert_near(&got, &expected);
    }

    #[test]
    fn a_scale_that_is_tiny_beside_another_still_has_a_weight() {
        let query = random([3, 5, CHANNELS]);
        let (large, tiny) = (tokens(0..3, 100.0), tokens(0..3, 1e-44));
        assert_near(&added(&query, vec![large.clone(), tiny]), &added(&query, vec![large]));
    }

    #[test]
    fn negative_scales_have_a_softmax_of_their_own() {
        let query = random([3, 5, CHANNELS]);
        let (one, minus) = (tokens(0..3, 1.0), tokens(0..3, -0.5));
        let [a, b] = [&one, &minus].map(|tokens| added(&query, vec![tokens.clone()]));
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_near(&added(&query, vec![one, minus]), &sum);
    }
}
