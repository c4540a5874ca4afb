//! Guidance: which branches an evaluation runs, and how their predictions are combined.

mod apg;

use burn::tensor::Tensor;

pub use apg::Apg;
pub(crate) use apg::ProjectedGuidance;

/// One conditioning of the image being generated. Every branch has its own rows in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Branch {
    /// Positive prompt. FABRIC's liked images act on this branch.
    Conditional,
    /// IPAdapter-Instruct: negative prompt, with the image prompt and no instruction.
    ImageOnly,
    /// IPAdapter-Instruct: negative prompt, with the image prompt and the instruction to use everything in it.
    Everything,
    /// Negative prompt. FABRIC's disliked images act on this branch, and on the two other Instruct branches.
    Unconditional,
}

/// Scaled difference between two branches, `scale * (to - from)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Factor on the difference.
    pub scale: f64,
    /// The branch to move away from.
    pub from: Branch,
    /// The branch to move towards.
    pub to: Branch,
}

/// Combines branches into one prediction: `base + sum of scale * (to - from)`.
///
/// ```
/// use fabric_core::guidance::{Branch, Guidance};
/// assert_eq!(Guidance::classifier_free(7.5).branches(), [Branch::Conditional, Branch::Unconditional]);
/// // A scale of 1 is the conditional branch alone, so the other need not run.
/// assert_eq!(Guidance::classifier_free(1.0).branches(), [Branch::Conditional]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// The branch to which the terms are added.
    pub base: Branch,
    /// The scaled differences.
    pub terms: Vec<Term>,
    /// Share of the conditional branch's standard deviation to restore, from 0 (off) to 1.
    ///
    /// "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2305.08891), section 3.4.
    pub rescale: f64,
}

impl Guidance {
    /// Creates classifier-free guidance, `unconditional + scale * (conditional - unconditional)`.
    pub fn classifier_free(scale: f64) -> Self {
        if scale == 1.0 {
            return Self { base: Branch::Conditional, terms: Vec::new(), rescale: 0.0 };
        }
        let term = Term { scale, from: Branch::Unconditional, to: Branch::Conditional };
        Self { base: Branch::Unconditional, terms: vec![term], rescale: 0.0 }
    }

    /// Creates IPAdapter-Instruct's guidance with three scales, for tasks that are hard to tell apart
    /// (2408.03209, published code): `unconditional + instruction * (conditional - everything) + text *
    /// (everything - image_only) + image * (image_only - unconditional)`.
    ///
    /// ```
    /// use fabric_core::guidance::Guidance;
    /// assert_eq!(Guidance::instructed(6.0, 6.0, 1.0).branches().len(), 4);
    /// ```
    pub fn instructed(text: f64, instruction: f64, image: f64) -> Self {
        let term = |scale, from, to| Term { scale, from, to };
        let terms = vec![
            term(instruction, Branch::Everything, Branch::Conditional),
            term(text, Branch::ImageOnly, Branch::Everything),
            term(image, Branch::Unconditional, Branch::ImageOnly),
        ];
        Self { base: Branch::Unconditional, terms, rescale: 0.0 }
    }

    /// Returns a copy that restores this share of the conditional branch's standard deviation.
    #[must_use]
    pub fn with_rescale(mut self, rescale: f64) -> Self {
        self.rescale = rescale;
        self
    }

    /// Returns the scale if this is classifier-free guidance, and `None` for other guidance.
    pub(crate) fn classifier_free_scale(&self) -> Option<f64> {
        match (self.base, self.terms.as_slice()) {
            (Branch::Conditional, []) => Some(1.0),
            (Branch::Unconditional, [Term { scale, from: Branch::Unconditional, to: Branch::Conditional }]) => {
                Some(*scale)
            }
            _ => None,
        }
    }

    /// Returns the branches that must run, each once, in batch order.
    pub fn branches(&self) -> Vec<Branch> {
        let mut branches = vec![self.base];
        for term in self.terms.iter().filter(|term| term.scale != 0.0) {
            branches.extend([term.from, term.to]);
        }
        branches.sort_unstable();
        branches.dedup();
        branches
    }

    /// Combines the predictions of [`Self::branches`], stacked along the first axis in that order.
    ///
    /// # Shapes
    ///
    /// - `predictions`: `[branches * images, channels, height, width]`
    /// - returns: `[images, channels, height, width]`
    pub fn mix(&self, predictions: Tensor<4>) -> Tensor<4> {
        let branches = self.branches();
        if branches.len() == 1 {
            return predictions;
        }
        let part = |branch| self.part(&predictions, branch);
        let mut mixed = part(self.base);
        for term in self.terms.iter().filter(|term| term.scale != 0.0) {
            mixed = mixed + (part(term.to) - part(term.from)) * term.scale;
        }
        if self.rescale > 0.0 && branches.contains(&Branch::Conditional) {
            mixed = rescaled(mixed, part(Branch::Conditional), self.rescale);
        }
        mixed
    }

