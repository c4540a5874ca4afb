//! What an adapter reads of a picture.

use std::fmt;

use burn::tensor::Tensor;
use fabric_core::models::ImageEncoder;

/// Features of one or more pictures, as an image encoder or a face recogniser gives them.
///
/// An adapter reads one kind; [`FeatureKind`] says which.
#[derive(Debug, Clone)]
pub enum Features {
    /// One vector per picture, projected: `[images, channels]`.
    Pooled(Tensor<2>),
    /// The encoder's last layer but one: `[images, tokens, channels]`.
    Tokens(Tensor<3>),
    /// Identities of faces (InsightFace): `[faces, channels]`.
    Face(Tensor<2>),
    /// Identities and, of the same faces, the encoder's tokens.
    FaceAndTokens {
        /// `[faces, channels]`.
        identities: Tensor<2>,
        /// `[faces, tokens, channels]`.
        tokens: Tensor<3>,
    },
    /// The encoder's tokens, what the result should show, and what of the picture is meant.
    Instructed {
        /// `[images, tokens, channels]`.
        tokens: Tensor<3>,
        /// `[images, text_tokens, text_channels]`: the text encoder's last layer, normed.
        prompt: Tensor<3>,
        /// The same of the instruction.
        instruction: Tensor<3>,
    },
}

/// Which features an adapter reads, and how many channels they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// [`Features::Pooled`] of so many channels.
    Pooled(usize),
    /// [`Features::Tokens`] of so many channels.
    Tokens(usize),
    /// [`Features::Face`] of so many channels.
    Face(usize),
    /// [`Features::FaceAndTokens`]: channels of identities, and of tokens.
    FaceAndTokens(usize, usize),
    /// [`Features::Instructed`]: channels of tokens, and of texts.
    Instructed(usize, usize),
}

impl fmt::Display for FeatureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pooled(channels) => write!(f, "one vector of {channels} channels per picture"),
            Self::Tokens(channels) => write!(f, "tokens of {channels} channels"),
            Self::Face(channels) => write!(f, "identities of faces with {channels} channels"),
            Self::FaceAndTokens(face, tokens) => {
                write!(f, "identities of faces with {face} channels and tokens of {tokens} channels")
            }
            Self::Instructed(tokens, text) => {
                write!(f, "tokens of {tokens} channels, a prompt and an instruction of {text} channels")
            }
        }
    }
}

impl Features {
    /// Their kind.
    pub fn kind(&self) -> FeatureKind {
        let last = |tensor: &Tensor<3>| tensor.dims()[2];
        match self {
            Self::Pooled(pooled) => FeatureKind::Pooled(pooled.dims()[1]),
            Self::Tokens(tokens) => FeatureKind::Tokens(last(tokens)),
            Self::Face(identities) => FeatureKind::Face(identities.dims()[1]),
            Self::FaceAndTokens { identities, tokens } => {
                FeatureKind::FaceAndTokens(identities.dims()[1], last(tokens))
            }
            Self::Instructed { tokens, instruction, .. } => FeatureKind::Instructed(last(tokens), last(instruction)),
        }
    }

    /// Features of pictures for an adapter that reads pooled features or tokens.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, size, size]`, as the encoder wants them
    pub fn of(encoder: &dyn ImageEncoder, pixels: Tensor<4>, kind: FeatureKind) -> Option<Self> {
        match kind {
            FeatureKind::Pooled(_) => Some(Self::Pooled(encoder.embed(pixels))),
            FeatureKind::Tokens(_) => Some(Self::Tokens(encoder.penultimate(pixels))),
            FeatureKind::Face(_) | FeatureKind::FaceAndTokens(..) | FeatureKind::Instructed(..) => None,
        }
    }

    /// What the published code gives an adapter where there is no picture: the vector of zeros, or tokens of a picture
    /// that is zero once normalised (a mean grey).
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, size, size]`; only the shape matters
    pub fn none_of(encoder: &dyn ImageEncoder, pixels: &Tensor<4>, kind: FeatureKind) -> Option<Self> {
        match kind {
            FeatureKind::Pooled(channels) => {
                Some(Self::Pooled(Tensor::zeros([pixels.dims()[0], channels], &pixels.device())))
            }
            _ => Self::of(encoder, pixels.zeros_like(), kind),
        }
    }
}
