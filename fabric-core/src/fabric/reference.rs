//! Encoded reference images.

use std::ops::Range;

use burn::tensor::Tensor;

use super::ReferenceScope;
use crate::guidance::Branch;
use crate::noise::ReferenceId;

/// Whether a reference is liked or disliked, which determines the guidance branch that attends to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Liked: the conditional branch attends to it.
    Liked,
    /// Disliked: the unconditional branch attends to it.
    Disliked,
}

/// Returns the indices of the branches that attend to references of this side.
///
/// The conditional branch comes first. With IPAdapter-Instruct's four branches, disliked references act on the other
/// three: guidance moves away from these together, whatever the scales.
pub(crate) fn acted_on(side: Side, branches: &[Branch]) -> Range<usize> {
    let prompted = branches.iter().take_while(|&&branch| branch == Branch::Conditional).count();
    match side {
        Side::Liked => 0..prompted,
        Side::Disliked => prompted..branches.len(),
    }
}

/// Encoded reference image.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Identifies it for noise and caches.
    pub id: ReferenceId,
    /// Clean latents, scaled, `[1, channels, height, width]`, of the size of the generated images.
    pub latents: Tensor<4>,
    /// Liked or disliked.
    pub side: Side,
    /// Strength, above 0 and at most 1; multiplies the weight.
    pub strength: f64,
    /// The part of the run and of the U-Net in which it acts.
    pub scope: ReferenceScope,
    /// Indices of the images of the run that attend to it, ascending; `None` if all do.
    pub images: Option<Vec<usize>>,
}

impl Reference {
    /// Whether an image of the run attends to it.
    pub(crate) fn acts_on(&self, image: usize) -> bool {
        self.images.as_ref().is_none_or(|images| images.binary_search(&image).is_ok())
    }
}
