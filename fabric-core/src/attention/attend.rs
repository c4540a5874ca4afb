//! Multi-head attention over a layer's own tokens, joint tokens and decoupled tokens.

use std::ops::Range;

use burn::tensor::Tensor;
use fabric_backends::ops::{KeyGroup, grouped_attention};

use super::{AttnExtras, DecoupledTokens, JointTokens};

/// Reshapes `[rows, tokens, heads * head_dim]` to `[rows, heads, tokens, head_dim]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [rows, tokens, channels] = x.dims();
    x.reshape([rows, tokens, heads, channels / heads]).swap_dims(1, 2)
}

/// Reshapes `[rows, heads, tokens, head_dim]` to `[rows, tokens, heads * head_dim]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [rows, heads, tokens, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([rows, tokens, heads * head_dim])
}

/// Computes multi-head attention over a layer's own keys and the tokens that processors add.
///
/// Joint tokens enter the same softmax, each multiplied by its weight before the row is normalised (FABRIC's
/// reweighting, which equals adding `ln(weight)` to the logit). Decoupled tokens have a separate softmax, whose
/// result is added, scaled and masked (IP-Adapter).
///
/// # Shapes
///
/// - `query`: `[rows, queries, heads * head_dim]`
/// - `key`, `value`: `[rows, keys, heads * head_dim]`
/// - returns: `[rows, queries, heads * head_dim]`, before the output projection
pub fn attend(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, heads: usize, extras: &AttnExtras) -> Tensor<3> {
    let rows = query.dims()[0];
    assert_eq!(key.dims()[0], rows, "attend: {rows} rows of queries, {} of keys", key.dims()[0]);
    let mut out: Vec<Tensor<3>> = Vec::new();
    for (segment, joint) in segments(rows, &extras.joint) {
        let q = rows_of(&query, &segment);
        let k = rows_of(&key, &segment);
        let v = rows_of(&value, &segment);
        out.push(attend_joint(q, k, v, heads, &joint));
    }
    let mut out = if out.len() == 1 { out.remove(0) } else { Tensor::cat(out, 0) };
    for tokens in extras.decoupled.iter().filter(|tokens| tokens.scale != 0.0) {
        out = add_decoupled(out, &query, heads, tokens);
    }
    out
}

/// Splits the batch where the set of visible joint tokens changes, so that each segment is one attention call.
fn segments(rows: usize, joint: &[JointTokens]) -> Vec<(Range<usize>, Vec<&JointTokens>)> {
    let seen = || joint.iter().filter(|tokens| tokens.weight > 0.0);
    let mut cuts: Vec<usize> = seen().flat_map(|tokens| [tokens.rows.start, tokens.rows.end]).collect();
    cuts.extend([0, rows]);
    cuts.retain(|&cut| cut <= rows);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2)
        .map(|cut| {
            let visible = seen().filter(|tokens| tokens.rows.start <= cut[0] && cut[1] <= tokens.rows.end);
            (cut[0]..cut[1], visible.collect())
        })
        .collect()
}

fn attend_joint(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, joint: &[&JointTokens]) -> Tensor<3> {
    let group = |key: Tensor<3>, value: Tensor<3>, weights| KeyGroup {
        key: split_heads(key, heads),
        value: split_heads(value, heads),
        weights,
    };
    let reference_groups =
        joint.iter().map(|tokens| group(tokens.key.clone(), tokens.value.clone(), tokens.key_weights()));
    let groups = std::iter::once(group(k, v, Vec::new())).chain(reference_groups).collect();
    merge_heads(grouped_attention(split_heads(q, heads), groups))
}

/// Adds the attention to decoupled tokens, scaled and masked, to the rows of `out` that see them.
///
/// # Shapes
///
/// - `out`, `query`: `[rows, queries, heads * head_dim]`
/// - returns: same shape
pub(super) fn add_decoupled(out: Tensor<3>, query: &Tensor<3>, heads: usize, tokens: &DecoupledTokens) -> Tensor<3> {
    let [rows, queries, channels] = out.dims();
    let segment = &tokens.rows;
    let q = rows_of(query, segment);
    let own = KeyGroup {
        key: split_heads(tokens.key.clone(), heads),
        value: split_heads(tokens.value.clone(), heads),
        weights: tokens.weights.clone(),
    };
    let seen = grouped_attention(split_heads(q, heads), vec![own]);
    let mut seen = merge_heads(seen) * tokens.scale;
    if let Some(mask) = &tokens.mask {
        seen = seen * mask.clone();
    }
    if *segment == (0..rows) {
        return out + seen;
    }
    let added = rows_of(&out, segment) + seen;
    out.slice_assign([segment.clone(), 0..queries, 0..channels], added)
}

fn rows_of(x: &Tensor<3>, rows: &Range<usize>) -> Tensor<3> {
    let [all, tokens, channels] = x.dims();
    if *rows == (0..all) { x.clone() } else { x.clone().slice([rows.clone(), 0..tokens, 0..channels]) }
}
