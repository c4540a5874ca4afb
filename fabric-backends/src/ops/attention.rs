//! Attention with a weight for each key.

use burn::tensor::Tensor;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

/// Keys and values that share one softmax with those of other groups.
#[derive(Debug, Clone)]
pub struct KeyGroup {
    /// Shape `[rows, heads, keys, head_dim]`, or with a single row that all query rows share.
    pub key: Tensor<4>,
    /// Same shape as the keys.
    pub value: Tensor<4>,
    /// Weights of the keys as runs of `(count, weight)`, finite and above 0, whose counts add up to the number
    /// of keys. Empty means weight 1 for every key.
    pub weights: Vec<(usize, f32)>,
}

impl KeyGroup {
    fn count(&self) -> usize {
        self.key.dims()[2]
    }

    /// Returns the runs of weights; no weights give one run of weight 1.
    fn runs(&self) -> impl Iterator<Item = (usize, f32)> {
        let all = self.weights.is_empty().then(|| (self.count(), 1.0));
        self.weights.iter().copied().chain(all)
    }

    fn check(&self, [rows, heads, _, head_dim]: [usize; 4]) {
        let [own, keys] = [self.key.dims()[0], self.count()];
        assert!(
            own == rows || own == 1,
            "attention: {own} rows of keys beside {rows} of queries, expected 1 or as many"
        );
        assert_eq!(self.key.dims(), [own, heads, keys, head_dim], "attention: keys beside queries");
        assert_eq!(self.value.dims(), self.key.dims(), "attention: values beside keys");
        let covered = self.runs().map(|(count, _)| count).sum::<usize>();
        assert_eq!(covered, keys, "attention: weights of {covered} keys, expected {keys}");
        let usable = |(_, weight): (usize, f32)| weight.is_finite() && weight > 0.0;
        assert!(self.runs().all(usable), "attention: weights {:?}, expected finite ones above 0", self.weights);
    }
}

/// Computes softmax attention with a weight for each key, `softmax(q·k / sqrt(head_dim) + ln weight) · v`.
///
/// # Shapes
///
/// - `query`: `[rows, heads, queries, head_dim]`
/// - `key`, `value`: `[rows, heads, keys, head_dim]`
/// - `weights`: see [`KeyGroup::weights`]
/// - returns: `[rows, heads, queries, head_dim]`
///
/// # Panics
///
/// If the shapes do not match, the weights do not cover the keys, or a weight is not finite and above 0.
pub fn weighted_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, weights: &[(usize, f32)]) -> Tensor<4> {
    grouped_attention(query, vec![KeyGroup { key, value, weights: weights.to_vec() }])
}

/// Computes [`weighted_attention`] over the keys of several groups in one softmax. The f32 CPU kernels without
/// autodiff do not copy the groups into one tensor; all other cases concatenate them.
///
/// # Shapes
///
/// - `query`: `[rows, heads, queries, head_dim]`
/// - returns: same shape as `query`
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Distribution, Tensor};
/// use fabric_backends::ops::{KeyGroup, grouped_attention};
/// let tokens = |rows, count| Tensor::<4>::random([rows, 8, count, 40], Distribution::Default, &Device::flex());
/// let own = KeyGroup { key: tokens(2, 64), value: tokens(2, 64), weights: vec![] };
/// let liked = KeyGroup { key: tokens(1, 64), value: tokens(1, 64), weights: vec![(64, 0.8)] };
/// assert_eq!(grouped_attention(tokens(2, 64), vec![own, liked]).dims(), [2, 8, 64, 40]);
/// # }
/// ```
///
/// # Panics
///
/// As for [`weighted_attention`], and if there is no group.
pub fn grouped_attention(query: Tensor<4>, mut groups: Vec<KeyGroup>) -> Tensor<4> {
    assert!(!groups.is_empty(), "attention: no keys at all");
    groups.iter().for_each(|group| group.check(query.dims()));
    let plain = groups.iter().flat_map(KeyGroup::runs).all(|(_, weight)| weight == 1.0);
    let weights: Vec<(usize, f32)> = groups.iter().flat_map(KeyGroup::runs).collect();
    for group in &mut groups {
        let [_, heads, keys, head_dim] = group.key.dims();
        for x in [&mut group.key, &mut group.value] {
            *x = x.clone().expand([query.dims()[0], heads, keys, head_dim]);
        }
    }
    let (mut keys, mut values): (Vec<_>, Vec<_>) = groups.into_iter().map(|group| (group.key, group.value)).unzip();
    #[cfg(feature = "flex")]
    if std::iter::once(&query).chain(&keys).chain(&values).all(super::flex::is_supported) {
        let each = weights.iter().flat_map(|&(count, weight)| std::iter::repeat_n(weight.ln(), count));
        let bias = if plain { Vec::new() } else { each.collect() };
        return super::flex::attend(query, keys, values, super::flex::Attention { bias: bias.into(), causal: false });
    }
    let [key, value] = [&mut keys, &mut values]
        .map(|groups| if groups.len() == 1 { groups.remove(0) } else { Tensor::cat(std::mem::take(groups), 2) });
    super::fused::plain(query, key, value, if plain { &[] } else { &weights })
}

/// Computes causal softmax attention: each query sees only the keys up to its own position.
///
/// # Shapes
///
/// - `query`, `key`, `value`: `[rows, heads, tokens, head_dim]`
/// - returns: same shape as `query`
///
/// # Panics
///
/// If the shapes differ.
pub fn causal_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    assert_eq!((key.dims(), value.dims()), (query.dims(), query.dims()), "causal_attention: keys, values");
    #[cfg(feature = "flex")]
    if [&query, &key, &value].into_iter().all(super::flex::is_supported) {
        let operation = super::flex::Attention { bias: [].into(), causal: true };
        return super::flex::attend(query, vec![key], vec![value], operation);
    }
    attention(query, key, value, None, None, AttentionModuleOptions { is_causal: true, ..Default::default() })
}
