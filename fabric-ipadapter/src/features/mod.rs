//! Image features, the input of an adapter.

mod combine;
mod encoded;
mod file;

use std::fmt;

use burn::tensor::{DType, Device, Tensor};
use fabric_core::InvalidValue;
use fabric_core::models::ImageEncoder;

use crate::AdapterError;

pub use combine::Combine;
pub(crate) use encoded::AttachedEncoder;

/// Features of one or more images from an image encoder or a face recogniser.
///
/// An adapter expects one kind, described by [`FeatureKind`].
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a tensor is a handle, and few of these live at a time")]
pub enum Features {
    /// One projected vector per image: `[images, channels]`.
    Pooled(Tensor<2>),
    /// The encoder's penultimate layer: `[images, tokens, channels]`.
    Tokens(Tensor<3>),
    /// Face identities (InsightFace): `[faces, channels]`.
    Face(Tensor<2>),
    /// Identities and encoder tokens of the same faces.
    FaceAndTokens {
        /// `[faces, channels]`.
        identities: Tensor<2>,
        /// `[faces, tokens, channels]`.
        tokens: Tensor<3>,
    },
    /// Encoder tokens with the text features of prompt and instruction.
    Instructed {
        /// `[images, tokens, channels]`.
        tokens: Tensor<3>,
        /// `[images, text_tokens, text_channels]`: the text encoder's last layer, after the final layer norm.
        prompt: Tensor<3>,
        /// Same shape, for the instruction.
        instruction: Tensor<3>,
    },
}

/// Kind of the features that an adapter expects, with their channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// [`Features::Pooled`] with this many channels.
    Pooled(usize),
    /// [`Features::Tokens`] with this many channels.
    Tokens(usize),
    /// [`Features::Face`] with this many channels.
    Face(usize),
    /// [`Features::FaceAndTokens`]: channels of the identities and of the tokens.
    FaceAndTokens(usize, usize),
    /// [`Features::Instructed`]: channels of the tokens and of the texts.
    Instructed(usize, usize),
}

impl FeatureKind {
    /// Returns how to get features of this kind instead of another, for error messages.
    pub(crate) fn how_to_get(&self, instead_of: &Self) -> &'static str {
        match (self, instead_of) {
            (Self::Instructed(expected, _), Self::Instructed(got, _)) if expected == got => {
                "read both texts with CLIP ViT-L's text encoder: its last layer, normed"
            }
            (Self::Instructed(..), Self::Pooled(_) | Self::Tokens(_)) => "give it an instruction and a prompt as well",
            (Self::Pooled(1024), Self::Pooled(_)) | (Self::Tokens(1280), Self::Tokens(_)) => {
                "take the image encoder CLIP ViT-H/14 (h94/IP-Adapter, models/image_encoder)"
            }
            (Self::Pooled(1280), Self::Pooled(_)) => {
                "take the image encoder CLIP ViT-bigG/14 (h94/IP-Adapter, sdxl_models/image_encoder)"
            }
            (Self::Face(_) | Self::FaceAndTokens(..), _) => {
                "give the identity that InsightFace (buffalo_l) finds of each face"
            }
            _ => "make them for this adapter: `Features::of` takes the kind that it reads",
        }
    }
}

