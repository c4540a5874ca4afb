//! The pipelines of a model: without and with a LoRA, and with adapters.

use std::path::Path;

use burn::tensor::Device;
use fabric::core::InvalidValue;
use fabric::core::pipeline::Pipeline;
use fabric::ipadapter::IpAdapter;
use fabric::models::{LoraChoice, ModelError, ModelOptions, load_model};

use crate::{Arm, ExperimentError, ReasonAdapter};

/// A model, and the same model with a LoRA merged into its weights, which takes as much memory again, and with
/// adapters, which share its weights.
#[derive(Debug)]
pub(crate) struct Pipelines {
    plain: Pipeline,
    with_lora: Option<Pipeline>,
    /// Pipelines whose adapter realises reasons of votes.
    with_adapters: Vec<(ReasonAdapter, Pipeline)>,
}

impl Pipelines {
    /// Loads a model, once more with the LoRA if there is one.
    pub(crate) fn load(model: &Path, lora: Option<&LoraChoice>, device: &Device) -> Result<Self, ModelError> {
        let load = |loras: Vec<LoraChoice>| {
            let options = ModelOptions { loras, ..ModelOptions::default() };
            load_model(model, device, &options).map(|(pipeline, _)| pipeline)
        };
        let plain = load(Vec::new())?;
        let with_lora = lora.map(|lora| load(vec![lora.clone()])).transpose()?;
        Ok(Self { plain, with_lora, with_adapters: Vec::new() })
    }

    /// Adds a pipeline with an adapter.
    pub(crate) fn add(&mut self, adapter: &ReasonAdapter, loaded: IpAdapter) {
        self.with_adapters.push((adapter.clone(), self.plain.clone().with_adapter(loaded)));
    }

    /// Returns the pipeline with an adapter, if it was added.
    pub(crate) fn with(&self, adapter: &ReasonAdapter) -> Option<&Pipeline> {
        self.with_adapters.iter().find(|(other, _)| other == adapter).map(|(_, pipeline)| pipeline)
    }

    /// The pipeline without a LoRA.
    pub(crate) fn plain(&self) -> &Pipeline {
        &self.plain
    }

    /// Returns the pipeline of an arm.
    pub(crate) fn of(&self, arm: &Arm) -> Result<&Pipeline, ExperimentError> {
        if let Some(adapter) = arm.adapter() {
            return self.with(adapter).ok_or_else(|| {
                let got = format!("a model without {}", adapter.file());
                let help = "load the adapters of the arms with the model";
                InvalidValue::new(format!("arm {}", arm.name), got, "a model with its adapter", help).into()
            });
        }
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
