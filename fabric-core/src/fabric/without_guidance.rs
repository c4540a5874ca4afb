//! Effect of disliked references where no branch runs that guidance leads away from.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::settings::within;
use crate::Error;
use crate::attention::Extrapolation;

/// Effect of disliked references in evaluations without a branch that guidance leads away from: at guidance scale 1, which
/// few-step models need, and outside of the guidance window. They then act on the conditional branch.
///
/// FABRIC as published has none: disliked images have no effect there.
///
/// ```
/// use fabric_core::attention::Extrapolation;
/// use fabric_core::fabric::{DislikesWithoutGuidance, FabricSettings};
///
/// let dislikes_without_guidance = DislikesWithoutGuidance::Extrapolated(Extrapolation::default());
/// assert!(FabricSettings { dislikes_without_guidance, ..FabricSettings::default() }.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum DislikesWithoutGuidance {
    /// They have no effect, as published.
    #[default]
    NoEffect,
    /// Their keys join the self-attention, and their values with the sign turned (value sign flip, VSF,
    /// [arXiv 2508.10931](https://arxiv.org/abs/2508.10931)): where a query finds something of a disliked image, that is
    /// taken away.
    Flipped {
        /// Factor on the values.
        scale: f64,
    },
    /// The self-attention is led away from one that has their keys and values too (NAG).
    Extrapolated(Extrapolation),
}

impl DislikesWithoutGuidance {
    pub(super) fn validate(&self) -> Result<(), Error> {
        const NAME: &str = "fabric.dislikes_without_guidance";
        match self {
            Self::NoEffect => {}
            Self::Flipped { scale } => within(&format!("{NAME}.scale"), *scale, 0.0, 100.0)?,
            Self::Extrapolated(how) => how.validate(NAME)?,
        }
        Ok(())
    }

    /// Whether disliked references act.
    pub(crate) fn acts(&self) -> bool {
        *self != Self::NoEffect
    }

    /// Returns the values of a disliked reference as they join the attention.
    pub(super) fn values(&self, values: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Flipped { scale } => values * -*scale,
            Self::NoEffect | Self::Extrapolated(_) => values,
        }
    }

    /// Returns how the attention is led away from the reference, if it is.
    pub(super) fn away(&self) -> Option<Extrapolation> {
        match self {
            Self::Extrapolated(how) => Some(*how),
            Self::NoEffect | Self::Flipped { .. } => None,
        }
    }
}
