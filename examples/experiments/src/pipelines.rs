//! The pipelines of a model, without and with a LoRA.

use std::path::Path;

use burn::tensor::Device;
use fabric::core::InvalidValue;
use fabric::core::pipeline::Pipeline;
use fabric::models::{LoraChoice, ModelError, ModelOptions, load_model};

use crate::{Arm, ExperimentError};

/// A model, and the same model with a LoRA merged into its weights, which takes as much memory again.
#[derive(Debug)]
pub(crate) struct Pipelines {
    plain: Pipeline,
    with_lora: Option<Pipeline>,
}

impl Pipelines {
    /// Loads a model, once more with the LoRA if there is one.
    pub(crate) fn load(model: &Path, lora: Option<&LoraChoice>, device: &Device) -> Result<Self, ModelError> {
        let load = |loras: Vec<LoraChoice>| {
            let options = ModelOptions { loras, ..ModelOptions::default() };
            load_model(model, device, &options).map(|(pipeline, _)| pipeline)
        };
        Ok(Self { plain: load(Vec::new())?, with_lora: lora.map(|lora| load(vec![lora.clone()])).transpose()? })
    }

    /// The pipeline without a LoRA.
    pub(crate) fn plain(&self) -> &Pipeline {
        &self.plain
    }

    /// Returns the pipeline of an arm.
    pub(crate) fn of(&self, arm: &Arm) -> Result<&Pipeline, ExperimentError> {
        match (arm.lora, &self.with_lora) {
            (false, _) => Ok(&self.plain),
            (true, Some(pipeline)) => Ok(pipeline),
            (true, None) => {
                let (expected, help) = ("a model with a LoRA", "give a LoRA file, or leave the arm out");
                Err(InvalidValue::new(format!("arm {}", arm.name), "a model without one", expected, help).into())
            }
        }
    }
}
