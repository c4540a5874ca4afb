//! How references lend their keys and values: from rows of the same batch, or from a recording.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::{DType, Tensor};
use fabric_backends::ops::cast;

use super::{CallWeights, depth_position, merging::merged};
use crate::attention::{AttnCall, AttnExtras, AttnKind, AttnProcessor, AttnSite, JointTokens};
use crate::models::RecordedTokens;

/// Who sees a reference's keys and values, and with which weight.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceWeight {
    /// The rows that see them.
    pub to: Range<usize>,
    /// By depth.
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

/// A reference's keys and values at one self-attention.
#[derive(Debug, Clone)]
pub struct ReferenceTokens {
    /// `[1, keys, channels]`.
    pub key: Tensor<3>,
    /// `[1, keys, channels]`.
    pub value: Tensor<3>,
    /// As [`JointTokens::merged_counts`].
    pub merged_counts: Vec<(usize, f32)>,
}

/// References that ride in the same batch: each row from `first` on lends its keys and values to other rows.
#[derive(Debug, Clone)]
pub struct InBatchReferences {
    /// The first reference's row.
    pub first: usize,
    /// One per reference, in the order of their rows.
    pub lenders: Vec<ReferenceWeight>,
    /// As [`FabricSettings::token_merge_ratio`](super::FabricSettings::token_merge_ratio).
    pub token_merge_ratio: f64,
    /// Down blocks of the network.
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

/// One reference's keys and values at every self-attention.
pub type TokensBySite = HashMap<AttnSite, ReferenceTokens>;

/// References that passed through the network before.
#[derive(Debug, Clone)]
pub struct RecordedReferences {
    /// What each reference lends.
    pub lenders: Vec<(ReferenceWeight, std::sync::Arc<TokensBySite>)>,
    /// Down blocks of the network.
    pub levels: usize,
}

impl RecordedReferences {
    /// The same tokens in f16, where they take more memory than that.
    pub fn in_half(tokens: TokensBySite) -> TokensBySite {
        let half = |x: Tensor<3>| if x.dtype().size() > 2 { x.cast(DType::F16) } else { x };
        let lent = |ReferenceTokens { key, value, merged_counts }| ReferenceTokens {
            key: half(key),
            value: half(value),
            merged_counts,
        };
        tokens.into_iter().map(|(site, tokens)| (site, lent(tokens))).collect()
    }

    /// Takes a recording of several rows apart, one [`TokensBySite`] per row, with tokens merged as
    /// [`FabricSettings::token_merge_ratio`](super::FabricSettings::token_merge_ratio) says.
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
            // As the network computes: they may be kept in half precision.
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
