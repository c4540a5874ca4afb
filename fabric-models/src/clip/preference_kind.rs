//! Kinds of preference models: how their scores are defined, and how they are recognized.

use super::{ClipTextConfig, ClipVisionConfig};
use crate::layers::Activation;
use crate::load::ClipLayout;
use crate::tokenizer::Cleaning;

/// Kind of a preference model: it determines the formula of the score and the preprocessing of prompts and images.
///
/// `cos` is the cosine similarity of the embeddings of prompt and image. Scores of different kinds cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PreferenceKind {
    /// PickScore v1 (<https://github.com/yuvalkirstain/PickScore>): `exp(logit_scale) * cos`, without a softmax over
    /// the images, as in FABRIC's evaluation. About 18 to 24.
    PickScore,
    /// HPS v1 (<https://github.com/tgxs002/align_sd>): `100 * cos`, as in FABRIC's evaluation; its authors omit the
    /// factor.
    Hps,
    /// HPS v2 and v2.1 (<https://github.com/tgxs002/HPSv2>): `cos`, as `hpsv2.score` returns it; its benchmark tables
    /// have `100 * cos`. The longest side of an image is resized and the rest padded with black.
    HpsV2,
    /// CLIP without training on preferences: `100 * cos`, the CLIP similarity of FABRIC's evaluation.
    Clip,
}

impl PreferenceKind {
    /// Returns the kind of a published file with this layout and these sizes.
    pub(super) fn detect(layout: ClipLayout, text: &ClipTextConfig, vision: &ClipVisionConfig) -> Self {
        let sizes = [text.hidden_size, text.num_hidden_layers, vision.hidden_size, vision.num_hidden_layers];
        match (layout, sizes, (vision.image_size, vision.patch_size)) {
            (ClipLayout::Transformers, [1024, 24, 1280, 32], (224, 14)) => Self::PickScore,
            (ClipLayout::OpenClip, [1024, 24, 1280, 32], (224, 14)) => Self::HpsV2,
            (ClipLayout::OpenClip, [768, 12, 1024, 24], (224, 14)) => Self::Hps,
            _ => Self::Clip,
        }
    }

    /// Returns the factor of the cosine similarity in the score.
    pub(super) fn factor(self, logit_scale: f64) -> f64 {
        match self {
            Self::PickScore => logit_scale.exp(),
            Self::Hps | Self::Clip => 100.0,
            Self::HpsV2 => 1.0,
        }
    }

    /// Returns the text cleaning of the tokenizer that the published code uses with this model.
    pub(super) fn cleaning(self, layout: ClipLayout) -> Cleaning {
        match (self, layout) {
            (Self::Hps | Self::HpsV2, _) | (Self::Clip, ClipLayout::OpenClip) => Cleaning::OpenClip,
            // `AutoProcessor` chooses the fast tokenizer.
            (Self::PickScore, _) | (Self::Clip, ClipLayout::Transformers) => Cleaning::Fast,
        }
    }
}

/// Options for opening a preference model. The defaults are right for the published files of PickScore, HPS and HPS v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PreferenceOptions {
    /// Kind of the model. `None` (the default) chooses it by layout and sizes:
    ///
    /// | names of the tensors | sizes | kind |
    /// |---|---|---|
    /// | transformers | ViT-H/14 | [`PreferenceKind::PickScore`] |
    /// | OpenCLIP, OpenAI | ViT-H/14 | [`PreferenceKind::HpsV2`] |
    /// | OpenCLIP, OpenAI | ViT-L/14 with images of 224x224 | [`PreferenceKind::Hps`] |
    /// | any | other | [`PreferenceKind::Clip`] |
    ///
    /// A preference model has the names and sizes of the CLIP model from which its training started, so the kind must
    /// be given for OpenCLIP's own ViT-H/14 and OpenAI's own ViT-L/14, and for files that were converted to the other
    /// layout.
    pub kind: Option<PreferenceKind>,
    /// Activation function of the MLPs. `None` (the default) uses that of `config.json`. Without this file it is
    /// chosen by the width of the image encoder: quick GELU up to ViT-L, as OpenAI's models and HPS v1 have it, and
    /// GELU for wider ones. It must be given for files of OpenCLIP's own ViT-B and ViT-L with GELU.
    pub activation: Option<Activation>,
}
