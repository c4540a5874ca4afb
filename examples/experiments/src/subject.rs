//! The model under test, and what scores and compares its images.

use burn::tensor::Tensor;
use fabric::core::image::Image;
use fabric::core::pipeline::Pipeline;

use crate::{ExperimentError, Feedback};

/// One prompt of an experiment.
#[derive(Debug, Clone)]
pub struct Case {
    /// Index in the prompt set.
    pub index: usize,
    /// The prompt.
    pub prompt: String,
    /// The target image, for [`Feedback::Target`].
    pub target: Option<Image>,
}

/// Model under test with its prompts and its ruler.
pub trait Subject: Sync {
    /// The pipeline.
    fn pipeline(&self) -> &Pipeline;

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

    /// Returns the embeddings by which images are compared, `[images, channels]`.
    ///
    /// # Errors
    ///
    /// Returns an error if an image cannot be encoded.
    fn embed(&self, images: &[Image]) -> Result<Tensor<2>, ExperimentError>;
}
