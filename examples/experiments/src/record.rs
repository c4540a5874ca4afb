//! Record of one generated image.

use serde::{Deserialize, Serialize};

use crate::AdapterRecord;

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
    /// Score of the image: that of the preference model, or the similarity to the target image; `None` in the
    /// experiments of adapters, which have no feedback.
    pub score: Option<f64>,
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
    /// Comparison with the condition image, in the experiments of adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterRecord>,
}

impl ImageRecord {
    /// Returns the values by which records are ordered: arm, case, round and image.
    pub fn order(&self) -> (&str, usize, usize, usize) {
        (&self.arm, self.case, self.round, self.image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_from_before_there_were_experiments_of_adapters_are_read_and_written_as_they_were() {
        let line = concat!(
            r#"{"config":"0","arm":"liked","case":3,"prompt":"a star","round":1,"image":2,"seed":7,"score":41.5,"#,
            r#""liked_similarity":50.25,"disliked_similarity":null,"liked_kept":null,"liked_copied":12.5,"#,
            r#""disliked_repeated":null,"diversity":0.25,"vote":-1.0,"file":null}"#,
        );
        let record: ImageRecord = serde_json::from_str(line).expect("an old record");
        assert_eq!((record.score, &record.adapter), (Some(41.5), &None));
        assert_eq!(serde_json::to_string(&record).expect("plain data"), line);
        let unknown = line.replace("\"vote\"", "\"voice\"");
        assert!(serde_json::from_str::<ImageRecord>(&unknown).is_err(), "unknown columns are refused");
    }
}
