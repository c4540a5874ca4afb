//! The interface between attention layers and processors.

use std::fmt;
use std::ops::Range;

use burn::tensor::Tensor;

use super::{AttnSite, Extrapolation};

/// Arguments that an attention layer passes to a processor.
#[derive(Debug, Clone, Copy)]
pub struct AttnCall<'a> {
    /// Address of the calling layer.
    pub site: AttnSite,
    /// The layer's queries `[rows, queries, channels]`, projected, before the split into heads. In the last
    /// self-attention, rows that only provide reference keys and values have no queries.
    pub query: &'a Tensor<3>,
    /// The layer's own keys `[rows, keys, channels]`, projected, before the split into heads.
    pub key: &'a Tensor<3>,
    /// The layer's own values `[rows, keys, channels]`.
    pub value: &'a Tensor<3>,
    /// Height and width of the feature map whose pixels are the queries.
    pub grid: [usize; 2],
    /// Number of heads of the layer.
    pub heads: usize,
}

/// Tokens that enter the layer's own softmax, each with a weight, or that of an attention that its result is led away
/// from. FABRIC's references use them.
///
/// A weight multiplies the unnormalised attention `exp(q·k)`, which equals adding `ln(weight)` to the logit. A
/// key of weight 1 is an ordinary key; a key of weight 0 has no effect.
#[derive(Debug, Clone)]
pub struct JointTokens {
    /// The rows of the batch that see these tokens.
    pub rows: Range<usize>,
    /// Keys `[1, keys, channels]`, shared by all of `rows`.
    pub key: Tensor<3>,
    /// Values `[1, keys, channels]`.
    pub value: Tensor<3>,
    /// Weight of all keys; finite and not negative.
    pub weight: f32,
    /// Token merging: runs of keys with the number of tokens that each key was merged from. The runs cover all
    /// keys; empty means 1 everywhere. The number multiplies the weight.
    pub merged_counts: Vec<(usize, f32)>,
    /// If set, the tokens are no keys of the layer's attention, but its result is led away from that of an attention that
    /// has them beside all others. All such tokens of a row are led away from together, as the first of them says.
    pub away: Option<Extrapolation>,
    /// Index of the tokens' source, assigned by the processor. Used only in reports; it does not affect the
    /// result.
    pub source: usize,
}

impl JointTokens {
    /// Returns runs of keys with their weights.
    pub(super) fn key_weights(&self) -> Vec<(usize, f32)> {
        match &self.merged_counts[..] {
            [] => vec![(self.key.dims()[1], self.weight)],
            runs => runs.iter().map(|&(keys, tokens)| (keys, tokens * self.weight)).collect(),
        }
    }
}

/// Tokens outside of the layer's own softmax, whose result is added to the layer's. IP-Adapter's image prompts use them.
#[derive(Debug, Clone)]
pub struct DecoupledTokens {
    /// The rows of the batch that see these tokens.
    pub rows: Range<usize>,
    /// Keys `[1 or rows, keys, channels]`.
    pub key: Tensor<3>,
    /// Values `[1 or rows, keys, channels]`.
    pub value: Tensor<3>,
    /// Factor on the result before it is added. 0 adds nothing and skips the computation.
    pub scale: f32,
    /// Factor on the result per query, `[1 or rows, queries, 1]`.
    pub mask: Option<Tensor<3>>,
    /// Runs of keys with their weight in this softmax, above 0. The runs cover all keys; empty means 1
    /// everywhere. As with [`JointTokens::weight`], a weight of 2 equals having each key twice.
    pub weights: Vec<(usize, f32)>,
    /// Whether all such tokens of a row share one softmax, as several images of one image prompt do. The largest of
    /// their scales is then the factor on the result, and the weight of each is multiplied by its scale relative to that.
    /// Tokens with a mask or a negative scale keep a softmax of their own.
    pub shares_softmax: bool,
}

impl DecoupledTokens {
    /// Restricts the tokens to the first `rows` rows of the batch. `None` if none of these sees them.
    pub fn within(self, rows: usize) -> Option<Self> {
        let (start, end) = (self.rows.start, self.rows.end.min(rows));
        let count = end.checked_sub(start).filter(|count| *count > 0)?;
        // A single row is shared by all rows; otherwise there is one per row.
        let cut = |x: Tensor<3>| if x.dims()[0] > count { x.narrow(0, 0, count) } else { x };
        Some(Self { rows: start..end, key: cut(self.key), value: cut(self.value), mask: self.mask.map(cut), ..self })
    }
}

/// Additional tokens for an attention layer, besides its own.
#[derive(Debug, Clone, Default)]
pub struct AttnExtras {
    /// Tokens in the layer's own softmax.
    pub joint: Vec<JointTokens>,
    /// Tokens outside of the layer's own softmax.
    pub decoupled: Vec<DecoupledTokens>,
}

impl AttnExtras {
    /// Appends the tokens of another processor.
    pub fn merge(&mut self, other: Self) {
        self.joint.extend(other.joint);
        self.decoupled.extend(other.decoupled);
    }
}

/// Provides additional tokens to attention layers.
///
/// Called once per layer and forward pass. The result is a value, and the call changes no state.
pub trait AttnProcessor: fmt::Debug {
    /// Returns the additional tokens for the layer at `call.site`.
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras;
}

/// Processor that adds no tokens: plain diffusion.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProcessor;

impl AttnProcessor for NoProcessor {
    fn extras(&self, _call: &AttnCall<'_>) -> AttnExtras {
        AttnExtras::default()
    }
}

/// Combines several processors; their order changes nothing but rounding.
impl AttnProcessor for &[&dyn AttnProcessor] {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let mut extras = AttnExtras::default();
        for processor in *self {
            extras.merge(processor.extras(call));
        }
        extras
    }
}
