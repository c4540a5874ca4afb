//! Encoded reference images.

use std::ops::Range;

use burn::tensor::Tensor;

use super::{LikedPerImage, ReferenceScope};
use crate::InvalidValue;
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
    /// The images of the run that attend to it.
    pub images: AttendingImages,
}

/// Images of a run that attend to a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttendingImages {
    /// All of them.
    All,
    /// Images with these indices, in ascending order.
    Listed(Vec<usize>),
    /// Images that [`LikedPerImage`] selects.
    Distributed {
        /// The settings of the distribution.
        per_image: LikedPerImage,
        /// Number of newer references among those that are distributed.
        age: usize,
        /// Number of references that are distributed.
        count: usize,
    },
}

impl AttendingImages {
    /// Whether an image of the run is among them.
    pub(crate) fn contains(&self, image: usize) -> bool {
        match self {
            Self::All => true,
            Self::Listed(images) => images.binary_search(&image).is_ok(),
            Self::Distributed { per_image, age, count } => per_image.attends(image, *age, *count),
        }
    }
}

/// Checks the images of a request, given by their indices, that a reference acts on.
pub(crate) fn check_images(name: &str, images: &[usize], count: usize) -> Result<(), InvalidValue> {
    if !images.is_empty() && images.is_sorted_by(|a, b| a < b) && images.iter().all(|&image| image < count) {
        return Ok(());
    }
    let got = if images.len() > 8 { format!("{} indices", images.len()) } else { format!("{images:?}") };
    let expected = format!("ascending indices of some of the images 0..{count}");
    Err(InvalidValue::new(name, got, expected, "count from 0, each once, or leave them out for all images"))
}
