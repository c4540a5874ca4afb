//! Projections of image features to tokens for cross-attention.
//!
//! | projection | input | files |
//! |---|---|---|
//! | [`PooledProjection`] | one vector per image | base, light, vit-G, SDXL |
//! | [`TokenProjection`] | every token separately | full-face |
//! | [`Resampler`] | all tokens, with learned queries | plus, plus-face, composition |
//! | [`FaceProjection`] | a face's identity | FaceID, portrait |
//! | [`FaceResampler`] | a face's identity and all tokens | FaceID plus |
//! | [`InstructResampler`] | all tokens, a prompt and an instruction | Instruct |

mod face;
mod instruct;
mod names;
mod perceiver;
mod pooled;
mod resampler;
mod tokens;

pub(crate) use face::{FaceProjection, FaceResampler};
pub(crate) use instruct::InstructResampler;
pub(crate) use names::published;
pub(crate) use perceiver::HEAD_DIM;
pub(crate) use pooled::PooledProjection;
pub(crate) use resampler::Resampler;
pub use resampler::ResamplerConfig;
pub(crate) use tokens::TokenProjection;

use burn::module::Module;

/// Projection of an adapter, of any kind.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a layer is a handful of handles, and an adapter has one of these")]
pub(crate) enum ImageProjection {
    /// Base, light, vit-G, SDXL.
    Pooled(PooledProjection),
    /// Full-face.
    Tokens(TokenProjection),
    /// Plus, plus-face, composition.
    Resampler(Resampler),
    /// FaceID, portrait.
    Face(FaceProjection),
    /// FaceID plus.
    FaceResampler(FaceResampler),
    /// Instruct.
    Instruct(InstructResampler),
}

/// Epsilon of all layer norms in the published projections.
const EPSILON: f64 = 1e-5;
