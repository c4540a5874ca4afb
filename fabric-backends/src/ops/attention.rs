//! Attention in which keys carry weights.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, TensorData};

/// Softmax attention in which keys carry weights, `softmax(q·k / sqrt(head_dim) + ln weight) · v`.
///
/// A weight travels as one more channel of the head, `q' = [q, 1]` and `k' = [k, sqrt(head_dim) ln weight]`
/// (the scale stays that of the original head), so that it needs no bias tensor and leaves the fused kernel
/// in charge.
///
/// # Shapes
///
/// - `query`: `[rows, heads, queries, head_dim]`
/// - `key`, `value`: `[rows, heads, keys, head_dim]`
/// - `weights`: runs of keys with their weight, finite and above 0, that together cover all keys; empty
///   stands for weight 1 everywhere
/// - returns: `[rows, heads, queries, head_dim]`
pub fn weighted_attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, weights: &[(usize, f32)]) -> Tensor<4> {
    let [rows, heads, queries, head_dim] = query.dims();
    let keys = key.dims()[2];
    if weights.iter().all(|&(_, weight)| weight == 1.0) {
        return attention(query, key, value, None, None, AttentionModuleOptions::default());
    }
    assert_eq!(
        weights.iter().map(|(count, _)| count).sum::<usize>(),
        keys,
        "weighted_attention: weights must cover the {keys} keys"
    );
    let device = query.device();
    let dtype = query.dtype();
    let root = (head_dim as f64).sqrt();
    let channel: Vec<f32> = weights
        .iter()
        .flat_map(|&(count, weight)| std::iter::repeat_n((root * f64::from(weight).ln()) as f32, count))
        .collect();
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
