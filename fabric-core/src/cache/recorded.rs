//! Recorded keys and values of one reference image.

use std::collections::HashMap;

use burn::tensor::{DType, Tensor};

use crate::attention::AttnSite;

/// Keys and values of one reference at one self-attention layer.
#[derive(Debug, Clone)]
pub struct ReferenceTokens {
    /// `[1, keys, channels]`.
    pub key: Tensor<3>,
    /// `[1, keys, channels]`.
    pub value: Tensor<3>,
    /// Runs of merged tokens; see [`JointTokens::merged_counts`](crate::attention::JointTokens::merged_counts).
    pub merged_counts: Vec<(usize, f32)>,
}

/// Keys and values of one reference at every self-attention layer.
pub type TokensBySite = HashMap<AttnSite, ReferenceTokens>;

/// Casts keys and values to f16 if their type is larger than 16 bits.
pub(crate) fn in_half(tokens: TokensBySite) -> TokensBySite {
    let half = |x: Tensor<3>| if x.dtype().size() > 2 { x.cast(DType::F16) } else { x };
    let cast = |ReferenceTokens { key, value, merged_counts }| ReferenceTokens {
        key: half(key),
        value: half(value),
        merged_counts,
    };
    tokens.into_iter().map(|(site, tokens)| (site, cast(tokens))).collect()
}
