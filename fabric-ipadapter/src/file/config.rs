//! What is known of an adapter before its weights are.

use std::fmt;

use burn::tensor::Device;

use fabric_core::models::CrossAttention;

use crate::adapter::{AdapterWeights, KeyValue};
use crate::projection::{
    FaceProjection, FaceResampler, ImageProjection, InstructResampler, PooledProjection, Resampler, ResamplerConfig,
    TokenProjection,
};
use crate::{AdapterError, FeatureKind, Features, numbered_layers};

/// Everything about an adapter that its tensors' names and shapes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterConfig {
    /// How it makes tokens of features.
    pub projection: ProjectionConfig,
    /// Channels of the U-Net's cross-attention layers, in the order of [`numbered_layers`](crate::numbered_layers).
    pub widths: Vec<usize>,
    /// Channels of a token: the U-Net's `cross_attention_dim`.
    pub context: usize,
    /// Rank of the LoRA that FaceID files carry for every attention layer.
    pub lora_rank: Option<usize>,
}

/// The kind of a projection and its sizes; in all of them `tokens` are tokens per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectionConfig {
    /// Base, light, vit-G, SDXL: pooled features of this many channels.
    Pooled {
        /// Channels of the pooled features: 1024 of ViT-H, 1280 of ViT-bigG.
        features: usize,
        /// 4.
        tokens: usize,
    },
    /// Full-face: each of the encoder's tokens, of this many channels.
    Tokens {
        /// 1280 of ViT-H.
        features: usize,
    },
    /// Plus, plus-face, composition.
    Resampler(ResamplerConfig),
    /// FaceID and, with 16 tokens and without LoRA, portrait.
    Face {
        /// Channels of an identity: 512.
        identity: usize,
        /// 4, or 16.
        tokens: usize,
    },
    /// FaceID plus; its two versions have the same names and shapes.
    FaceResampler {
        /// Channels of an identity: 512.
        identity: usize,
        /// Channels of the encoder's tokens: 1280 of ViT-H.
        features: usize,
        /// 4.
        tokens: usize,
        /// What the file's name tells.
        version: FaceVersion,
    },
    /// IPAdapter-Instruct.
    Instruct {
        /// The part that it has in common with plus.
        resampler: ResamplerConfig,
        /// Channels of prompt and instruction: 768.
        text: usize,
    },
}

/// The two versions of FaceID plus, which files do not tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FaceVersion {
    /// The tokens are what the identity read off the image.
    #[default]
    V1,
    /// That is added to the identity ("plusv2").
    V2,
}

impl AdapterConfig {
    /// An adapter of this kind, with random weights.
    pub fn init(&self, device: &Device) -> AdapterWeights {
        let context = self.context;
        let projection = match self.projection {
            ProjectionConfig::Pooled { features, tokens } => {
                ImageProjection::Pooled(PooledProjection::new(features, tokens, context, device))
            }
            ProjectionConfig::Tokens { features } => {
                ImageProjection::Tokens(TokenProjection::new(features, context, device))
            }
            ProjectionConfig::Resampler(config) => ImageProjection::Resampler(Resampler::new(&config, device)),
            ProjectionConfig::Face { identity, tokens } => {
                ImageProjection::Face(FaceProjection::new(identity, tokens, context, device))
            }
            ProjectionConfig::FaceResampler { identity, features, tokens, version } => {
                let resampler = FaceResampler::new(identity, features, tokens, context, device);
                ImageProjection::FaceResampler(match version {
                    FaceVersion::V1 => resampler,
                    FaceVersion::V2 => resampler.with_shortcut(1.0),
                })
            }
            ProjectionConfig::Instruct { resampler, text } => {
                ImageProjection::Instruct(InstructResampler::new(&resampler, text, device))
            }
        };
        let layers = self.widths.iter().map(|&width| KeyValue::new(context, width, device)).collect();
        AdapterWeights { projection, layers }
    }

