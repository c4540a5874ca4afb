//! Multi-head attention over a layer's own tokens, joint tokens and decoupled tokens.

use std::ops::Range;

use burn::tensor::Tensor;
use fabric_backends::ops::{KeyGroup, grouped_attention};

use super::decoupled::softmaxes;
use super::{AttnExtras, JointTokens};

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
/// Joint tokens enter the same softmax, each multiplied by its weight before the row is normalised (FABRIC's reweighting,
/// which equals adding `ln(weight)` to the logit). Those with [`JointTokens::away`] do not: they join a second attention,
/// which has all tokens, and the result is extrapolated away from that of the second. Decoupled tokens have a softmax of
/// their own or share one; its result is scaled, masked and added (IP-Adapter).
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
        out.push(match joint.iter().find_map(|tokens| tokens.away) {
            None => attend_joint(q, k, v, heads, &joint),
            Some(how) => {
                let away = attend_joint(q.clone(), k.clone(), v.clone(), heads, &joint);
                let joint: Vec<&JointTokens> = joint.into_iter().filter(|tokens| tokens.away.is_none()).collect();
                how.apply(attend_joint(q, k, v, heads, &joint), away)
            }
        });
    }
    let mut out = if out.len() == 1 { out.remove(0) } else { Tensor::cat(out, 0) };
    for softmax in softmaxes(rows, extras) {
        out = softmax.add(out, &query, heads);
    }
    out
}

/// Splits the batch where the set of visible joint tokens changes, so that each segment is one attention call.
fn segments(rows: usize, joint: &[JointTokens]) -> Vec<(Range<usize>, Vec<&JointTokens>)> {
    let seen = || joint.iter().filter(|tokens| tokens.weight > 0.0);
    cuts(rows, seen().map(|tokens| &tokens.rows))
        .into_iter()
        .map(|cut| {
            let visible = seen().filter(|tokens| tokens.rows.start <= cut.start && cut.end <= tokens.rows.end);
            let visible = visible.collect();
            (cut, visible)
        })
        .collect()
}

/// Cuts a batch of `rows` rows where one of these ranges begins or ends.
pub(super) fn cuts<'a>(rows: usize, ranges: impl Iterator<Item = &'a Range<usize>>) -> Vec<Range<usize>> {
    let mut cuts: Vec<usize> = ranges.flat_map(|range| [range.start, range.end]).collect();
    cuts.extend([0, rows]);
    cuts.retain(|&cut| cut <= rows);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|cut| cut[0]..cut[1]).collect()
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

/// Returns the rows of a tensor.
pub(super) fn rows_of(x: &Tensor<3>, rows: &Range<usize>) -> Tensor<3> {
    let [all, tokens, channels] = x.dims();
    if *rows == (0..all) { x.clone() } else { x.clone().slice([rows.clone(), 0..tokens, 0..channels]) }
}
