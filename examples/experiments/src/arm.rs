//! One of the settings that an experiment of FABRIC compares.

use std::collections::BTreeMap;

use fabric::core::InvalidValue;
use fabric::core::fabric::FabricSettings;
use fabric::core::pipeline::Settings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ArmReasons, ArmSearch, FirstRound, ReasonAdapter};

/// One of the settings that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Name in records and tables.
    pub name: String,
    /// Whether the best images are liked.
    pub likes: bool,
    /// Whether the worst images are disliked.
    pub dislikes: bool,
    /// Whether the LoRA is merged into the model's weights.
    pub lora: bool,
    /// FABRIC's settings.
    pub fabric: FabricSettings,
    /// Settings of generation that differ from the run's, by their names in JSON, such as `prompt_dropout`.
    pub generation: BTreeMap<String, Value>,
    /// Reasons of the votes; `None` for plain votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<ArmReasons>,
    /// Search for FABRIC's settings during the session; `None` for fixed settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<ArmSearch>,
    /// First round of an arm that runs as a session of the library
    /// ([`FeedbackSession`](fabric::core::session::FeedbackSession)); `None` for other arms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_round: Option<FirstRound>,
}

impl Arm {
    /// Returns the settings of generation of this arm, from those of the run.
    ///
    /// # Errors
    ///
    /// Returns an error if a change is not a setting of generation.
    pub fn settings(&self, run: &Settings) -> Result<Settings, InvalidValue> {
        let settings = Settings { fabric: self.fabric.clone(), ..run.clone() };
        changed(settings, &self.generation, "setting of generation", Settings::validate)
    }

    /// The adapter that realises the reasons of the votes, if there is one.
    pub fn adapter(&self) -> Option<&ReasonAdapter> {
        self.reasons.as_ref()?.adapter.as_ref()
    }

    /// Number of drawings of the corpus that the first round is from, if it is from one.
    pub fn drawings(&self) -> Option<usize> {
        match self.first_round {
            Some(FirstRound::Corpus { drawings }) => Some(drawings),
            Some(FirstRound::Generated) | None => None,
        }
    }

    /// Whether liked and disliked images are references of FABRIC as a whole.
    pub fn has_plain_votes(&self) -> bool {
        self.reasons.as_ref().is_none_or(|reasons| reasons.plain_votes)
    }
}

/// Returns settings with changed fields, given by their names in JSON.
pub(crate) fn changed<T: Serialize + DeserializeOwned>(
    settings: T,
    changes: &BTreeMap<String, Value>,
    what: &str,
    validate: impl Fn(&T) -> Result<(), fabric::core::Error>,
) -> Result<T, InvalidValue> {
    let mut fields = serde_json::to_value(settings).expect("settings are plain data");
    for (name, value) in changes {
        let known: Vec<String> = fields.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        match fields.get_mut(name) {
            Some(field) => *field = value.clone(),
            None => {
                let expected = format!("one of {}", known.join(", "));
                return Err(InvalidValue::new(what, name, expected, "correct the name"));
            }
        }
    }
    let wrong = |error: serde_json::Error| {
        let got = serde_json::to_string(changes).unwrap_or_default();
        InvalidValue::new(what, got, error.to_string(), "see the documentation for its type")
    };
    let settings: T = serde_json::from_value(fields).map_err(wrong)?;
    let wrong =
        |error: fabric::core::Error| InvalidValue::new(what, error, "a value in its range", "correct the value");
    validate(&settings).map_err(wrong)?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use fabric::core::AspectKind;
    use fabric::core::pipeline::ReasonSettings;
    use serde_json::json;

    use super::*;

    fn arm(generation: Value) -> Arm {
        let generation = generation.as_object().expect("an object").clone().into_iter().collect();
        let (name, fabric) = ("an arm".to_owned(), FabricSettings::paper_target());
        let (likes, dislikes, lora) = (true, true, false);
        Arm { name, likes, dislikes, lora, fabric, generation, reasons: None, search: None, first_round: None }
    }

    #[test]
    fn settings_of_reasons_change_by_name_and_those_left_out_have_their_defaults() {
        let composition = json!({ "window": [0.0, 0.25], "blocks": { "mid": 0.5 } });
        let reasons = json!({ "most_per_aspect": 1.5, "references": { "composition": composition } });
        let settings = arm(json!({ "reasons": reasons })).settings(&Settings::default()).expect("settings");
        let ReasonSettings { most_per_aspect, references, .. } = &settings.reasons;
        assert_eq!((*most_per_aspect, references[&AspectKind::Composition].blocks.mid), (1.5, 0.5));
        let default = ReasonSettings::default();
        assert_eq!([settings.reasons.scale, settings.reasons.away_scale], [default.scale, default.away_scale]);
        assert_eq!(settings.fabric, FabricSettings::paper_target());
        let refused = [
            (json!({ "most_per_aspect": -1.0 }), "reasons.most_per_aspect"),
            (json!({ "most_per_aspect": "few" }), "invalid type"),
            (json!({ "least": 1.0 }), "unknown field `least`"),
            (json!({ "references": { "taste": {} } }), "unknown variant `taste`"),
        ];
        for (reasons, says) in refused {
            let error = arm(json!({ "reasons": reasons })).settings(&Settings::default()).expect_err(says).to_string();
            assert!(error.starts_with("setting of generation: expected") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn arms_with_plain_votes_are_written_as_before_there_were_reasons_searches_and_corpora() {
        let plain = arm(json!({}));
        let written = serde_json::to_value(&plain).expect("plain data");
        let names: Vec<&str> = written.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(names, ["dislikes", "fabric", "generation", "likes", "lora", "name"]);
        assert_eq!(serde_json::from_value::<Arm>(written).expect("an arm"), plain);
        assert!(plain.has_plain_votes() && plain.adapter().is_none() && plain.drawings().is_none());
    }
}
