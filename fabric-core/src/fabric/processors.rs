//! Attention processors that add reference keys and values, from rows of the same batch or from a recording.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use fabric_backends::ops::cast;

use super::{BlockWeights, CallWeights, DislikesWithoutGuidance, depth_position, merging::merged};
use crate::attention::{AttnCall, AttnExtras, AttnKind, AttnProcessor, JointTokens};
use crate::cache::{ReferenceTokens, TokensBySite};
use crate::models::RecordedTokens;

/// Batch rows that attend to a reference's keys and values with the same weights.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedRows {
    /// The rows.
    pub rows: Range<usize>,
    /// Weights by depth.
    pub weights: CallWeights,
}

/// Batch rows that attend to a reference's keys and values, and the weights they use.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceWeight {
    /// The rows that attend to them: one range, or several if only some images do. No row is in two of them.
    pub to: Vec<WeightedRows>,
    /// Factors on these by block.
    pub blocks: BlockWeights,
    /// For a disliked reference that acts on the conditional branch: its effect.
    pub dislike: Option<DislikesWithoutGuidance>,
}

impl ReferenceWeight {
    /// Returns the tokens of a reference for each range of rows that attends to them, with their weight in this layer.
    /// Rows with weight 0 are left out.
    fn tokens(
        &self,
        call: &AttnCall<'_>,
        levels: usize,
        source: usize,
        tokens: impl FnOnce() -> ReferenceTokens,
    ) -> Vec<JointTokens> {
        let block = call.site.block;
        let factor = self.blocks.of(block);
        let weight = |to: &WeightedRows| (to.weights.at(depth_position(block, levels)) * factor) as f32;
        let to = self.to.iter().map(|to| (to.rows.clone(), weight(to))).filter(|(_, weight)| *weight > 0.0);
        let to: Vec<(Range<usize>, f32)> = to.collect();
        if to.is_empty() {
            return Vec::new();
        }
        let ReferenceTokens { key, mut value, merged_counts } = tokens();
        if let Some(dislike) = self.dislike {
            value = dislike.values(value);
        }
        let away = self.dislike.and_then(|dislike| dislike.away());
        let joint = |(rows, weight)| {
            let (key, value, merged_counts) = (key.clone(), value.clone(), merged_counts.clone());
            JointTokens { rows, key, value, weight, merged_counts, away, source }
        };
        to.into_iter().map(joint).collect()
    }
}

/// References in the same batch as the images: other rows attend to the keys and values of rows from `first` on.
#[derive(Debug, Clone)]
pub struct InBatchReferences {
    /// Row of the first reference.
    pub first: usize,
    /// Weight of each reference, in row order.
    pub references: Vec<ReferenceWeight>,
    /// See [`FabricExecution::token_merge_ratio`](super::FabricExecution::token_merge_ratio).
    pub token_merge_ratio: f64,
    /// Number of down blocks of the U-Net.
    pub levels: usize,
}

impl AttnProcessor for InBatchReferences {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        if call.site.kind != AttnKind::SelfAttention {
            return AttnExtras::default();
        }
        let row = |x: &Tensor<3>, row: usize| x.clone().narrow(0, row, 1);
        let joint = self.references.iter().enumerate().flat_map(|(index, reference)| {
            let at = self.first + index;
            let tokens = || merged(row(call.key, at), row(call.value, at), call.grid, self.token_merge_ratio);
            reference.tokens(call, self.levels, index, tokens)
        });
        AttnExtras { joint: joint.collect(), decoupled: Vec::new() }
    }
}

/// References whose keys and values were recorded in an earlier pass.
#[derive(Debug, Clone)]
pub struct RecordedReferences {
    /// Weight, keys and values of each reference.
    pub references: Vec<(ReferenceWeight, Arc<TokensBySite>)>,
    /// Number of down blocks of the U-Net.
    pub levels: usize,
}

impl RecordedReferences {
    /// Splits a recording of several rows into one [`TokensBySite`] per row and merges tokens as set by
    /// [`FabricExecution::token_merge_ratio`](super::FabricExecution::token_merge_ratio).
    pub fn split(recorded: Vec<RecordedTokens>, token_merge_ratio: f64) -> Vec<TokensBySite> {
        let rows = recorded.first().map_or(0, |tokens| tokens.key.dims()[0]);
        let mut split = vec![TokensBySite::new(); rows];
        for RecordedTokens { site, grid, key, value } in recorded {
            for ((tokens, key), value) in split.iter_mut().zip(key.chunk(rows, 0)).zip(value.chunk(rows, 0)) {
                tokens.insert(site, merged(key, value, grid, token_merge_ratio));
            }
        }
        split
    }
}

impl AttnProcessor for RecordedReferences {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        if call.site.kind != AttnKind::SelfAttention {
            return AttnExtras::default();
        }
        let joint = self.references.iter().enumerate().flat_map(|(index, (reference, tokens))| {
            let layer = tokens
                .get(&call.site)
                .unwrap_or_else(|| panic!("recorded tokens are from another network: none for {}", call.site));
            // Cast to the U-Net's type: cached tokens may be f16.
            let cast_to_call = |x: &Tensor<3>| cast(x.clone(), call.key.dtype());
            reference.tokens(call, self.levels, index, || ReferenceTokens {
                key: cast_to_call(&layer.key),
                value: cast_to_call(&layer.value),
                merged_counts: layer.merged_counts.clone(),
            })
        });
        AttnExtras { joint: joint.collect(), decoupled: Vec::new() }
    }
}
