//! Attention in which keys carry weights.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, TensorData};

/// Softmax attention in which keys carry weights, `softmax(q·k / sqrt(head_dim) + ln weight) · v`.
///
/// # Shapes
///
/// - `query`: `[rows, heads, queries, head_dim]`
/// - `key`, `value`: `[rows, heads, keys, head_dim]`
/// - `weights`: runs of keys with their weight, finite and above 0, that together cover all keys; empty
///   stands for weight 1 everywhere
/// - returns: `[rows, heads, queries, head_dim]`
///
/// # Panics
///
/// If the shapes do not fit together, the weights do not cover the keys, or one is not finite and above 0.
pub fn weighted_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, weights: &[(usize, f32)]) -> Tensor<4> {
    let [rows, heads, _, head_dim] = query.dims();
    let keys = key.dims()[2];
    assert_eq!(key.dims(), [rows, heads, keys, head_dim], "weighted_attention: keys beside queries {:?}", query.dims());
    assert_eq!(value.dims(), key.dims(), "weighted_attention: values beside keys");
    let plain = weights.iter().all(|&(_, weight)| weight == 1.0);
    let covered = weights.iter().map(|(count, _)| count).sum::<usize>();
    assert!(weights.is_empty() || covered == keys, "weighted_attention: weights of {covered} keys, wanted {keys}");
    let usable = |&(_, weight): &(usize, f32)| weight.is_finite() && weight > 0.0;
    assert!(weights.iter().all(usable), "weighted_attention: weights {weights:?}, wanted finite ones above 0");
    #[cfg(feature = "flex")]
    if [&query, &key, &value].into_iter().all(super::flex::serves) {
        let bias = if plain { Vec::new() } else { each_key(weights, f32::ln) };
        let operation = super::flex::Attention { bias: bias.into(), causal: false };
        return super::flex::attend(query, key, value, operation);
    }
    if plain {
        attention(query, key, value, None, None, AttentionModuleOptions::default())
    } else {
        with_channel(query, key, value, weights)
    }
}

/// Softmax attention in which each query sees only the keys up to its own number.
///
/// # Shapes
///
/// - `query`, `key`, `value`: `[rows, heads, tokens, head_dim]`
/// - returns: the same
///
/// # Panics
///
/// If the shapes differ.
pub fn causal_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    assert_eq!((key.dims(), value.dims()), (query.dims(), query.dims()), "causal_attention: keys, values");
    #[cfg(feature = "flex")]
    if [&query, &key, &value].into_iter().all(super::flex::serves) {
        let operation = super::flex::Attention { bias: [].into(), causal: true };
        return super::flex::attend(query, key, value, operation);
    }
    attention(query, key, value, None, None, AttentionModuleOptions { is_causal: true, ..Default::default() })
}

/// A number for each key.
fn each_key(weights: &[(usize, f32)], f: impl Fn(f32) -> f32) -> Vec<f32> {
    weights.iter().flat_map(|&(count, weight)| std::iter::repeat_n(f(weight), count)).collect()
}

/// A weight travels as one more channel of the head, `q' = [q, 1]` and `k' = [k, sqrt(head_dim) ln weight]` (the scale
/// stays that of the original head), so that it needs no bias tensor and leaves the backend's fused kernel in charge.
pub(super) fn with_channel(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, weights: &[(usize, f32)]) -> Tensor<4> {
    let [rows, heads, queries, head_dim] = query.dims();
    let keys = key.dims()[2];
    let device = query.device();
    let dtype = query.dtype();
    let root = (head_dim as f64).sqrt();
    let channel = each_key(weights, |weight| (root * f64::from(weight).ln()) as f32);
    let channel = Tensor::<4>::from_data(TensorData::new(channel, [1, 1, keys, 1]), (&device, dtype))
        .expand([rows, heads, keys, 1]);
    let one = Tensor::<4>::ones([rows, heads, queries, 1], (&device, dtype));
    let zero = Tensor::<4>::zeros([rows, heads, keys, 1], (&device, dtype));
    // The value's own extra channel is nothing; it only keeps the three head sizes equal.
    let out = attention(
        Tensor::cat(vec![query, one], 3),
        Tensor::cat(vec![key, channel], 3),
        Tensor::cat(vec![value, zero], 3),
        None,
        None,
        AttentionModuleOptions { scale: Some(1.0 / root), softcap: None, is_causal: false },
    );
    out.slice([0..rows, 0..heads, 0..queries, 0..head_dim])
}
