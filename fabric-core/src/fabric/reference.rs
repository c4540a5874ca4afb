//! A reference image, encoded, and which half of the guidance it steers.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::guidance::Branch;
use crate::noise::ReferenceId;

/// Which half of the guidance a reference steers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The conditional branch.
    Liked,
    /// The unconditional branch.
    Disliked,
}

/// Which of a run's branches, by their places, references of a side act on.
///
/// The branch under the prompt comes first. With Instruct's four, the disliked act on all others: together they are what
/// guidance leads away from, whatever the scales.
pub(crate) fn acted_on(side: Side, branches: &[Branch]) -> Range<usize> {
    let prompted = branches.iter().take_while(|&&branch| branch == Branch::Conditional).count();
    match side {
        Side::Liked => 0..prompted,
        Side::Disliked => prompted..branches.len(),
    }
}

/// A reference image, encoded and ready to be noised.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Names it for noise and caches.
    pub id: ReferenceId,
    /// Scaled latents, `[1, channels, height, width]`, as large as the image being made.
    pub latents: Tensor<4>,
    /// Liked or disliked.
    pub side: Side,
    /// How much, above 0 and at most 1; multiplies the weight.
    pub strength: f64,
}