    /// Which features it reads.
    pub fn reads(&self) -> FeatureKind {
        match self.projection {
            ProjectionConfig::Pooled { features, .. } => FeatureKind::Pooled(features),
            ProjectionConfig::Tokens { features } => FeatureKind::Tokens(features),
            ProjectionConfig::Resampler(config) => FeatureKind::Tokens(config.features),
            ProjectionConfig::Face { identity, .. } => FeatureKind::Face(identity),
            ProjectionConfig::FaceResampler { identity, features, .. } => {
                FeatureKind::FaceAndTokens(identity, features)
            }
            ProjectionConfig::Instruct { resampler, text } => FeatureKind::Instructed(resampler.features, text),
        }
    }

    /// Whether a U-Net's cross-attentions are those that it was made for.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Unfit`], which says what both have.
    pub fn check_layers(&self, layers: &[CrossAttention]) -> Result<(), AdapterError> {
        let layers = numbered_layers(layers);
        let unfit = |what: String, got: String, expected: String| AdapterError::Unfit {
            adapter: self.with_partners(),
            what,
            got,
            expected,
            next: format!("take the adapter that was made for this model, or {}", self.base_to_get()),
        };
        if layers.len() != self.widths.len() {
            let got = format!("{} cross-attentions", layers.len());
            return Err(unfit("the U-Net".to_owned(), got, self.widths.len().to_string()));
        }
        for (layer, &width) in layers.iter().zip(&self.widths) {
            let (got, expected) = ((layer.channels, layer.context), (width, self.context));
            if got != expected {
                let words = |(channels, context)| format!("{channels} channels over a context of {context}");
                return Err(unfit(format!("the U-Net's layer {}", layer.site), words(got), words(expected)));
            }
        }
        Ok(())
    }

    /// Whether features are what it reads: whether they come from the image encoder that it was trained with.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Unfit`], which says what both have and which encoder to get.
    pub fn check_features(&self, features: &Features) -> Result<(), AdapterError> {
        let (got, expected) = (features.kind(), self.reads());
        if got == expected {
            return Ok(());
        }
        Err(AdapterError::Unfit {
            adapter: self.with_partners(),
            what: "the features of the images".to_owned(),
            got: got.to_string(),
            expected: expected.to_string(),
            next: expected.how_to_get(&got).to_owned(),
        })
    }

    /// In words, with the U-Net and the features that it belongs to: whichever is wrong, a message shows all three.
    fn with_partners(&self) -> String {
        format!("{self}, reading {}", self.reads())
    }

    /// The model that it was made for, for messages.
    fn base_to_get(&self) -> &'static str {
        match (self.widths.len(), self.context) {
            (16, 768) => "Stable Diffusion 1.5",
            (16, 1024) => "Stable Diffusion 2",
            (70, 2048) => "Stable Diffusion XL",
            _ => "the model that it was trained with",
        }
    }
}

/// In words: `a plus adapter (16 tokens) for a U-Net of context 768 with 16 cross-attentions`.
impl fmt::Display for AdapterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.projection {
            ProjectionConfig::Pooled { tokens, .. } => write!(f, "an adapter of pooled features ({tokens} tokens)"),
            ProjectionConfig::Tokens { .. } => f.write_str("a full-face adapter"),
            ProjectionConfig::Resampler(config) => write!(f, "a plus adapter ({} tokens)", config.tokens),
            ProjectionConfig::Face { tokens, .. } => write!(f, "a FaceID adapter ({tokens} tokens)"),
            ProjectionConfig::FaceResampler { tokens, .. } => write!(f, "a FaceID plus adapter ({tokens} tokens)"),
            ProjectionConfig::Instruct { resampler, .. } => {
                write!(f, "an Instruct adapter ({} tokens)", resampler.tokens)
            }
        }?;
        write!(f, " for a U-Net of context {} with {} cross-attentions", self.context, self.widths.len())
    }
}
