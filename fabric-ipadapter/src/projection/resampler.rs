//! Resampler: learned queries attend to all image tokens.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Tensor};
use fabric_models::layers::{LayerNorm, Linear};

use super::EPSILON;
use super::perceiver::PerceiverLayer;

/// Sizes of a resampler, the projection of plus adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResamplerConfig {
    /// Channels of the input tokens: 1280 for ViT-H.
    pub features: usize,
    /// Channels of the queries: 768 for Stable Diffusion 1.5, 1280 for SDXL.
    pub channels: usize,
    /// Number of heads, of 64 channels each.
    pub heads: usize,
    /// Number of layers: 4.
    pub depth: usize,
    /// Width of the feed-forward networks, as a multiple of the channels: 4.
    pub factor: usize,
    /// Number of output tokens: 16.
    pub tokens: usize,
    /// Channels of the output tokens: the U-Net's `cross_attention_dim`.
    pub context: usize,
}

/// Perceiver resampler: a few learned queries attend to all tokens of the image encoder, layer by layer (Jaegle
/// et al. 2021; the "plus" files).
#[derive(Module, Debug)]
pub(crate) struct Resampler {
    /// The learned queries, `[1, tokens, channels]`.
    latents: Param<Tensor<3>>,
    body: Reader,
}

/// Layers of a resampler without its queries, which FaceID computes from identities.
#[derive(Module, Debug)]
pub(super) struct Reader {
    pub(super) proj_in: Linear,
    proj_out: Linear,
    norm_out: LayerNorm,
    pub(super) layers: Vec<PerceiverLayer>,
}

impl Reader {
    pub(super) fn new(config: &ResamplerConfig, device: &Device) -> Self {
        let layer = || PerceiverLayer::new(config.channels, config.heads, config.factor, device);
        Self {
            proj_in: Linear::new(config.features, config.channels, true, device),
            proj_out: Linear::new(config.channels, config.context, true, device),
            norm_out: LayerNorm::new(config.context, EPSILON, device),
            layers: (0..config.depth).map(|_| layer()).collect(),
        }
    }

    /// Maps `[images, tokens, features]` and queries `[images, queries, channels]` to `[images, queries,
    /// context]`.
    pub(super) fn forward(&self, features: Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let stream = self.proj_in.forward(features);
        self.out(self.layers.iter().fold(latents, |latents, layer| layer.forward(stream.clone(), latents)))
    }

    /// Projects the latents to tokens of the U-Net's context.
    pub(super) fn out(&self, latents: Tensor<3>) -> Tensor<3> {
        self.norm_out.forward(self.proj_out.forward(latents))
    }
}

/// Creates learned queries with the published standard deviation.
pub(super) fn queries(config: &ResamplerConfig, device: &Device) -> Param<Tensor<3>> {
    let std = (config.channels as f64).powf(-0.5);
    Initializer::Normal { mean: 0.0, std }.init([1, config.tokens, config.channels], device)
}

impl Resampler {
    /// Creates random weights.
    pub(crate) fn new(config: &ResamplerConfig, device: &Device) -> Self {
        Self { latents: queries(config, device), body: Reader::new(config, device) }
    }

    /// Projects image tokens to a fixed number of tokens.
    ///
    /// # Shapes
    ///
    /// - `features`: `[images, tokens, features]`, the image encoder's penultimate layer
    /// - returns: `[images, tokens, context]`
    pub(crate) fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let latents = repeated(&self.latents, features.dims()[0]);
        self.body.forward(features, latents)
    }
}

/// Repeats the queries for each image.
pub(super) fn repeated(latents: &Param<Tensor<3>>, images: usize) -> Tensor<3> {
    let [_, tokens, channels] = latents.dims();
    let latents = latents.val();
    // Half-precision weights are cast, as the computation runs in f32.
    let latents = if latents.dtype() == DType::F32 { latents } else { latents.cast(DType::F32) };
    latents.expand([images, tokens, channels])
}