    /// Returns the rows of one branch in the stacked predictions of [`Self::branches`].
    fn part(&self, predictions: &Tensor<4>, branch: Branch) -> Tensor<4> {
        let (branches, rows) = (self.branches(), predictions.dims()[0]);
        assert_eq!(rows % branches.len(), 0, "predictions: {rows} rows for {} branches", branches.len());
        let at = branches.iter().position(|&one| one == branch).expect("a branch of this guidance");
        let images = rows / branches.len();
        predictions.clone().narrow(0, at * images, images)
    }
}

/// Moves the standard deviation of `mixed` towards that of `conditional`, by `share`.
fn rescaled(mixed: Tensor<4>, conditional: Tensor<4>, share: f64) -> Tensor<4> {
    let std = |x: Tensor<4>| {
        let [images, channels, height, width] = x.dims();
        x.reshape([images, channels * height * width]).var(1).sqrt().reshape([images, 1, 1, 1])
    };
    // The floor avoids 0 / 0 for a constant image.
    let factor = std(conditional) / std(mixed.clone()).clamp_min(1e-12);
    mixed.clone() * factor * share + mixed * (1.0 - share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    fn predictions() -> Tensor<4> {
        let values: Vec<f32> = (0..16).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_data(TensorData::new(values, [2, 2, 2, 2]), &Device::flex())
    }

    #[test]
    fn a_scale_of_one_is_the_conditional_branch() {
        let cond = predictions().slice([0..1, 0..2, 0..2, 0..2]);
        let term = Term { scale: 1.0, from: Branch::Unconditional, to: Branch::Conditional };
        let guidance = Guidance { base: Branch::Unconditional, terms: vec![term], rescale: 0.0 };
        guidance.mix(predictions()).into_data().assert_approx_eq::<f32>(&cond.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn guidance_moves_away_from_the_unconditional_branch() {
        let parts = predictions().chunk(2, 0);
        let expected = parts[1].clone() + (parts[0].clone() - parts[1].clone()) * 7.5;
        let got = Guidance::classifier_free(7.5).mix(predictions());
        got.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn three_equal_scales_are_classifier_free_guidance() {
        let values: Vec<f32> = (0..32).map(|i| (i as f32 * 0.7).sin()).collect();
        let four = Tensor::<4>::from_data(TensorData::new(values, [4, 2, 2, 2]), &Device::flex());
        let two = Tensor::cat(vec![four.clone().narrow(0, 0, 1), four.clone().narrow(0, 3, 1)], 0);
        let got = Guidance::instructed(5.0, 5.0, 5.0).mix(four);
        let expected = Guidance::classifier_free(5.0).mix(two);
        got.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn only_classifier_free_guidance_has_its_scale() {
        for scale in [0.0, 1.0, 7.5] {
            assert_eq!(Guidance::classifier_free(scale).with_rescale(0.7).classifier_free_scale(), Some(scale));
        }
        // A scale of 1 with both branches, as an adapter may require it.
        let term = Term { scale: 1.0, from: Branch::Unconditional, to: Branch::Conditional };
        let one = Guidance { base: Branch::Unconditional, terms: vec![term], rescale: 0.0 };
        assert_eq!(one.classifier_free_scale(), Some(1.0));
        let other_base = Guidance { base: Branch::Conditional, ..one };
        assert_eq!(other_base.classifier_free_scale(), None);
        assert_eq!(Guidance::instructed(5.0, 5.0, 5.0).classifier_free_scale(), None);
        let unconditional = Guidance { base: Branch::Unconditional, terms: Vec::new(), rescale: 0.0 };
        assert_eq!(unconditional.classifier_free_scale(), None);
    }

    #[test]
    fn full_rescale_restores_the_conditional_spread() {
        let mixed = Guidance::classifier_free(7.5).with_rescale(1.0).mix(predictions());
        let std = |x: Tensor<4>| x.reshape([1, 8]).var(1).sqrt().into_scalar::<f32>();
        let expected = std(predictions().slice([0..1, 0..2, 0..2, 0..2]));
        assert!((std(mixed) - expected).abs() < 1e-5);
    }
}
