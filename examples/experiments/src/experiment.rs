//! The experiments of FABRIC's paper, as data.

use std::collections::BTreeMap;

use fabric::core::InvalidValue;
use fabric::core::fabric::FabricSettings;
use fabric::core::guidance::Apg;
use fabric::core::pipeline::{Cads, Settings};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ExperimentError, PromptSet};

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
    /// Whether the LoRA is merged into the model's weights.
    pub lora: bool,
    /// FABRIC's settings.
    pub fabric: FabricSettings,
    /// Settings of generation that differ from the run's, by their names in JSON, such as `prompt_dropout`.
    pub generation: BTreeMap<String, Value>,
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
}

/// Names of the paper's experiments, in the order of `all`.
pub const NAMES: [&str; 4] = ["preference", "target", "window", "dropout"];

/// Names of experiments that are not in the paper: each side apart, a sweep over FABRIC's settings, and options against
/// the loss of diversity.
pub const OWN: [&str; 3] = ["sides", "sweep", "diversity"];

impl Experiment {
    /// Returns the experiment of this name with the paper's settings and these changes of FABRIC's settings, which
    /// apply to all arms.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such experiment, a change is not a setting of FABRIC, or the arms differ in the
    /// setting.
    pub fn named(name: &str, changes: &BTreeMap<String, Value>) -> Result<Self, InvalidValue> {
        let (strong, weak) = (FabricSettings::paper_target(), FabricSettings::paper_preference());
        let without = |fabric: &FabricSettings| Arm {
            name: "no feedback".to_owned(),
            likes: false,
            dislikes: false,
            lora: false,
            fabric: fabric.clone(),
            generation: BTreeMap::new(),
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
                    Arm { generation: words_left_out(), ..both("dropout 0.3", &strong) },
                ],
            ),
            "sides" => ("Liked and disliked images apart", Feedback::Preference, sides(&without(&strong))),
            "sweep" => ("A sweep over FABRIC's settings", Feedback::Preference, sweep(&without(&strong))),
            "diversity" => (
                "Options against the loss of diversity",
                Feedback::Preference,
                diversity(&without(&strong), &both("feedback", &strong)),
            ),
            other => {
                return Err(InvalidValue::new(
                    "experiment",
                    other,
                    format!("one of {}, {}", NAMES.join(", "), OWN.join(", ")),
                    "choose one of these",
                ));
            }
        };
        let (name, title, control) = (name.to_owned(), title.to_owned(), "no feedback".to_owned());
        let experiment = Self { name, title, feedback, control, arms, changes: changes.clone() };
        experiment.check_changes()?;
        let with_changes = |arm: &Arm| -> Result<Arm, InvalidValue> {
            let fabric = changed(arm.fabric.clone(), changes, "setting of FABRIC", FabricSettings::validate)?;
            Ok(Arm { fabric, ..arm.clone() })
        };
        let arms = experiment.arms.iter().map(with_changes).collect::<Result<Vec<Arm>, InvalidValue>>()?;
        Ok(Self { arms, ..experiment })
    }

    /// Checks that the arms do not differ in a setting of FABRIC that is changed.
    fn check_changes(&self) -> Result<(), InvalidValue> {
        let fields = |arm: &Arm| serde_json::to_value(&arm.fabric).expect("settings are plain data");
        let all: Vec<Value> = self.arms.iter().map(fields).collect();
        let differs = |name: &str| all.iter().any(|fields| fields.get(name) != all[0].get(name));
        match self.changes.iter().find(|(name, _)| differs(name)) {
            None => Ok(()),
            Some((name, value)) => Err(InvalidValue::new(
                format!("setting of FABRIC {name} in the experiment {}", self.name),
                value,
                "no change, because the arms differ in this setting",
                "leave the change out, or run the experiments whose arms share the setting",
            )),
        }
    }

    /// Checks the settings of generation of all arms, from those of the run.
    ///
    /// # Errors
    ///
    /// Returns the error of the first arm whose settings cannot be used.
    pub fn check_settings(&self, run: &Settings) -> Result<(), InvalidValue> {
        self.arms.iter().try_for_each(|arm| arm.settings(run).map(drop))
    }

    /// Adds the arms whose model has a LoRA, without feedback and with liked and disliked images (section 5.1). The
    /// other experiments have no such arms and are returned unchanged.
    #[must_use]
    pub fn with_lora(mut self) -> Self {
        if self.name == "preference" {
            let pairs = [("no feedback", "LoRA"), ("liked and disliked", "LoRA, liked and disliked")];
            let with_lora = |(without, name): (&str, &str)| {
                let arm = self.arms.iter().find(|arm| arm.name == without)?;
                Some(Arm { name: name.to_owned(), lora: true, ..arm.clone() })
            };
            let added: Vec<Arm> = pairs.into_iter().filter_map(with_lora).collect();
            self.arms.extend(added);
        }
        self
    }

    /// Whether an arm needs a LoRA.
    pub fn uses_lora(&self) -> bool {
        self.arms.iter().any(|arm| arm.lora)
    }

    /// Checks that the prompts have target images if the feedback needs them.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first prompt without a target image, and the experiments that need none.
    pub fn check_prompts(&self, prompts: &PromptSet) -> Result<(), ExperimentError> {
        let without = prompts.prompts.iter().find(|case| case.target.is_none());
        match (self.feedback, without) {
            (Feedback::Target, Some(case)) => Err(ExperimentError::no_target(&case.prompt)),
            _ => Ok(()),
        }
    }
}

