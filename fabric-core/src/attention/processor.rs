//! What a layer asks a processor, and what the processor answers.

use std::fmt;
use std::ops::Range;

use burn::tensor::Tensor;

use super::AttnSite;

/// What an attention layer tells a processor when it asks what to attend to.
#[derive(Debug, Clone, Copy)]
pub struct AttnCall<'a> {
    /// Which layer asks.
    pub site: AttnSite,
    /// The layer's queries `[rows, queries, channels]`, projected, heads not yet split. At the last self-attention
    /// there are none of rows that only lend their keys.
    pub query: &'a Tensor<3>,
    /// The layer's own keys `[rows, keys, channels]`, projected, heads not yet split.
    pub key: &'a Tensor<3>,
    /// The layer's own values `[rows, keys, channels]`.
    pub value: &'a Tensor<3>,
    /// Height and width of the feature map whose pixels are the queries.
    pub grid: [usize; 2],
    /// Heads of the layer.
    pub heads: usize,
}

/// Keys that enter the layer's own softmax, each weighted: the seam of FABRIC.
///
/// A weight multiplies the unnormalised attention `exp(q·k)`, that is, adds `ln(weight)` to the logit.
/// 1 is an ordinary key, 0 is not seen at all.
#[derive(Debug, Clone)]
pub struct JointTokens {
    /// The rows of the batch that see these tokens.
    pub rows: Range<usize>,
    /// `[1, keys, channels]`, shared by all of `rows`.
    pub key: Tensor<3>,
    /// `[1, keys, channels]`.
    pub value: Tensor<3>,
    /// Finite and not negative.
    pub weight: f32,
    /// Runs of keys with the number of tokens that each of them stands for, where several were merged into one; together
    /// they cover all keys. Empty is 1 everywhere. The number multiplies the weight.
    pub merged_counts: Vec<(usize, f32)>,
    /// Whose tokens these are, by the processor's own count. Tells them apart in reports, and changes nothing.
    pub source: usize,
}

impl JointTokens {
    /// Runs of keys with their weights.
    pub(super) fn key_weights(&self) -> Vec<(usize, f32)> {
        match &self.merged_counts[..] {
            [] => vec![(self.key.dims()[1], self.weight)],
            runs => runs.iter().map(|&(keys, tokens)| (keys, tokens * self.weight)).collect(),
        }
    }
}

/// Keys with a softmax of their own, whose result is added to the layer's: the seam of IP-Adapter.
#[derive(Debug, Clone)]
pub struct DecoupledTokens {
    /// The rows of the batch that see these tokens.
    pub rows: Range<usize>,
    /// `[1 or rows, keys, channels]`.
    pub key: Tensor<3>,
    /// `[1 or rows, keys, channels]`.
    pub value: Tensor<3>,
    /// Multiplies the result before it is added. 0 adds nothing, and costs nothing.
    pub scale: f32,
    /// `[1 or rows, queries, 1]`, multiplies the result per query.
    pub mask: Option<Tensor<3>>,
    /// Runs of keys with their weight in this softmax, above 0, that together cover all keys; empty is 1 everywhere. As
    /// with [`JointTokens::weight`], a weight of 2 is the same keys twice.
    pub weights: Vec<(usize, f32)>,
}

/// What a layer attends to besides its own tokens.
#[derive(Debug, Clone, Default)]
pub struct AttnExtras {
    /// In the layer's own softmax.
    pub joint: Vec<JointTokens>,
    /// In a softmax of their own.
    pub decoupled: Vec<DecoupledTokens>,
}

impl AttnExtras {
    /// Adds what another processor wants to attend to.
    pub fn merge(&mut self, other: AttnExtras) {
        self.joint.extend(other.joint);
        self.decoupled.extend(other.decoupled);
    }
}

/// Says what each attention layer attends to besides its own tokens.
///
/// Asked once per layer and forward pass; the answer is a value, and asking changes nothing.
pub trait AttnProcessor: fmt::Debug {
    /// What the layer at `call.site` should attend to.
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras;
}

/// Plain diffusion: no layer attends to anything but its own tokens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProcessor;

impl AttnProcessor for NoProcessor {
    fn extras(&self, _call: &AttnCall<'_>) -> AttnExtras {
        AttnExtras::default()
    }
}

/// Several processors at once; their order changes nothing but rounding.
impl AttnProcessor for &[&dyn AttnProcessor] {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let mut extras = AttnExtras::default();
        for processor in *self {
            extras.merge(processor.extras(call));
        }
        extras
    }
}
