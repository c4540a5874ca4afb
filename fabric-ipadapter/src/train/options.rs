//! Training options of adapters.

use std::collections::BTreeMap;

use fabric_models::train::TrainSettings;
use serde::{Deserialize, Serialize};

use super::Example;
use crate::AdapterError;
use fabric_core::InvalidValue;

/// Largest number of image prompts of an example; each multiplies the work of the image encoder.
const MAX_IMAGES: usize = 16;

/// Maximum side of the images in pixels, four times that of Stable Diffusion XL. A batch of eight then takes 1.6 GB.
const MAX_SIZE: usize = 4096;

/// Training options of adapters, in addition to the general training settings. The defaults are the published
/// recipe.
///
/// ```
/// use fabric_ipadapter::train::AdapterOptions;
/// let options = AdapterOptions { size: 256, ..AdapterOptions::default() };
/// assert_eq!(options.drop_image, 0.05);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterOptions {
    /// Side of the images, in pixels: they are scaled to cover it and cropped at the centre.
    pub size: usize,
    /// Probability of dropping only the image (for Instruct, with its instruction).
    pub drop_image: f64,
    /// Probability of dropping only the text.
    pub drop_text: f64,
    /// Probability of dropping both.
    pub drop_both: f64,
    /// Smallest scale of the image prompt: each example has a random one from here to 1. Below 1, what the adapter
    /// learns also holds at the smaller scales that people use beside text. The published recipe has 1.
    #[serde(skip_serializing_if = "is_whole")]
    pub least_scale: f64,
    /// Largest number of image prompts in one softmax. Above 1, each batch has a random number of them, and an example
    /// with fewer repeats its own, which changes nothing but their weights. What the adapter learns then also holds for
    /// several image prompts at once. Further image prompts of an example are left out. The published recipe has 1.
    #[serde(skip_serializing_if = "is_one")]
    pub most_images: usize,
    /// For Instruct: weight and instructions of each task.
    pub tasks: BTreeMap<String, TaskOptions>,
}

/// Whether a scale is that of the published recipe, which is not written: runs are identified by their options, and those
/// that began before there was this option go on.
fn is_whole(scale: &f64) -> bool {
    *scale == 1.0
}

/// As [`is_whole`], for the number of image prompts.
fn is_one(count: &usize) -> bool {
    *count == 1
}

/// Task of Instruct: an aspect to use from an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskOptions {
    /// Sampling weight of the task relative to the others, independent of its number of examples.
    pub weight: f64,
    /// Instructions, one of which is drawn for each example that has none.
    pub instructions: Vec<String>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self { weight: 1.0, instructions: Vec::new() }
    }
}

impl Default for AdapterOptions {
    fn default() -> Self {
        Self {
            size: 512,
            drop_image: 0.05,
            drop_text: 0.05,
            drop_both: 0.05,
            least_scale: 1.0,
            most_images: 1,
            tasks: BTreeMap::new(),
        }
    }
}

/// Returns the AdamW settings of the published scripts: a constant learning rate of 1e-4, without warm-up,
/// clipping or averaging.
pub fn published_settings() -> TrainSettings {
    TrainSettings {
        steps: 1_000_000,
        batch: 8,
        rate: 1e-4,
        warm_up: 0,
        final_share: 1.0,
        beta_2: 0.999,
        weight_decay: 0.01,
        clip: 1e9,
        average: 0.0,
        ..TrainSettings::default()
    }
}

impl AdapterOptions {
    /// Checks the options for these examples; for Instruct, each example needs an instruction.
    pub(super) fn check(&self, examples: &[Example], instructs: bool) -> Result<(), AdapterError> {
        let refused = |what: &str, got: String, expected: &str, next: &str| {
            AdapterError::Setting(InvalidValue {
                what: what.to_owned(),
                got,
                expected: expected.to_owned(),
                help: next.to_owned(),
            })
        };
        if !(1..=MAX_SIZE).contains(&self.size) {
            let expected = format!("1 to {MAX_SIZE} pixels");
            return Err(refused("size", self.size.to_string(), &expected, "512 is usual"));
        }
        let drops = [self.drop_image, self.drop_text, self.drop_both];
        if drops.iter().any(|share| !(0.0..=1.0).contains(share)) || drops.iter().sum::<f64>() > 1.0 {
            let next = "0.05 each is the published recipe";
            return Err(refused(
                "drop_image, drop_text, drop_both",
                format!("{drops:?}"),
                "shares of at most 1 together",
                next,
            ));
        }
        if !(self.least_scale > 0.0 && self.least_scale <= 1.0) {
            let got = self.least_scale.to_string();
            return Err(refused("least_scale", got, "a number above 0 and at most 1", "1 is the published recipe"));
        }
        if !(1..=MAX_IMAGES).contains(&self.most_images) {
            let (got, expected) = (self.most_images.to_string(), format!("1 to {MAX_IMAGES}"));
            return Err(refused("most_images", got, &expected, "1 is the published recipe"));
        }
        for (name, task) in &self.tasks {
            if !(task.weight >= 0.0 && task.weight.is_finite()) {
                let what = format!("tasks.{name}.weight");
                return Err(refused(
                    &what,
                    task.weight.to_string(),
                    "a number of 0 or more",
                    "1 is as often as others",
                ));
            }
        }
        let sum = self.weights(examples).iter().sum::<f64>();
        if !(sum > 0.0 && sum.is_finite()) {
            let got = format!("weights whose sum is {sum}");
            return Err(refused("tasks", got, "a finite sum above 0", "1 is as often as others"));
        }
        if !instructs {
            return Ok(());
        }
        for example in examples {
            let of_task = example.task.as_ref().and_then(|task| self.tasks.get(task));
            let is_first_without =
                example.instruction.is_none() && of_task.is_none_or(|task| task.instructions.is_empty());
            if let Some(at) = example.more.iter().position(|one| one.instruction.is_none()) {
                let what = format!("line {} of the data: the instruction of image prompt {}", example.line, at + 2);
                return Err(refused(&what, "none".to_owned(), "one of its own", "write it beside the `condition`"));
            }
            if is_first_without {
                let task = example.task.as_deref().unwrap_or("none");
                let what = format!("line {} of the data: its instruction", example.line);
                let expected = "one of its own, or a task with instructions in `tasks`";
                return Err(refused(&what, format!("none (task {task:?})"), expected, "write one of the two"));
            }
        }
        Ok(())
    }

    /// Returns the sampling weight of each example: the weight of its task divided by the number of the task's
    /// examples. Examples without a task form one task of weight 1.
    pub(super) fn weights(&self, examples: &[Example]) -> Vec<f64> {
        let mut counts: BTreeMap<Option<&str>, f64> = BTreeMap::new();
        for example in examples {
            *counts.entry(example.task.as_deref()).or_default() += 1.0;
        }
        let weight = |example: &Example| {
            let task = example.task.as_ref().and_then(|task| self.tasks.get(task));
            task.map_or(1.0, |task| task.weight) / counts[&example.task.as_deref()]
        };
        examples.iter().map(weight).collect()
    }
}