/// Returns arms with one side or both, and with disliked images of more and less weight.
fn sides(control: &Arm) -> Vec<Arm> {
    let arm = |name: &str, likes: bool, dislikes: bool, negative_scale: f64| Arm {
        name: name.to_owned(),
        likes,
        dislikes,
        fabric: FabricSettings { negative_scale, ..control.fabric.clone() },
        ..control.clone()
    };
    vec![
        control.clone(),
        arm("liked", true, false, 0.5),
        arm("disliked, 0.5", false, true, 0.5),
        arm("disliked, 1", false, true, 1.0),
        arm("disliked, 2", false, true, 2.0),
        arm("both, 0.5", true, true, 0.5),
        arm("both, 1", true, true, 1.0),
        arm("both, 2", true, true, 2.0),
    ]
}

/// Returns arms that differ from the paper's settings in one or two ways each.
fn sweep(control: &Arm) -> Vec<Arm> {
    let base = &control.fabric;
    let weighted = |max_weight: f64| FabricSettings { max_weight, ..base.clone() };
    let first_half = |max_weight: f64| FabricSettings { end: 0.5, ..weighted(max_weight) };
    let bottleneck =
        |scale: f64| FabricSettings { liked_bottleneck_scale: scale, disliked_bottleneck_scale: scale, ..base.clone() };
    let settings = [
        ("weight 0.1", weighted(0.1)),
        ("weight 0.3", weighted(0.3)),
        ("weight 0.8", weighted(0.8)),
        ("weight 1.5", weighted(1.5)),
        ("weight 3", weighted(3.0)),
        ("weight 0.8, first half", first_half(0.8)),
        ("weight 1.5, first half", first_half(1.5)),
        ("weight 1.5, divided by the votes", FabricSettings { normalise: true, ..weighted(1.5) }),
        ("bottleneck 0.3", bottleneck(0.3)),
        ("bottleneck 3", bottleneck(3.0)),
        ("official interface", FabricSettings::official_api()),
        ("official configurations", FabricSettings::official_configs()),
    ];
    let arm = |(name, fabric): (&str, FabricSettings)| Arm {
        name: name.to_owned(),
        likes: true,
        dislikes: true,
        fabric,
        ..control.clone()
    };
    std::iter::once(control.clone()).chain(settings.into_iter().map(arm)).collect()
}

