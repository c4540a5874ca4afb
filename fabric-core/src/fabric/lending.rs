//! Attention processors that add reference keys and values, from rows of the same batch or from a recording.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::{DType, Tensor};
use fabric_backends::ops::cast;

use super::{CallWeights, depth_position, merging::merged};
use crate::attention::{AttnCall, AttnExtras, AttnKind, AttnProcessor, AttnSite, JointTokens};
use crate::models::RecordedTokens;

/// Batch rows that attend to a reference's keys and values, and the weight they use.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceWeight {
    /// The rows that attend to them.
    pub to: Range<usize>,
    /// Weights by depth.
    pub weights: CallWeights,
}

impl ReferenceWeight {
    fn tokens(
        &self,
        call: &AttnCall<'_>,
        levels: usize,
        source: usize,
        tokens: impl FnOnce() -> ReferenceTokens,
    ) -> Option<JointTokens> {
        let weight = self.weights.at(depth_position(call.site.block, levels)) as f32;
        (weight > 0.0).then(|| {
            let ReferenceTokens { key, value, merged_counts } = tokens();
            JointTokens { rows: self.to.clone(), key, value, weight, merged_counts, source }
        })
    }
}

/// Keys and values of one reference at one self-attention layer.
#[derive(Debug, Clone)]
pub struct ReferenceTokens {
    /// `[1, keys, channels]`.
    pub key: Tensor<3>,
    /// `[1, keys, channels]`.
    pub value: Tensor<3>,
    /// Runs of merged tokens; see [`JointTokens::merged_counts`].
    pub merged_counts: Vec<(usize, f32)>,
}

/// References in the same batch as the images: other rows attend to the keys and values of rows from `first` on.
#[derive(Debug, Clone)]
pub struct InBatchReferences {
    /// Row of the first reference.
    pub first: usize,
    /// Weight of each reference, in row order.
    pub lenders: Vec<ReferenceWeight>,
    /// See [`FabricSettings::token_merge_ratio`](super::FabricSettings::token_merge_ratio).
    pub token_merge_ratio: f64,
    /// Number of down blocks of the U-Net.
    pub levels: usize,
}

impl AttnProcessor for InBatchReferences {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        if call.site.kind != AttnKind::SelfAttention {
            return AttnExtras::default();
        }
        let row = |x: &Tensor<3>, row: usize| {
            let [_, tokens, channels] = x.dims();
            x.clone().slice([row..row + 1, 0..tokens, 0..channels])
        };
        let joint = self.lenders.iter().enumerate().filter_map(|(index, lender)| {
            let at = self.first + index;
            let tokens = || merged(row(call.key, at), row(call.value, at), call.grid, self.token_merge_ratio);
            lender.tokens(call, self.levels, index, tokens)
        });
        AttnExtras { joint: joint.collect(), decoupled: Vec::new() }
    }
}

/// Keys and values of one reference at every self-attention layer.
pub type TokensBySite = HashMap<AttnSite, ReferenceTokens>;

/// References whose keys and values were recorded in an earlier pass.
#[derive(Debug, Clone)]
pub struct RecordedReferences {
    /// Weight, keys and values of each reference.
    pub lenders: Vec<(ReferenceWeight, std::sync::Arc<TokensBySite>)>,
    /// Number of down blocks of the U-Net.
    pub levels: usize,
}

impl RecordedReferences {
    /// Casts keys and values to f16 if their type is larger than 16 bits.
    pub fn in_half(tokens: TokensBySite) -> TokensBySite {
        let half = |x: Tensor<3>| if x.dtype().size() > 2 { x.cast(DType::F16) } else { x };
        let lent = |ReferenceTokens { key, value, merged_counts }| ReferenceTokens {
            key: half(key),
            value: half(value),
            merged_counts,
        };
        tokens.into_iter().map(|(site, tokens)| (site, lent(tokens))).collect()
    }

    /// Splits a recording of several rows into one [`TokensBySite`] per row and merges tokens as set by
    /// [`FabricSettings::token_merge_ratio`](super::FabricSettings::token_merge_ratio).
    pub fn split(recorded: Vec<RecordedTokens>, token_merge_ratio: f64) -> Vec<TokensBySite> {
        let rows = recorded.first().map_or(0, |tokens| tokens.key.dims()[0]);
        let mut split = vec![TokensBySite::new(); rows];
        for RecordedTokens { site, grid, key, value } in recorded {
            for ((map, key), value) in split.iter_mut().zip(key.chunk(rows, 0)).zip(value.chunk(rows, 0)) {
                map.insert(site, merged(key, value, grid, token_merge_ratio));
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
        let joint = self.lenders.iter().enumerate().filter_map(|(index, (lender, tokens))| {
            let lent = tokens
                .get(&call.site)
                .unwrap_or_else(|| panic!("stored tokens were recorded from another network: none for {}", call.site));
            // Cast to the U-Net's type: cached tokens may be f16.
            let computed = |x: &Tensor<3>| cast(x.clone(), call.key.dtype());
            lender.tokens(call, self.levels, index, || ReferenceTokens {
                key: computed(&lent.key),
                value: computed(&lent.value),
                merged_counts: lent.merged_counts.clone(),
            })
        });
        AttnExtras { joint: joint.collect(), decoupled: Vec::new() }
    }
}
