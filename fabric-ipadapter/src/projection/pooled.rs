//! Projection of one vector per image.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_models::layers::{LayerNorm, Linear};

use super::EPSILON;

/// Projects one vector per image to a few tokens: `LN(reshape(W x + b))` (`ImageProjModel` of the published
/// code).
#[derive(Module, Debug)]
pub(crate) struct PooledProjection {
    proj: Linear,
    norm: LayerNorm,
    tokens: usize,
}

impl PooledProjection {
    /// Creates random weights: from `features` channels to `tokens` (4 in every published file) of `context`
    /// channels.
    pub(crate) fn new(features: usize, tokens: usize, context: usize, device: &Device) -> Self {
        Self {
            proj: Linear::new(features, tokens * context, true, device),
            norm: LayerNorm::new(context, EPSILON, device),
            tokens,
        }
    }

    /// Projects pooled features to tokens.
    ///
    /// # Shapes
    ///
    /// - `features`: `[images, features]`
    /// - returns: `[images, tokens, context]`
    pub(crate) fn forward(&self, features: Tensor<2>) -> Tensor<3> {
        let projected = self.proj.forward(features);
        let [images, channels] = projected.dims();
        self.norm.forward(projected.reshape([images, self.tokens, channels / self.tokens]))
    }
}
