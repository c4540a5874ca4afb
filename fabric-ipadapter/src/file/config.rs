//! Configuration of an adapter.

use std::fmt;

use burn::tensor::Device;

use fabric_core::InvalidValue;
use fabric_core::models::CrossAttention;

use crate::adapter::{AdapterWeights, KeyValue};
use crate::projection::{
    FaceProjection, FaceResampler, ImageProjection, InstructResampler, PooledProjection, Resampler, ResamplerConfig,
    TokenProjection,
};
use crate::{AdapterError, FeatureKind, Features, numbered_layers};

/// Configuration of an adapter, as determined by the names and shapes of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterConfig {
    /// Projection of features to tokens.
    pub projection: ProjectionConfig,
    /// Channels of the U-Net's cross-attention layers, in the order of [`numbered_layers`](crate::numbered_layers).
    pub widths: Vec<usize>,
    /// Channels of a token: the U-Net's `cross_attention_dim`.
    pub context: usize,
    /// Rank of the LoRA that FaceID files contain for every attention layer.
    pub lora_rank: Option<usize>,
}

/// Kind and sizes of a projection. In all variants, `tokens` is the number of tokens per image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectionConfig {
    /// Base, light, vit-G, SDXL: pooled features.
    Pooled {
        /// Channels of the pooled features: 1024 for ViT-H, 1280 for ViT-bigG.
        features: usize,
        /// Tokens per image: 4.
        tokens: usize,
    },
    /// Full-face: all tokens of the image encoder.
    Tokens {
        /// Channels of the encoder's tokens: 1280 for ViT-H.
        features: usize,
    },
    /// Plus, plus-face, composition.
    Resampler(ResamplerConfig),
    /// FaceID; also portrait, with 16 tokens and without LoRA.
    Face {
        /// Channels of an identity: 512.
        identity: usize,
        /// Tokens per face: 4, or 16 for portrait.
        tokens: usize,
    },
    /// FaceID plus. Its two versions have the same names and shapes.
    FaceResampler {
        /// Channels of an identity: 512.
        identity: usize,
        /// Channels of the encoder's tokens: 1280 for ViT-H.
        features: usize,
        /// Tokens per face: 4.
        tokens: usize,
        /// Version, which only the name of the file reveals.
        version: FaceVersion,
    },
    /// IPAdapter-Instruct.
    Instruct {
        /// The part shared with plus adapters.
        resampler: ResamplerConfig,
        /// Channels of prompt and instruction: 768.
        text: usize,
    },
}

/// Version of FaceID plus, which the tensors of a file do not reveal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FaceVersion {
    /// The tokens are the output of the resampler.
    #[default]
    V1,
    /// The output of the resampler is added to the identity tokens ("plusv2").
    V2,
}

impl AdapterConfig {
    /// Creates the weights of an adapter with random values.
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

    /// Returns the kind of features that the adapter expects.
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

    /// Whether it is an Instruct adapter, which reads an instruction beside the image.
    pub fn is_instruct(&self) -> bool {
        matches!(self.projection, ProjectionConfig::Instruct { .. })
    }

    /// Checks that the cross-attention layers of a U-Net match the adapter.
    ///
    /// # Errors
    ///
    /// Returns [`AdapterError::Unfit`], which shows both sides, if they do not match.
    pub fn check_layers(&self, layers: &[CrossAttention]) -> Result<(), AdapterError> {
        let layers = numbered_layers(layers);
        let unfit = |what: String, got: String, expected: String| AdapterError::Unfit {
            adapter: self.with_partners(),
            value: InvalidValue {
                what,
                got,
                expected,
                help: format!("take the adapter that was made for this model, or {}", self.base_to_get()),
            },
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

    /// Checks that features are of the expected kind, that is, from the image encoder that the adapter was
    /// trained with.
    ///
    /// # Errors
    ///
    /// Returns [`AdapterError::Unfit`], which shows both sides and the encoder to use, if they do not match.
    pub fn check_features(&self, features: &Features) -> Result<(), AdapterError> {
        let (got, expected) = (features.kind(), self.reads());
        if got == expected {
            return Ok(());
        }
        Err(AdapterError::Unfit {
            adapter: self.with_partners(),
            value: InvalidValue {
                what: "the features of the images".to_owned(),
                got: got.to_string(),
                expected: expected.to_string(),
                help: expected.how_to_get(&got).to_owned(),
            },
        })
    }

    /// Describes the adapter with its U-Net and features, so that each error message shows all three.
    fn with_partners(&self) -> String {
        format!("{self}, reading {}", self.reads())
    }

    /// Returns the base model of the adapter, for error messages.
    fn base_to_get(&self) -> &'static str {
        match (self.widths.len(), self.context) {
            (16, 768) => "Stable Diffusion 1.5",
            (16, 1024) => "Stable Diffusion 2",
            (70, 2048) => "Stable Diffusion XL",
            _ => "the model that it was trained with",
        }
    }
}

/// Formats a description: `a plus adapter (16 tokens) for a U-Net of context 768 with 16 cross-attentions`.
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
