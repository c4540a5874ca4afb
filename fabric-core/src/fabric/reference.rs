//! A reference picture, encoded, and which half of the guidance it steers.

use burn::tensor::Tensor;

use crate::noise::ReferenceId;

/// Which half of the guidance a reference steers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The conditional branch.
    Liked,
    /// The unconditional branch.
    Disliked,
}

/// A reference picture, encoded and ready to be noised.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Names it for noise and caches.
    pub id: ReferenceId,
    /// Scaled latents, `[1, channels, height, width]`, as large as the picture being made.
    pub latents: Tensor<4>,
    /// Liked or disliked.
    pub side: Side,
    /// How much, above 0 and at most 1; multiplies the weight.
    pub strength: f64,
}
