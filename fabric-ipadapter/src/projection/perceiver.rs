//! A layer in which a few latents read a stream of tokens.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_core::attention::{AttnExtras, attend};
use fabric_models::layers::{Activation, LayerNorm, Linear};

use super::EPSILON;

/// Channels of a head, in every published file.
pub(crate) const HEAD_DIM: usize = 64;

/// Latents attend to a stream and to themselves, in one softmax (`PerceiverAttention` of the published code).
#[derive(Module, Debug)]
pub struct PerceiverAttention {
    /// Over the stream.
    norm1: LayerNorm,
    /// Over the latents.
    norm2: LayerNorm,
    to_q: Linear,
    /// Keys above values.
    to_kv: Linear,
    to_out: Linear,
    heads: usize,
}

impl PerceiverAttention {
    /// With random weights.
    pub fn new(channels: usize, heads: usize, device: &Device) -> Self {
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

    /// What the latents read, before it is added to them.
    ///
    /// # Shapes
    ///
    /// - `stream`: `[rows, tokens, channels]`
    /// - `latents`: `[rows, queries, channels]`
    /// - returns: `[rows, queries, channels]`
    pub fn forward(&self, stream: Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let latents = self.norm2.forward(latents);
        let query = self.to_q.forward(latents.clone());
        let read = Tensor::cat(vec![self.norm1.forward(stream), latents], 1);
        let mut parts = self.to_kv.forward(read).chunk(2, 2).into_iter();
        let (key, value) = (parts.next().expect("keys"), parts.next().expect("values"));
        self.to_out.forward(attend(query, key, value, self.heads, &AttnExtras::default()))
    }
}

/// Norm, two linear layers without bias, exact GELU between them.
#[derive(Module, Debug)]
pub struct FeedForward {
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl FeedForward {
    /// With random weights; `factor` times as many channels in the middle.
    pub fn new(channels: usize, factor: usize, device: &Device) -> Self {
        Self {
            norm: LayerNorm::new(channels, EPSILON, device),
            expand: Linear::new(channels, factor * channels, false, device),
            contract: Linear::new(factor * channels, channels, false, device),
        }
    }

    /// The same with another last layer.
    #[cfg(feature = "train")]
    pub(super) fn with_contract(self, change: impl FnOnce(Linear) -> Linear) -> Self {
        Self { contract: change(self.contract), ..self }
    }

    /// # Shapes
    ///
    /// - `x`: `[rows, tokens, channels]`
    /// - returns: the same, before it is added to `x`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.contract.forward(Activation::Gelu.forward(self.expand.forward(self.norm.forward(x))))
    }
}

/// Attention and a feed-forward network, each beside a shortcut.
#[derive(Module, Debug)]
pub struct PerceiverLayer {
    /// Reads the stream.
    pub attention: PerceiverAttention,
    /// Works on what was read.
    pub feed_forward: FeedForward,
}

impl PerceiverLayer {
    /// With random weights; the feed-forward network has `factor` times as many channels in its middle.
    pub fn new(channels: usize, heads: usize, factor: usize, device: &Device) -> Self {
        Self {
            attention: PerceiverAttention::new(channels, heads, device),
            feed_forward: FeedForward::new(channels, factor, device),
        }
    }

    /// The latents after they read the stream, which stays as it is.
    ///
    /// # Shapes
    ///
    /// - `stream`: `[rows, tokens, channels]`
    /// - `latents`: `[rows, queries, channels]`
    /// - returns: `[rows, queries, channels]`
    pub fn forward(&self, stream: Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let latents = latents.clone() + self.attention.forward(stream, latents);
        latents.clone() + self.feed_forward.forward(latents)
    }
}
