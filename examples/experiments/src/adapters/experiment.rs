//! The experiments of adapters, as data.

use std::path::{Path, PathBuf};

use fabric::core::InvalidValue;
use fabric_world::{InstructTask, Split};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ExperimentError;

/// Names of the experiments of adapters, in the order of `all`.
pub const ADAPTER_NAMES: [&str; 2] = ["image-prompt", "instruct"];

/// An experiment with an adapter: arms that are compared on the same condition images, texts and seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterExperiment {
    /// Name on the command line.
    pub name: String,
    /// Title of the report.
    pub title: String,
    /// The cases, which also determine the adapter.
    pub cases: AdapterCases,
    /// Name of the arm that the others are compared with.
    pub control: String,
    /// The arms.
    pub arms: Vec<AdapterArm>,
}

/// Cases of an experiment with an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterCases {
    /// IP-Adapter: drawn scenes as condition images, each with a text that names another kind of thing.
    Scenes,
    /// IPAdapter-Instruct: condition images with an instruction and a text, for each task, with wordings that training
    /// had and with others.
    Pairs,
}

/// One of the settings that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterArm {
    /// Name in records and tables.
    pub name: String,
    /// Scale of the adapter; `None` leaves the adapter out.
    pub scale: Option<f32>,
    /// Whether images are made with the text of their case; otherwise, with an empty text.
    pub uses_text: bool,
}

impl AdapterCases {
    /// File of the adapter, relative to the model's folder.
    pub fn adapter(self) -> &'static str {
        match self {
            Self::Scenes => "ip_adapter/plus.safetensors",
            Self::Pairs => "ip_adapter/instruct.safetensors",
        }
    }

    /// Whether the adapter reads instructions.
    pub fn has_instructions(self) -> bool {
        self == Self::Pairs
    }

    /// Number of cases for each of the numbers that [`Work`](crate::Work) counts: pairs are counted for each task and
    /// each split of the wordings.
    pub fn multiple(self) -> usize {
        match self {
            Self::Scenes => 1,
            Self::Pairs => InstructTask::ALL.len() * Split::ALL.len(),
        }
    }
}

impl AdapterExperiment {
    /// Returns the experiment of this name.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such experiment.
    pub fn named(name: &str) -> Result<Self, InvalidValue> {
        let arm =
            |name: &str, scale: Option<f32>, uses_text: bool| AdapterArm { name: name.to_owned(), scale, uses_text };
        let (title, cases, arms) = match name {
            "image-prompt" => (
                "IP-Adapter: a condition image alone, and against a text",
                AdapterCases::Scenes,
                vec![
                    arm("text only", None, true),
                    arm("scale 0.25", Some(0.25), false),
                    arm("scale 0.5", Some(0.5), false),
                    arm("scale 0.75", Some(0.75), false),
                    arm("scale 1", Some(1.0), false),
                    arm("scale 0.5 with text", Some(0.5), true),
                    arm("scale 1 with text", Some(1.0), true),
                ],
            ),
            "instruct" => (
                "IPAdapter-Instruct: what an instruction takes from a condition image",
                AdapterCases::Pairs,
                vec![arm("text only", None, true), arm("instruct", Some(1.0), true)],
            ),
            other => {
                let expected = format!("one of {}", ADAPTER_NAMES.join(", "));
                return Err(InvalidValue::new("experiment of an adapter", other, expected, "choose one of these"));
            }
        };
        let control = "text only".to_owned();
        Ok(Self { name: name.to_owned(), title: title.to_owned(), cases, control, arms })
    }

    /// Returns the experiment of a run's configuration; `None` if the run is another kind of experiment.
    pub(crate) fn in_config(config: &Value) -> Option<Self> {
        serde_json::from_value(config["experiment"].clone()).ok()
    }

    /// Returns the file of the experiment's adapter in a model's folder.
    ///
    /// # Errors
    ///
    /// Returns an error if the model has no such file.
    pub fn adapter_of(&self, model: &Path) -> Result<PathBuf, ExperimentError> {
        let path = model.join(self.cases.adapter());
        if path.is_file() { Ok(path) } else { Err(ExperimentError::NoAdapter { experiment: self.name.clone(), path }) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::{Experiment, NAMES, OWN};

    #[test]
    fn every_experiment_has_its_control_without_an_adapter_and_arms_of_their_own_names() {
        for name in ADAPTER_NAMES {
            let experiment = AdapterExperiment::named(name).expect(name);
            let names: Vec<&str> = experiment.arms.iter().map(|arm| arm.name.as_str()).collect();
            assert!(names.iter().all(|one| names.iter().filter(|other| *other == one).count() == 1), "{names:?}");
            let control = experiment.arms.iter().find(|arm| arm.name == experiment.control).expect("a control");
            assert!(control.scale.is_none() && control.uses_text);
            // The folder of the condition images lies beside those of the arms.
            assert!(!names.contains(&"condition"));
        }
        let error = AdapterExperiment::named("preference").expect_err("an experiment of FABRIC").to_string();
        assert!(error.contains("expected one of image-prompt, instruct, got preference"), "{error}");
    }

    #[test]
    fn configurations_tell_both_kinds_of_experiments_apart() {
        for name in ADAPTER_NAMES {
            let experiment = AdapterExperiment::named(name).expect(name);
            assert_eq!(AdapterExperiment::in_config(&json!({ "experiment": experiment })), Some(experiment));
        }
        for name in NAMES.into_iter().chain(OWN) {
            let experiment = Experiment::named(name, &BTreeMap::new()).expect(name);
            assert_eq!(AdapterExperiment::in_config(&json!({ "experiment": experiment })), None, "{name}");
        }
        assert_eq!(AdapterExperiment::in_config(&json!({})), None);
    }

    #[test]
    fn a_model_without_the_adapter_is_refused_with_the_file_that_it_lacks() {
        let place = tempfile::tempdir().expect("a folder");
        for (name, file) in ADAPTER_NAMES.into_iter().zip(["plus.safetensors", "instruct.safetensors"]) {
            let experiment = AdapterExperiment::named(name).expect(name);
            let error = experiment.adapter_of(place.path()).expect_err("an empty folder");
            assert!(matches!(error, ExperimentError::NoAdapter { .. }), "{error:?}");
            let message = error.to_string();
            assert!(message.contains(name) && message.contains(file), "{message}");
        }
    }
}
