//! Projection of each image token separately.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_models::layers::{Activation, LayerNorm, Linear};

use super::EPSILON;

/// Projects each token of the image encoder with a small network (`MLPProjModel` of the published code).
#[derive(Module, Debug)]
pub(crate) struct TokenProjection {
    hidden: Linear,
    out: Linear,
    norm: LayerNorm,
}

impl TokenProjection {
    /// Creates random weights: from tokens of `features` channels to as many tokens of `context` channels.
    pub(crate) fn new(features: usize, context: usize, device: &Device) -> Self {
        Self {
            hidden: Linear::new(features, features, true, device),
            out: Linear::new(features, context, true, device),
            norm: LayerNorm::new(context, EPSILON, device),
        }
    }

    /// Projects each token.
    ///
    /// # Shapes
    ///
    /// - `features`: `[images, tokens, features]`
    /// - returns: `[images, tokens, context]`
    pub(crate) fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        self.norm.forward(self.out.forward(Activation::Gelu.forward(self.hidden.forward(features))))
    }
}
