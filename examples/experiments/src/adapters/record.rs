//! Comparison of one image with its condition image and its text.

use std::collections::BTreeMap;

use fabric_world::{Attribute, InstructTask, Split};
use serde::{Deserialize, Serialize};

/// Comparison of one image with its condition image and its text. Similarities are cosines of CLIP embeddings, without
/// the factor of 2.5 that `CLIPScore` has; they and the shares are in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterRecord {
    /// Task of the instruction; `None` in the experiment without instructions.
    pub task: Option<InstructTask>,
    /// Whether training had instructions of this wording.
    pub wordings: Option<Split>,
    /// The instruction. Arms without an adapter have it in their records too, but do not use it.
    pub instruction: Option<String>,
    /// Similarity to the condition image (CLIP-I).
    pub condition_similarity: f64,
    /// Similarity to the caption of the condition image (CLIP-T of the papers).
    pub caption_similarity: f64,
    /// Similarity to the text that the image was made with (CLIP-P of Instruct's paper); `None` without a text.
    pub text_similarity: Option<f64>,
    /// Similarity to the condition image beyond the texts of both (CLIP-S of Instruct's paper, also without a factor);
    /// `None` without a text or an instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond_text_similarity: Option<f64>,
    /// Share of the asked factors that the image has from the condition: those that the task shares, or without an
    /// instruction all, but for those that the text of the case names. They are the same for all arms. `None` if there
    /// is no such factor.
    pub asked_shown: Option<f64>,
    /// Share of the factors that the text names that the image shows; `None` if it names none.
    pub text_shown: Option<f64>,
    /// Whether each factor is as in the condition. Factors that the text determines are left out: those that it names,
    /// and those that cannot be as in the condition beside them.
    pub as_condition: BTreeMap<Attribute, bool>,
    /// File of the condition image, relative to the run's folder, if images are kept.
    pub condition: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_json_with_the_names_of_their_factors() {
        let record = AdapterRecord {
            task: Some(InstructTask::Background),
            wordings: Some(Split::HeldOut),
            instruction: Some("keep only the backdrop".to_owned()),
            condition_similarity: 81.5,
            caption_similarity: 20.25,
            text_similarity: None,
            beyond_text_similarity: Some(12.5),
            asked_shown: Some(50.0),
            text_shown: None,
            as_condition: [(Attribute::BackgroundColour, true), (Attribute::BackgroundPattern, false)].into(),
            condition: None,
        };
        let text = serde_json::to_string(&record).expect("plain data");
        assert!(text.contains(r#""as_condition":{"background_colour":true,"background_pattern":false}"#), "{text}");
        assert!(text.contains(r#""task":"background","wordings":"held_out""#), "{text}");
        assert_eq!(serde_json::from_str::<AdapterRecord>(&text).expect("a record"), record);
        // Records from before there was CLIP-S are read and written as they were.
        let old = text.replace(r#""beyond_text_similarity":12.5,"#, "");
        let record = serde_json::from_str::<AdapterRecord>(&old).expect("an old record");
        assert_eq!(record.beyond_text_similarity, None);
        assert_eq!(serde_json::to_string(&record).expect("plain data"), old);
    }
}
