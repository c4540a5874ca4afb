//! The model under test, and what scores and compares its images.

use burn::tensor::Tensor;
use fabric::core::image::Image;
use fabric::core::pipeline::Pipeline;

use crate::{Arm, ExperimentError, FactorShares, Feedback, SmallWorld};

/// One prompt of an experiment.
#[derive(Debug, Clone)]
pub struct Case {
    /// Index in the prompt set.
    pub index: usize,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt, if the prompt set has one; it replaces that of the run.
    pub negative: Option<String>,
    /// The target image, for [`Feedback::Target`].
    pub target: Option<Image>,
}

/// Model under test with its prompts and its ruler.
pub trait Subject: Sync {
    /// Returns the pipeline of an arm: with the LoRA, or without, or with the adapter of its reasons.
    ///
    /// # Errors
    ///
    /// Returns an error if the arm needs a LoRA or an adapter and there is none.
    fn pipeline(&self, arm: &Arm) -> Result<&Pipeline, ExperimentError>;

    /// Number of prompts; `None` if there is no end of them.
    fn cases(&self) -> Option<usize>;

    /// Whether the networks are so small that one session does not keep several cores busy. Sessions then run side by
    /// side, one on each core; otherwise they run one after the other, because each needs much memory.
    fn is_small(&self) -> bool;

    /// Returns a prompt, and its target image if the feedback needs one.
    ///
    /// # Errors
    ///
    /// Returns an error if a target image cannot be read.
    fn case(&self, index: usize, feedback: Feedback) -> Result<Case, ExperimentError>;

    /// Returns the preference model's score of each image.
    ///
    /// # Errors
    ///
    /// Returns an error if an image cannot be scored.
    fn score(&self, case: &Case, images: &[Image]) -> Result<Vec<f64>, ExperimentError>;

    /// Returns which factors of the liked and disliked images each image repeats; `None` if this subject cannot read
    /// factors off images.
    ///
    /// # Errors
    ///
    /// Returns an error if an image cannot be read.
    fn factor_shares(
        &self,
        case: &Case,
        images: &[Image],
        liked: &[Image],
        disliked: &[Image],
    ) -> Result<Option<Vec<FactorShares>>, ExperimentError> {
        let _ = (case, images, liked, disliked);
        Ok(None)
    }

    /// Returns the small world, whose drawings and readers some experiments need; `None` for other subjects.
    fn small_world(&self) -> Option<&SmallWorld> {
        None
    }

    /// Returns the embeddings by which images are compared, `[images, channels]`.
    ///
    /// # Errors
    ///
    /// Returns an error if an image cannot be encoded.
    fn embed(&self, images: &[Image]) -> Result<Tensor<2>, ExperimentError>;
}
