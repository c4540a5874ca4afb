//! The experiments of FABRIC's paper, as data.

use std::collections::BTreeMap;
use std::path::Path;

use fabric::core::InvalidValue;
use fabric::core::fabric::FabricSettings;
use fabric::core::pipeline::Settings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arm::changed;
use crate::own_arms::{corpus, diversity, sides, sweep, without_guidance, words_left_out};
use crate::reasons::{self, UNetBlocks};
use crate::search;
use crate::{Arm, ExperimentError, PromptSet, ReasonAdapter};

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

/// Names of the paper's experiments, in the order of `all`.
pub const NAMES: [&str; 4] = ["preference", "target", "window", "dropout"];

/// Names of experiments that are not in the paper: each side apart, a sweep over FABRIC's settings, options against the
/// loss of diversity, disliked images without guidance, votes with reasons, settings that are searched, and first rounds from a corpus.
pub const OWN: [&str; 7] = ["sides", "sweep", "diversity", "without-guidance", "reasons", "search", "corpus"];

impl Experiment {
    /// Returns the experiment of this name with the paper's settings and these changes of FABRIC's settings, which
    /// apply to all arms. That with reasons is for a U-Net of two levels; [`Self::for_model`] fits it to a model.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such experiment, a change is not a setting of FABRIC, or the arms differ in the
    /// setting.
    pub fn named(name: &str, changes: &BTreeMap<String, Value>) -> Result<Self, InvalidValue> {
        Self::for_blocks(name, changes, &UNetBlocks::default())
    }

    /// Fits the experiment to a model, and returns it with the arms that are left out because the model has no adapter
    /// for them. The arms of an experiment with reasons are made anew; experiments without reasons fit every model and
    /// are returned unchanged.
    ///
    /// # Errors
    ///
    /// Returns an error if the experiment has reasons and the model has no Instruct adapter, or the configuration of
    /// its U-Net cannot be read.
    pub fn for_model(self, model: &Path) -> Result<(Self, Vec<Arm>), ExperimentError> {
        if !self.has_reasons() {
            return Ok((self, Vec::new()));
        }
        let has = |adapter: &ReasonAdapter| model.join(adapter.file()).is_file();
        if !has(&ReasonAdapter::Instruct) {
            let path = model.join(ReasonAdapter::Instruct.file());
            return Err(ExperimentError::NoAdapter { experiment: self.name, path });
        }
        let fitted = Self::for_blocks(&self.name, &self.changes, &UNetBlocks::of_model(model)?)?;
        let (arms, left_out) = fitted.arms.into_iter().partition(|arm| arm.adapter().is_none_or(has));
        Ok((Self { arms, ..self }, left_out))
    }

