//! Projections of face identities: vectors from a face recogniser (InsightFace), computed outside this library.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_models::layers::{Activation, LayerNorm, Linear};

use super::EPSILON;
use super::perceiver::HEAD_DIM;
use super::resampler::{Reader, ResamplerConfig};

/// Projects a face identity to a few tokens (`MLPProjModel` of the published FaceID code).
#[derive(Module, Debug)]
pub(crate) struct FaceProjection {
    hidden: Linear,
    out: Linear,
    norm: LayerNorm,
    tokens: usize,
}

impl FaceProjection {
    /// Creates random weights: from identities of `features` channels (512), through twice as many, to `tokens`
    /// (4, or 16 in the portrait files) of `context` channels.
    pub(crate) fn new(features: usize, tokens: usize, context: usize, device: &Device) -> Self {
        Self {
            hidden: Linear::new(features, 2 * features, true, device),
            out: Linear::new(2 * features, tokens * context, true, device),
            norm: LayerNorm::new(context, EPSILON, device),
            tokens,
        }
    }

    /// # Shapes
    ///
    /// - `identities`: `[faces, features]`
    /// - returns: `[faces, tokens, context]`
    pub(crate) fn forward(&self, identities: Tensor<2>) -> Tensor<3> {
        let projected = self.out.forward(Activation::Gelu.forward(self.hidden.forward(identities)));
        let [faces, channels] = projected.dims();
        self.norm.forward(projected.reshape([faces, self.tokens, channels / self.tokens]))
    }
}

/// Resampler whose queries come from a face identity and attend to the tokens of the image (`ProjPlusModel` of
/// the published FaceID code).
#[derive(Module, Debug)]
pub(crate) struct FaceResampler {
    identity: FaceProjection,
    reader: Reader,
    /// Scale of the resampler's output when it is added to the identity tokens. `None` is version 1, which
    /// returns only the resampler's output.
    shortcut: Option<f32>,
}

impl FaceResampler {
    /// Creates random weights: identities of `identity` channels, image tokens of `features` channels, and
    /// `tokens` (4) of `context` channels as queries and output.
    pub(crate) fn new(identity: usize, features: usize, tokens: usize, context: usize, device: &Device) -> Self {
        let heads = context / HEAD_DIM;
        let config = ResamplerConfig { features, channels: context, heads, depth: 4, factor: 4, tokens, context };
        Self {
            identity: FaceProjection::new(identity, tokens, context, device),
            reader: Reader::new(&config, device),
            shortcut: None,
        }
    }

    /// Selects version 2: `identity + strength * resampled`.
    #[must_use]
    pub(crate) fn with_shortcut(mut self, strength: f32) -> Self {
        self.shortcut = Some(strength);
        self
    }

    /// # Shapes
    ///
    /// - `identities`: `[faces, identity]`
    /// - `features`: `[faces, tokens, features]`, the image encoder's penultimate layer, of the aligned faces
    /// - returns: `[faces, tokens, context]`
    pub(crate) fn forward(&self, identities: Tensor<2>, features: Tensor<3>) -> Tensor<3> {
        let identity = self.identity.forward(identities);
        let read = self.reader.forward(features, identity.clone());
        match self.shortcut {
            Some(strength) => identity + read * strength,
            None => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_adds_to_the_identity_what_version_1_reads_off_the_image() {
        let device = fabric_backends::default_device().expect("a device");
        let first = FaceResampler::new(8, 12, 2, 64, &device);
        let wave = |count: usize| Tensor::<1, burn::tensor::Int>::arange(0..count as i64, &device).float().sin();
        let (identities, tokens) = (wave(16).reshape([2, 8]), wave(120).reshape([2, 5, 12]));
        let forward = |network: &FaceResampler| network.forward(identities.clone(), tokens.clone());
        let read = forward(&first);
        let [identity, half, whole] = [0.0, 0.5, 1.0].map(|share| forward(&first.clone().with_shortcut(share)));
        for (share, got) in [(0.5, half), (1.0, whole)] {
            let error = (got - (identity.clone() + read.clone() * share)).abs().max().into_scalar::<f32>();
            assert!(error < 1e-5, "{share}: {error}");
        }
        assert!((identity - read).abs().max().into_scalar::<f32>() > 1e-2);
    }
}
