//! Record of one generated image.

use serde::{Deserialize, Serialize};

/// One generated image of a run: a line of `images.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// Hash of the run's configuration.
    pub config: String,
    /// Arm of the experiment: one of the settings that are compared, such as `fabric` or `no feedback`.
    pub arm: String,
    /// Index of the prompt in the prompt set. Records of different arms with the same case are paired.
    pub case: usize,
    /// The prompt, as generated with.
    pub prompt: String,
    /// Round, from 0.
    pub round: usize,
    /// Index of the image within its round.
    pub image: usize,
    /// Seed of the image.
    pub seed: u64,
    /// Score of the image: that of the preference model, or the similarity to the target image.
    pub score: f64,
    /// Mean similarity to the images liked in earlier rounds, in percent.
    pub liked_similarity: Option<f64>,
    /// Mean similarity to the images disliked in earlier rounds, in percent.
    pub disliked_similarity: Option<f64>,
    /// Share of the wanted factors of earlier liked images that the image shows too, in percent, where factors can be
    /// read.
    pub liked_kept: Option<f64>,
    /// Share of the unwanted factors of earlier liked images that the image shows too, in percent.
    pub liked_copied: Option<f64>,
    /// Share of the unwanted factors of earlier disliked images that the image shows too, in percent.
    pub disliked_repeated: Option<f64>,
    /// Diversity of the round (one minus the mean pairwise similarity), the same for all its images.
    pub diversity: Option<f64>,
    /// Strength of the vote cast on the image, from -1 to 1; in arms without feedback, the vote it would have got.
    pub vote: Option<f64>,
    /// File of the image, relative to the run's folder, if images are kept.
    pub file: Option<String>,
}

impl ImageRecord {
    /// Returns the values by which records are ordered: arm, case, round and image.
    pub fn order(&self) -> (&str, usize, usize, usize) {
        (&self.arm, self.case, self.round, self.image)
    }
}
