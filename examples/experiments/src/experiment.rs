//! The experiments of FABRIC's paper, as data.

use std::collections::BTreeMap;

use fabric::core::InvalidValue;
use fabric::core::fabric::FabricSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An experiment: arms that are compared on the same prompts and seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Name on the command line.
    pub name: String,
    /// Title of the report.
    pub title: String,
    /// Score that the automatic feedback follows.
    pub feedback: Feedback,
    /// Name of the arm that the others are compared with.
    pub control: String,
    /// The arms.
    pub arms: Vec<Arm>,
    /// Settings of FABRIC that differ from the paper's, by their names in JSON.
    pub changes: BTreeMap<String, Value>,
}

/// Score that automatic feedback follows: it likes the best image of a round and dislikes the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feedback {
    /// A preference model (FABRIC, section 5.1). In the small world: the share of a wanted scene's factors that the
    /// readers see.
    Preference,
    /// The similarity to a target image (section 5.2), which itself is never a reference.
    Target,
}

/// One of the settings that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Name in records and tables.
    pub name: String,
    /// Whether liked images become references.
    pub likes: bool,
    /// Whether disliked images become references.
    pub dislikes: bool,
    /// FABRIC's settings.
    pub fabric: FabricSettings,
    /// Share of the words of the prompt that are left out at random (section 5.4).
    pub prompt_dropout: f64,
}

/// Names of all experiments, in the order of `all`.
pub const NAMES: [&str; 4] = ["preference", "target", "window", "dropout"];

impl Experiment {
    /// Returns the experiment of this name with the paper's settings and these changes of FABRIC's settings.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such experiment, or a change is not a setting of FABRIC.
    pub fn named(name: &str, changes: &BTreeMap<String, Value>) -> Result<Self, InvalidValue> {
        let strong = changed(FabricSettings::paper_target(), changes)?;
        let weak = changed(FabricSettings::paper_preference(), changes)?;
        let without = |fabric: &FabricSettings| Arm {
            name: "no feedback".to_owned(),
            likes: false,
            dislikes: false,
            fabric: fabric.clone(),
            prompt_dropout: 0.0,
        };
        let both = |name: &str, fabric: &FabricSettings| Arm {
            name: name.to_owned(),
            likes: true,
            dislikes: true,
            ..without(fabric)
        };
        let liked_only = |fabric: &FabricSettings| Arm { dislikes: false, ..both("liked", fabric) };
        let window = |name: &str, start: f64, end: f64| both(name, &FabricSettings { start, end, ..strong.clone() });
        let (title, feedback, arms) = match name {
            "preference" => (
                "FABRIC 5.1: feedback from a preference model",
                Feedback::Preference,
                vec![without(&weak), liked_only(&weak), both("liked and disliked", &weak)],
            ),
            "target" => (
                "FABRIC 5.2: feedback from similarity to a target image",
                Feedback::Target,
                vec![without(&strong), liked_only(&strong), both("liked and disliked", &strong)],
            ),
            "window" => (
                "FABRIC 5.3: feedback in the first half of the steps, the second, or all",
                Feedback::Target,
                vec![
                    without(&strong),
                    window("first half", 0.0, 0.5),
                    window("second half", 0.5, 1.0),
                    window("all steps", 0.0, 1.0),
                ],
            ),
            "dropout" => (
                "FABRIC 5.4: words of the prompt left out at random",
                Feedback::Target,
                vec![
                    without(&strong),
                    both("dropout 0", &strong),
                    Arm { prompt_dropout: 0.3, ..both("dropout 0.3", &strong) },
                ],
            ),
            other => {
                return Err(InvalidValue::new(
                    "experiment",
                    other,
                    format!("one of {}", NAMES.join(", ")),
                    "choose one of these",
                ));
            }
        };
        let (name, title, control) = (name.to_owned(), title.to_owned(), "no feedback".to_owned());
        Ok(Self { name, title, feedback, control, arms, changes: changes.clone() })
    }
}

/// Returns settings with changed fields, given by their names in JSON.
fn changed(settings: FabricSettings, changes: &BTreeMap<String, Value>) -> Result<FabricSettings, InvalidValue> {
    let mut fields = serde_json::to_value(settings).expect("settings are plain data");
    for (name, value) in changes {
        let known: Vec<String> = fields.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        match fields.get_mut(name) {
            Some(field) => *field = value.clone(),
            None => {
                let expected = format!("one of {}", known.join(", "));
                return Err(InvalidValue::new("setting of FABRIC", name, expected, "see `FabricSettings`"));
            }
        }
    }
    let wrong = |error: serde_json::Error| {
        let got = serde_json::to_string(changes).unwrap_or_default();
        InvalidValue::new("settings of FABRIC", got, error.to_string(), "see `FabricSettings` for their types")
    };
    let settings: FabricSettings = serde_json::from_value(fields).map_err(wrong)?;
    let validated = settings.validate();
    let wrong = |error: fabric::core::Error| {
        InvalidValue::new("settings of FABRIC", error, "values that FABRIC accepts", "correct the value")
    };
    validated.map_err(wrong)?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_experiment_has_its_control_and_arms_of_their_own_names() {
        for name in NAMES {
            let experiment = Experiment::named(name, &BTreeMap::new()).expect("an experiment");
            let names: Vec<&str> = experiment.arms.iter().map(|arm| arm.name.as_str()).collect();
            assert!(names.contains(&experiment.control.as_str()), "{names:?}");
            assert!(names.iter().all(|one| names.iter().filter(|other| *other == one).count() == 1), "{names:?}");
        }
        assert!(Experiment::named("nothing", &BTreeMap::new()).is_err());
    }

    #[test]
    fn settings_change_by_name_and_unknown_ones_are_refused() {
        let change = |name: &str, value: Value| Experiment::named("target", &[(name.to_owned(), value)].into());
        let changed = change("max_weight", 0.3.into()).expect("a setting");
        assert!(changed.arms.iter().all(|arm| arm.fabric.max_weight == 0.3));
        for (name, value) in [("weight", 0.3.into()), ("max_weight", "much".into()), ("end", 2.0.into())] {
            let error = change(name, value).expect_err(name).to_string();
            assert!(error.contains("expected") && error.contains("settings") | error.contains("setting"), "{error}");
        }
    }
}