impl fmt::Display for FeatureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pooled(channels) => write!(f, "one vector of {channels} channels per image"),
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
    /// Returns the kind of the features.
    pub fn kind(&self) -> FeatureKind {
        let last = |tensor: &Tensor<3>| tensor.dims()[2];
        match self {
            Self::Pooled(pooled) => FeatureKind::Pooled(pooled.dims()[1]),
            Self::Tokens(tokens) => FeatureKind::Tokens(last(tokens)),
            Self::Face(identities) => FeatureKind::Face(identities.dims()[1]),
            Self::FaceAndTokens { identities, tokens } => {
                FeatureKind::FaceAndTokens(identities.dims()[1], last(tokens))
            }
            // If the texts differ in their channels, report 0, which no adapter expects.
            Self::Instructed { tokens, prompt, instruction } => {
                let text = if last(prompt) == last(instruction) { last(prompt) } else { 0 };
                FeatureKind::Instructed(last(tokens), text)
            }
        }
    }

    /// Whether they have the texts of an instruction.
    pub(crate) fn is_instructed(&self) -> bool {
        matches!(self, Self::Instructed { .. })
    }

    /// Number of images or faces.
    pub fn images(&self) -> usize {
        match self {
            Self::Pooled(x) | Self::Face(x) => x.dims()[0],
            Self::Tokens(tokens) | Self::FaceAndTokens { tokens, .. } | Self::Instructed { tokens, .. } => {
                tokens.dims()[0]
            }
        }
    }

    /// Moves the features to a device.
    pub(crate) fn moved_to(self, device: &Device) -> Self {
        let is_there = match &self {
            Self::Pooled(x) | Self::Face(x) => x.device() == *device,
            Self::Tokens(x) => x.device() == *device,
            Self::FaceAndTokens { identities, tokens } => identities.device() == *device && tokens.device() == *device,
            Self::Instructed { tokens, prompt, instruction } => {
                [tokens, prompt, instruction].iter().all(|x| x.device() == *device)
            }
        };
        if is_there { self } else { self.map(|x| x.to_device(device), |x| x.to_device(device)) }
    }

    /// Bytes of all tensors.
    pub(crate) fn bytes(&self) -> usize {
        fn bytes<const D: usize>(x: &Tensor<D>) -> usize {
            x.dims().iter().product::<usize>() * x.dtype().size()
        }
        match self {
            Self::Pooled(x) | Self::Face(x) => bytes(x),
            Self::Tokens(x) => bytes(x),
            Self::FaceAndTokens { identities, tokens } => bytes(identities) + bytes(tokens),
            Self::Instructed { tokens, prompt, instruction } => {
                [tokens, prompt, instruction].into_iter().map(bytes).sum()
            }
        }
    }

    /// Whether no value is NaN or infinite. Waits for the device.
    pub(crate) fn are_finite(&self) -> bool {
        fn are_finite<const D: usize>(x: &Tensor<D>) -> bool {
            // In f32, because the sum of many values may exceed the range of f16.
            x.clone().cast(DType::F32).abs().sum().into_scalar::<f32>().is_finite()
        }
        match self {
            Self::Pooled(x) | Self::Face(x) => are_finite(x),
            Self::Tokens(x) => are_finite(x),
            Self::FaceAndTokens { identities, tokens } => are_finite(identities) && are_finite(tokens),
            Self::Instructed { tokens, prompt, instruction } => {
                [tokens, prompt, instruction].into_iter().all(are_finite)
            }
        }
    }

    /// Repeats the features of one image for this many images; features of as many images are unchanged.
    pub(crate) fn repeated(self, images: usize) -> Result<Self, AdapterError> {
        match self.images() {
            got if got == images => Ok(self),
            1 => Ok(self.map(|x| x.repeat_dim(0, images), |x| x.repeat_dim(0, images))),
            got => Err(AdapterError::Setting(InvalidValue {
                what: "features of no image".to_owned(),
                got: got.to_string(),
                expected: format!("1, or {images} as there are images"),
                help: "give one".to_owned(),
            })),
        }
    }

    /// Applies a function to each tensor.
    fn map(self, pooled: impl Fn(Tensor<2>) -> Tensor<2>, tokens: impl Fn(Tensor<3>) -> Tensor<3>) -> Self {
        match self {
            Self::Pooled(x) => Self::Pooled(pooled(x)),
            Self::Tokens(x) => Self::Tokens(tokens(x)),
            Self::Face(x) => Self::Face(pooled(x)),
            Self::FaceAndTokens { identities, tokens: x } => {
                Self::FaceAndTokens { identities: pooled(identities), tokens: tokens(x) }
            }
            Self::Instructed { tokens: x, prompt, instruction } => {
                let [x, prompt, instruction] = [x, prompt, instruction].map(&tokens);
                Self::Instructed { tokens: x, prompt, instruction }
            }
        }
    }

    /// Concatenates the features of several images of one kind.
    pub(crate) fn joined(parts: Vec<Self>) -> Self {
        let (mut pooled, mut tokens) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Self::Pooled(x) => pooled.push(x),
                Self::Tokens(x) => tokens.push(x),
                other => unreachable!("joined: an encoder gives no {}", other.kind()),
            }
        }
        if pooled.is_empty() { Self::Tokens(Tensor::cat(tokens, 0)) } else { Self::Pooled(Tensor::cat(pooled, 0)) }
    }

    /// Checks that all parts have the same number of images, at least one.
    pub(crate) fn check_rows(&self) -> Result<(), AdapterError> {
        let rows = match self {
            Self::Pooled(x) | Self::Face(x) => vec![x.dims()[0]],
            Self::Tokens(x) => vec![x.dims()[0]],
            Self::FaceAndTokens { identities, tokens } => vec![identities.dims()[0], tokens.dims()[0]],
            Self::Instructed { tokens, prompt, instruction } => {
                [tokens, prompt, instruction].map(|x| x.dims()[0]).to_vec()
            }
        };
        if rows.iter().all(|&count| count == rows[0] && count > 0) {
            return Ok(());
        }
        Err(AdapterError::Setting(InvalidValue {
            what: "features of images".to_owned(),
            got: format!("{rows:?} of them"),
            expected: "as many of each kind, and one at least".to_owned(),
            help: "repeat a text for each image".to_owned(),
        }))
    }

    /// Moves the features to a device that tracks gradients.
    #[cfg(feature = "train")]
    pub(crate) fn tracked(self) -> Self {
        self.map(Tensor::from_inner, Tensor::from_inner)
    }

    /// Casts the features to f32.
    pub(crate) fn in_f32(&self) -> Self {
        fn cast<const D: usize>(x: Tensor<D>) -> Tensor<D> {
            if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) }
        }
        self.clone().map(cast, cast)
    }

    /// Encodes images for an adapter that expects pooled features or tokens.
    ///
    /// Returns `None` for adapters that need more than images (faces, instructions), and for pooled features if
    /// the encoder has no projection.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, size, size]`, preprocessed for the encoder
    pub fn of(encoder: &dyn ImageEncoder, pixels: Tensor<4>, kind: FeatureKind) -> Option<Self> {
        match kind {
            FeatureKind::Pooled(_) => encoder.has_projection().then(|| Self::Pooled(encoder.embed(pixels))),
            FeatureKind::Tokens(_) => Some(Self::Tokens(encoder.penultimate(pixels))),
            FeatureKind::Face(_) | FeatureKind::FaceAndTokens(..) | FeatureKind::Instructed(..) => None,
        }
    }

    /// Returns the features of "no image", as in the published code: a zero vector; or the tokens of an image
    /// that is zero after normalisation (a mean grey); for faces, a zero identity.
    ///
    /// Returns `None` for adapters with instructions, whose texts have no such default.
    ///
    /// # Shapes
    ///
    /// - `pixels`: `[images, 3, size, size]`; only the shape matters
    pub fn none_of(encoder: &dyn ImageEncoder, pixels: &Tensor<4>, kind: FeatureKind) -> Option<Self> {
        let zeros = |channels| Tensor::zeros([pixels.dims()[0], channels], &pixels.device());
        let tokens = || encoder.penultimate(pixels.zeros_like());
        match kind {
            FeatureKind::Pooled(channels) => Some(Self::Pooled(zeros(channels))),
            FeatureKind::Tokens(_) => Some(Self::Tokens(tokens())),
            FeatureKind::Face(channels) => Some(Self::Face(zeros(channels))),
            FeatureKind::FaceAndTokens(channels, _) => {
                Some(Self::FaceAndTokens { identities: zeros(channels), tokens: tokens() })
            }
            FeatureKind::Instructed(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Image encoder that returns zeros, with or without a projection.
    struct Zeros {
        projects: bool,
    }

    impl ImageEncoder for Zeros {
        fn embed(&self, pixels: Tensor<4>) -> Tensor<2> {
            Tensor::zeros([pixels.dims()[0], 6], &pixels.device())
        }

        fn penultimate(&self, pixels: Tensor<4>) -> Tensor<3> {
            Tensor::zeros([pixels.dims()[0], 5, 6], &pixels.device())
        }

        fn image_size(&self) -> usize {
            4
        }

        fn device(&self) -> Device {
            fabric_backends::default_device().expect("a device")
        }

        fn has_projection(&self) -> bool {
            self.projects
        }
    }

    #[test]
    fn an_encoder_without_projection_gives_tokens_and_no_pooled_features() {
        let pixels = Tensor::zeros([1, 3, 4, 4], &fabric_backends::default_device().expect("a device"));
        for projects in [true, false] {
            let of = |kind| Features::of(&Zeros { projects }, pixels.clone(), kind);
            assert!(of(FeatureKind::Tokens(6)).is_some());
            // Pooled features would have 6 channels too, so the number of channels does not tell whether there
            // is a projection.
            assert_eq!(of(FeatureKind::Pooled(6)).is_some(), projects);
        }
    }
}
