//! Record of one generated image.

use std::collections::BTreeMap;

use fabric::core::Aspect;
use fabric::core::session::Vote;
use fabric_world::Attribute;
use serde::{Deserialize, Serialize};

use crate::{AdapterRecord, ImageOrigin, WantedFactor};

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
    /// Seed of the image. A drawing of a corpus has none; this is then the seed that an image in its place would have.
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
    /// Origin of the image. `None` if the arm makes all images in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ImageOrigin>,
    /// Comparison with the condition image, in the experiments of adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterRecord>,
    /// Votes with a reason that were cast on the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Vote>,
    /// Wanted factors of a session, where factors can be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wanted: BTreeMap<Attribute, WantedFactor>,
}

impl ImageRecord {
    /// Returns the values by which records are ordered: arm, case, round and image.
    pub fn order(&self) -> (&str, usize, usize, usize) {
        (&self.arm, self.case, self.round, self.image)
    }

    /// Returns the reasons of the votes on the image, such as "+colour, +composition"; empty if there are none.
    pub(crate) fn reasons_text(&self) -> String {
        let text = |vote: &Vote| {
            let sign = if vote.strength() < 0.0 { '-' } else { '+' };
            let instruction = vote.reason().map(Aspect::to_string).unwrap_or_default();
            let words = instruction.strip_prefix("use ").unwrap_or(&instruction);
            format!("{sign}{}", words.strip_prefix("the ").unwrap_or(words))
        };
        self.reasons.iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record from before there were experiments of adapters, reasons, searches and corpora.
    const OLD: &str = concat!(
        r#"{"config":"0","arm":"liked","case":3,"prompt":"a star","round":1,"image":2,"seed":7,"score":41.5,"#,
        r#""liked_similarity":50.25,"disliked_similarity":null,"liked_kept":null,"liked_copied":12.5,"#,
        r#""disliked_repeated":null,"diversity":0.25,"vote":-1.0,"file":null}"#,
    );

    #[test]
    fn records_from_before_there_were_more_kinds_of_experiments_are_read_and_written_as_they_were() {
        let record: ImageRecord = serde_json::from_str(OLD).expect("an old record");
        assert_eq!((record.score, &record.adapter, record.reasons_text()), (Some(41.5), &None, String::new()));
        assert_eq!(record.origin, None);
        assert_eq!(serde_json::to_string(&record).expect("plain data"), OLD);
        let unknown = OLD.replace("\"vote\"", "\"voice\"");
        assert!(serde_json::from_str::<ImageRecord>(&unknown).is_err(), "unknown columns are refused");
    }

    #[test]
    fn reasons_survive_json_and_are_shown_with_the_sign_of_their_vote() {
        let mut record: ImageRecord = serde_json::from_str(OLD).expect("an old record");
        record.reasons = vec![
            Vote::LIKE.because(Aspect::Colour),
            Vote::DISLIKE.because(Aspect::Object("object".to_owned())),
            Vote::DISLIKE.because("its look"),
        ];
        assert_eq!(record.reasons_text(), "+colour, -object, -its look");
        let text = serde_json::to_string(&record).expect("plain data");
        assert!(text.ends_with(r#""reason":{"words":"its look"}}]}"#), "{text}");
        assert_eq!(serde_json::from_str::<ImageRecord>(&text).expect("a record"), record);
        let too_strong = text.replace("\"strength\":1.0", "\"strength\":2.0");
        assert!(serde_json::from_str::<ImageRecord>(&too_strong).is_err(), "strengths are checked");
    }
}