/// Leaves out 30 % of the words of the prompt, as in the paper's section 5.4.
fn words_left_out() -> BTreeMap<String, Value> {
    [("prompt_dropout".to_owned(), 0.3.into())].into()
}

/// Returns arms with feedback, and with one option each against the loss of diversity.
fn diversity(control: &Arm, feedback: &Arm) -> Vec<Arm> {
    let option = |name: &str, generation: Value| {
        let generation = generation.as_object().into_iter().flatten();
        let generation = generation.map(|(name, value)| (name.clone(), value.clone())).collect();
        Arm { name: name.to_owned(), generation, ..feedback.clone() }
    };
    let normalised = FabricSettings { normalise: true, ..feedback.fabric.clone() };
    let first_half = FabricSettings { end: 0.5, ..feedback.fabric.clone() };
    vec![
        control.clone(),
        feedback.clone(),
        Arm { generation: words_left_out(), name: "dropout 0.3".to_owned(), ..feedback.clone() },
        Arm { fabric: normalised, name: "divided by the votes".to_owned(), ..feedback.clone() },
        Arm { fabric: first_half, name: "first half".to_owned(), ..feedback.clone() },
        option("guidance from 0.2 to 0.8", json!({ "guidance_window": [0.2, 0.8] })),
        option("CADS", json!({ "cads": Cads::default() })),
        option("APG", json!({ "apg": Apg::default() })),
    ]
}

/// Returns settings with changed fields, given by their names in JSON.
fn changed<T: Serialize + DeserializeOwned>(
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
    use fabric::core::fabric::ReferencePosterior;

    use super::*;

    #[test]
    fn every_experiment_has_its_control_and_arms_of_their_own_names() {
        for name in NAMES.into_iter().chain(OWN) {
            let experiment = Experiment::named(name, &BTreeMap::new()).expect("an experiment");
            let names: Vec<&str> = experiment.arms.iter().map(|arm| arm.name.as_str()).collect();
            assert!(names.contains(&experiment.control.as_str()), "{names:?}");
            experiment.check_settings(&Settings::default()).expect(name);
            assert!(names.iter().all(|one| names.iter().filter(|other| *other == one).count() == 1), "{names:?}");
        }
        assert!(Experiment::named("nothing", &BTreeMap::new()).is_err());
    }

    #[test]
    fn only_the_preference_experiment_has_arms_with_a_lora() {
        for name in NAMES.into_iter().chain(OWN) {
            let plain = Experiment::named(name, &BTreeMap::new()).expect("an experiment");
            assert!(!plain.uses_lora());
            let with_lora = plain.clone().with_lora();
            let added: Vec<&str> = with_lora.arms[plain.arms.len()..].iter().map(|arm| arm.name.as_str()).collect();
            if name == "preference" {
                assert_eq!(added, ["LoRA", "LoRA, liked and disliked"]);
            } else {
                assert_eq!(with_lora, plain);
            }
        }
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

    #[test]
    fn changes_reach_all_arms_and_settings_in_which_arms_differ_are_refused() {
        for name in NAMES.into_iter().chain(OWN) {
            let changes: BTreeMap<String, Value> = [("posterior".to_owned(), Value::from("mean"))].into();
            let experiment = Experiment::named(name, &changes).expect(name);
            let is_changed = |arm: &Arm| arm.fabric.posterior == ReferencePosterior::Mean;
            assert!(experiment.arms.iter().all(is_changed), "{name}");
        }
        for (name, setting) in [
            ("window", "start"),
            ("window", "end"),
            ("sides", "negative_scale"),
            ("sweep", "max_weight"),
            ("sweep", "min_weight"),
            ("diversity", "end"),
        ] {
            let changes: BTreeMap<String, Value> = [(setting.to_owned(), Value::from(0.5))].into();
            let error = Experiment::named(name, &changes).expect_err(name).to_string();
            let says = [setting, name, "the arms differ", "got 0.5", "leave the change out"];
            assert!(says.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
