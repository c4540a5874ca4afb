//! Faces by their identity: a vector of a face recogniser (InsightFace), which somebody else computed.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric_models::layers::{Activation, LayerNorm, Linear};

use super::EPSILON;
use super::perceiver::HEAD_DIM;
use super::resampler::{Reader, ResamplerConfig};

/// A face's identity as a few tokens (`MLPProjModel` of the published FaceID code).
#[derive(Module, Debug)]
pub struct FaceProjection {
    hidden: Linear,
    out: Linear,
    norm: LayerNorm,
    tokens: usize,
}

impl FaceProjection {
    /// With random weights: from identities of `features` channels (512), through twice as many, to `tokens` (4, or 16
    /// of the portrait files) of `context` channels.
    pub fn new(features: usize, tokens: usize, context: usize, device: &Device) -> Self {
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
    pub fn forward(&self, identities: Tensor<2>) -> Tensor<3> {
        let projected = self.out.forward(Activation::Gelu.forward(self.hidden.forward(identities)));
        let [faces, channels] = projected.dims();
        self.norm.forward(projected.reshape([faces, self.tokens, channels / self.tokens]))
    }
}

/// A face's identity reads the tokens of its image (`ProjPlusModel` of the published FaceID code).
#[derive(Module, Debug)]
pub struct FaceResampler {
    identity: FaceProjection,
    reader: Reader,
    /// How much of the image joins the identity: none is version 1, where the image's part alone goes on.
    shortcut: Option<f32>,
}

impl FaceResampler {
    /// With random weights: identities of `identity` channels, tokens of `features` channels, `tokens` (4) of `context`
    /// channels in and out.
    pub fn new(identity: usize, features: usize, tokens: usize, context: usize, device: &Device) -> Self {
        let heads = context / HEAD_DIM;
        let config = ResamplerConfig { features, channels: context, heads, depth: 4, factor: 4, tokens, context };
        Self {
            identity: FaceProjection::new(identity, tokens, context, device),
            reader: Reader::new(&config, device),
            shortcut: None,
        }
    }

    /// As version 2 has it: `identity + strength * what the identity read`.
    #[must_use]
    pub fn with_shortcut(mut self, strength: f32) -> Self {
        self.shortcut = Some(strength);
        self
    }

    /// # Shapes
    ///
    /// - `identities`: `[faces, identity]`
    /// - `features`: `[faces, tokens, features]`, the image encoder's last layer but one, of the aligned faces
    /// - returns: `[faces, tokens, context]`
    pub fn forward(&self, identities: Tensor<2>, features: Tensor<3>) -> Tensor<3> {
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
