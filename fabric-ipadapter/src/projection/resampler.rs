//! All tokens, through learned queries.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Tensor};
use fabric_models::layers::{LayerNorm, Linear};

use super::EPSILON;
use super::perceiver::PerceiverLayer;

/// The sizes of a [`Resampler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResamplerConfig {
    /// Channels of the tokens that it reads: 1280 of ViT-H.
    pub features: usize,
    /// Channels inside: 768 for Stable Diffusion 1.5, 1280 for SDXL.
    pub channels: usize,
    /// Heads of 64 channels.
    pub heads: usize,
    /// Layers: 4.
    pub depth: usize,
    /// Channels in the middle of a feed-forward network, as a multiple: 4.
    pub factor: usize,
    /// Tokens that it writes: 16.
    pub tokens: usize,
    /// Channels of the tokens that it writes: the U-Net's `cross_attention_dim`.
    pub context: usize,
}

/// A few learned queries read all tokens of the image encoder, layer by layer (Jaegle et al. 2021; the "plus" files).
#[derive(Module, Debug)]
pub struct Resampler {
    /// The learned queries, `[1, tokens, channels]`.
    latents: Param<Tensor<3>>,
    body: Reader,
}

/// What a resampler is without its queries: FaceID brings its own.
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

    /// `[images, tokens, features]` and `[images, queries, channels]` to `[images, queries, context]`.
    pub(super) fn forward(&self, features: Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let stream = self.proj_in.forward(features);
        self.out(self.layers.iter().fold(latents, |latents, layer| layer.forward(stream.clone(), latents)))
    }

    /// The latents as tokens of the U-Net's context.
    pub(super) fn out(&self, latents: Tensor<3>) -> Tensor<3> {
        self.norm_out.forward(self.proj_out.forward(latents))
    }
}

/// Learned queries with the published spread.
pub(super) fn queries(config: &ResamplerConfig, device: &Device) -> Param<Tensor<3>> {
    let std = (config.channels as f64).powf(-0.5);
    Initializer::Normal { mean: 0.0, std }.init([1, config.tokens, config.channels], device)
}

impl Resampler {
    /// With random weights.
    pub fn new(config: &ResamplerConfig, device: &Device) -> Self {
        Self { latents: queries(config, device), body: Reader::new(config, device) }
    }

    /// # Shapes
    ///
    /// - `features`: `[images, tokens, features]`, the image encoder's last layer but one
    /// - returns: `[images, tokens, context]`
    pub fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let latents = repeated(&self.latents, features.dims()[0]);
        self.body.forward(features, latents)
    }
}

/// The queries for each image.
pub(super) fn repeated(latents: &Param<Tensor<3>>, images: usize) -> Tensor<3> {
    let [_, tokens, channels] = latents.dims();
    let latents = latents.val();
    // Half-precision weights serve a computation in f32.
    let latents = if latents.dtype() == DType::F32 { latents } else { latents.cast(DType::F32) };
    latents.expand([images, tokens, channels])
}