    /// Returns the experiment of this name for a U-Net with these blocks.
    fn for_blocks(name: &str, changes: &BTreeMap<String, Value>, blocks: &UNetBlocks) -> Result<Self, InvalidValue> {
        let (strong, weak) = (FabricSettings::paper_target(), FabricSettings::paper_preference());
        let without = |fabric: &FabricSettings| Arm {
            name: "no feedback".to_owned(),
            likes: false,
            dislikes: false,
            lora: false,
            fabric: fabric.clone(),
            generation: BTreeMap::new(),
            reasons: None,
            search: None,
            first_round: None,
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
            "without-guidance" => {
                ("Disliked images without guidance", Feedback::Preference, without_guidance(&without(&strong)))
            }
            "reasons" => ("Votes that say why", Feedback::Preference, reasons::arms(&without(&strong), blocks)),
            "search" => ("Searched settings against presets", Feedback::Preference, search::arms(&without(&strong))),
            "corpus" => ("First rounds from a corpus", Feedback::Preference, corpus(&without(&strong))),
            other => {
                return Err(InvalidValue::new(
                    "experiment",
                    other,
                    format!("one of {}, {}", NAMES.join(", "), OWN.join(", ")),
                    "choose one of these",
                ));
            }
        };
        // The first arm is the control.
        let (name, title, control) = (name.to_owned(), title.to_owned(), arms[0].name.clone());
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

    /// Keeps the control and the arms of these names; without names, all arms.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no arm of one of the names.
    pub fn with_arms(mut self, names: &[String]) -> Result<Self, InvalidValue> {
        if let Some(unknown) = names.iter().find(|name| self.arms.iter().all(|arm| arm.name != **name)) {
            let known: Vec<&str> = self.arms.iter().map(|arm| &*arm.name).collect();
            return Err(InvalidValue::new(
                format!("arm of the experiment {}", self.name),
                unknown,
                format!("one of {}", known.join("; ")),
                "leave the names out to run all arms",
            ));
        }
        let is_control = |arm: &Arm| arm.name == self.control;
        self.arms.retain(|arm| names.is_empty() || is_control(arm) || names.contains(&arm.name));
        Ok(self)
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

    /// Number of rounds if none is given: 3 as in the paper, 4 with reasons, 5 where diversity is the question, and 8 with
    /// a search.
    pub fn default_rounds(&self) -> usize {
        if self.name == "diversity" {
            return 5;
        }
        match (self.has_reasons(), self.arms.iter().any(|arm| arm.search.is_some())) {
            (true, _) => 4,
            (false, true) => 8,
            (false, false) => 3,
        }
    }

    /// Whether an arm has reasons, which only the readers of the small world tell, or a first round from drawings of
    /// the small world.
    pub fn needs_small_world(&self) -> bool {
        self.has_reasons() || self.arms.iter().any(|arm| arm.drawings().is_some())
    }

    fn has_reasons(&self) -> bool {
        self.arms.iter().any(|arm| arm.reasons.is_some())
    }

    /// Whether an arm needs a LoRA.
    pub fn uses_lora(&self) -> bool {
        self.arms.iter().any(|arm| arm.lora)
    }

    /// Checks that the experiment can run with prompts of a file, and that they have target images if the feedback
    /// needs them.
    ///
    /// # Errors
    ///
    /// Returns an error if the experiment needs the small world, or one that names the first prompt without a target
    /// image and the experiments that need none.
    pub fn check_prompts(&self, prompts: &PromptSet) -> Result<(), ExperimentError> {
        if self.needs_small_world() {
            return Err(ExperimentError::NeedsSmallWorld { experiment: self.name.clone() });
        }
        let without = prompts.prompts.iter().find(|case| case.target.is_none());
        match (self.feedback, without) {
            (Feedback::Target, Some(case)) => Err(ExperimentError::no_target(&case.prompt)),
            _ => Ok(()),
        }
    }
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
    fn reasons_need_an_instruct_adapter_and_only_reasons_and_the_corpus_need_the_small_world() {
        let place = tempfile::tempdir().expect("a folder");
        let prompts = PromptSet { prompts: Vec::new(), skipped: Vec::new() };
        for name in NAMES.into_iter().chain(OWN) {
            let experiment = Experiment::named(name, &BTreeMap::new()).expect(name);
            let fitted = experiment.clone().for_model(place.path());
            if name == "reasons" {
                let error = fitted.expect_err("an empty folder").to_string();
                let says = "experiment reasons: expected an adapter in the model's folder, got no file";
                assert!(error.starts_with(says) && error.contains("instruct.safetensors"), "{error}");
            } else {
                assert_eq!(fitted.expect(name), (experiment.clone(), Vec::new()));
            }
            if ["reasons", "corpus"].contains(&name) {
                let error = experiment.check_prompts(&prompts).expect_err("prompts of a file").to_string();
                let says = format!("experiment {name}: expected a model of the small world");
                assert!(error.starts_with(&says), "{error}");
            } else {
                experiment.check_prompts(&prompts).expect(name);
            }
            let rounds =
                [("reasons", 4), ("diversity", 5), ("search", 8)].into_iter().find(|(other, _)| *other == name);
            assert_eq!(experiment.default_rounds(), rounds.map_or(3, |(_, rounds)| rounds), "{name}");
        }
    }

    #[test]
    fn some_arms_run_beside_the_control_and_unknown_ones_are_refused() {
        let all = Experiment::named("window", &BTreeMap::new()).expect("an experiment");
        let names = |arms: &[&str]| {
            let arms: Vec<String> = arms.iter().map(ToString::to_string).collect();
            let some = all.clone().with_arms(&arms).map_err(|error| error.to_string())?;
            Ok::<_, String>(some.arms.into_iter().map(|arm| arm.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).expect("all").len(), all.arms.len());
        assert_eq!(names(&["all steps", "first half"]).expect("some"), ["no feedback", "first half", "all steps"]);
        let error = names(&["third half"]).expect_err("unknown");
        assert!(error.starts_with("arm of the experiment window: expected one of no feedback; first half"), "{error}");
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
            ("diversity", "max_weight"),
            ("search", "max_weight"),
        ] {
            let changes: BTreeMap<String, Value> = [(setting.to_owned(), Value::from(0.5))].into();
            let error = Experiment::named(name, &changes).expect_err(name).to_string();
            let says = [setting, name, "the arms differ", "got 0.5", "leave the change out"];
            assert!(says.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
