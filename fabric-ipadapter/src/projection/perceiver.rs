//! Perceiver layer: a few latents attend to a stream of tokens.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_core::attention::{AttnExtras, attend};
use fabric_models::layers::{Activation, LayerNorm, Linear};

use super::EPSILON;

/// Channels per head in every published file.
pub(crate) const HEAD_DIM: usize = 64;

/// Attention of latents to a stream and to themselves, in one softmax (`PerceiverAttention` of the published
/// code).
#[derive(Module, Debug)]
pub(crate) struct PerceiverAttention {
    /// For the stream.
    norm1: LayerNorm,
    /// For the latents.
    norm2: LayerNorm,
    to_q: Linear,
    /// Keys, then values.
    to_kv: Linear,
    to_out: Linear,
    heads: usize,
}

impl PerceiverAttention {
    /// Creates random weights.
    pub(crate) fn new(channels: usize, heads: usize, device: &Device) -> Self {
        let inner = heads * HEAD_DIM;
        Self {
            norm1: LayerNorm::new(channels, EPSILON, device),
            norm2: LayerNorm::new(channels, EPSILON, device),
            to_q: Linear::new(channels, inner, false, device),
            to_kv: Linear::new(channels, 2 * inner, false, device),
            to_out: Linear::new(inner, channels, false, device),
            heads,
        }
    }

    /// Returns the attention output, without the residual connection.
    ///
    /// # Shapes
    ///
    /// - `stream`: `[rows, tokens, channels]`
    /// - `latents`: `[rows, queries, channels]`
    /// - returns: `[rows, queries, channels]`
    pub(crate) fn forward(&self, stream: Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let latents = self.norm2.forward(latents);
        let query = self.to_q.forward(latents.clone());
        let read = Tensor::cat(vec![self.norm1.forward(stream), latents], 1);
        let mut parts = self.to_kv.forward(read).chunk(2, 2).into_iter();
        let (key, value) = (parts.next().expect("keys"), parts.next().expect("values"));
        self.to_out.forward(attend(query, key, value, self.heads, &AttnExtras::default()))
    }
}

/// Feed-forward network: layer norm and two linear layers without bias, with exact GELU between them.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl FeedForward {
    /// Creates random weights; the hidden layer has `factor * channels` channels.
    pub(crate) fn new(channels: usize, factor: usize, device: &Device) -> Self {
        Self {
            norm: LayerNorm::new(channels, EPSILON, device),
            expand: Linear::new(channels, factor * channels, false, device),
            contract: Linear::new(factor * channels, channels, false, device),
        }
    }

    /// Replaces the last layer.
    #[cfg(feature = "train")]
    pub(super) fn with_contract(self, change: impl FnOnce(Linear) -> Linear) -> Self {
        Self { contract: change(self.contract), ..self }
    }

    /// Applies the network, without the residual connection.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, tokens, channels]`
    /// - returns: `[rows, tokens, channels]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.contract.forward(Activation::Gelu.forward(self.expand.forward(self.norm.forward(x))))
    }
}

/// Attention and a feed-forward network, each with a residual connection.
#[derive(Module, Debug)]
pub(crate) struct PerceiverLayer {
    /// Attention to the stream.
    pub(crate) attention: PerceiverAttention,
    /// Feed-forward network on the latents.
    pub(crate) feed_forward: FeedForward,
}

impl PerceiverLayer {
    /// Creates random weights; the hidden layer of the feed-forward network has `factor * channels` channels.
    pub(crate) fn new(channels: usize, heads: usize, factor: usize, device: &Device) -> Self {
        Self {
            attention: PerceiverAttention::new(channels, heads, device),
            feed_forward: FeedForward::new(channels, factor, device),
        }
    }

    /// Updates the latents; the stream does not change.
    ///
    /// # Shapes
    ///
    /// - `stream`: `[rows, tokens, channels]`
    /// - `latents`: `[rows, queries, channels]`
    /// - returns: `[rows, queries, channels]`
    pub(crate) fn forward(&self, stream: Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let latents = latents.clone() + self.attention.forward(stream, latents);
        latents.clone() + self.feed_forward.forward(latents)
    }
}
