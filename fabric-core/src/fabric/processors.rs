//! Attention processors that add reference keys and values, from rows of the same batch or from a recording.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use fabric_backends::ops::cast;

use super::{BlockWeights, CallWeights, DislikesWithoutGuidance, depth_position, merging::merged};
use crate::attention::{AttnCall, AttnExtras, AttnKind, AttnProcessor, JointTokens};
use crate::cache::{ReferenceTokens, TokensBySite};
use crate::models::RecordedTokens;

/// Batch rows that attend to a reference's keys and values, and the weight they use.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceWeight {
    /// The rows that attend to them.
    pub to: Range<usize>,
    /// Weights by depth.
    pub weights: CallWeights,
    /// Factors on these by block.
    pub blocks: BlockWeights,
    /// For a disliked reference that acts on the conditional branch: its effect.
    pub dislike: Option<DislikesWithoutGuidance>,
}

impl ReferenceWeight {
    /// Returns the tokens of a reference with their weight in this layer, or `None` if that is 0.
    fn tokens(
        &self,
        call: &AttnCall<'_>,
        levels: usize,
        source: usize,
        tokens: impl FnOnce() -> ReferenceTokens,
    ) -> Option<JointTokens> {
        let block = call.site.block;
        let weight = (self.weights.at(depth_position(block, levels)) * self.blocks.of(block)) as f32;
        (weight > 0.0).then(|| {
            let ReferenceTokens { key, mut value, merged_counts } = tokens();
            if let Some(dislike) = self.dislike {
                value = dislike.values(value);
            }
            let away = self.dislike.and_then(|dislike| dislike.away());
            JointTokens { rows: self.to.clone(), key, value, weight, merged_counts, away, source }
        })
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
        let joint = self.references.iter().enumerate().filter_map(|(index, reference)| {
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
        let joint = self.references.iter().enumerate().filter_map(|(index, (reference, tokens))| {
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
