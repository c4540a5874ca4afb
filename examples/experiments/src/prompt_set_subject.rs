//! A Stable Diffusion model on the prompts of a file, judged by a preference model.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use fabric::core::InvalidValue;
use fabric::core::image::Image;
use fabric::core::pipeline::Pipeline;
use fabric::models::LoraChoice;
use fabric::models::clip::{PreferenceKind, PreferenceModel};

use crate::pipelines::Pipelines;
use crate::{Arm, Case, ExperimentError, Feedback, PromptInputs, PromptSet, Subject};

/// A Stable Diffusion model on the prompts of a file. A preference model (PickScore, HPS or CLIP) scores the images,
/// and its image encoder makes the embeddings for similarities and diversity.
///
/// FABRIC's published evaluation takes the similarities from OpenAI's ViT-L/14 at 336 pixels, whichever model scores.
/// Experiments with target images use the preference model for similarities only, so that model can be given for them.
#[derive(Debug)]
pub struct PromptSetSubject {
    pipelines: Pipelines,
    prompts: PromptSet,
    preference: PreferenceModel,
}

impl PromptSetSubject {
    /// Loads a model (a folder in the diffusers layout, or a single checkpoint file) and a preference model. With a
    /// LoRA, the model is loaded twice.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing, damaged or of the wrong kind.
    pub fn open(
        model: &Path,
        inputs: PromptInputs<'_>,
        lora: Option<&LoraChoice>,
        device: &Device,
    ) -> Result<Self, ExperimentError> {
        let pipelines = Pipelines::load(model, lora, device)?;
        let preference = PreferenceModel::open(inputs.preference, device)?;
        Ok(Self { pipelines, prompts: inputs.prompts.clone(), preference })
    }

    /// Returns the kind of the preference model.
    pub fn preference_kind(&self) -> PreferenceKind {
        self.preference.kind()
    }
}

impl Subject for PromptSetSubject {
    fn pipeline(&self, arm: &Arm) -> Result<&Pipeline, ExperimentError> {
        self.pipelines.of(arm)
    }

    fn cases(&self) -> Option<usize> {
        Some(self.prompts.prompts.len())
    }

    fn is_small(&self) -> bool {
        false
    }

    fn case(&self, index: usize, feedback: Feedback) -> Result<Case, ExperimentError> {
        let prompts = &self.prompts.prompts;
        let Some(case) = prompts.get(index) else {
            let expected = format!("less than {}, the number of prompts", prompts.len());
            return Err(InvalidValue::new("index of a prompt", index, expected, "run fewer prompts").into());
        };
        let target = match (feedback, &case.target) {
            (Feedback::Preference, _) => None,
            (Feedback::Target, Some(path)) => Some(Image::open(path).map_err(fabric::core::Error::from)?),
            (Feedback::Target, None) => return Err(ExperimentError::no_target(&case.prompt)),
        };
        Ok(Case { index, prompt: case.prompt.clone(), negative: case.negative.clone(), target })
    }

    fn score(&self, case: &Case, images: &[Image]) -> Result<Vec<f64>, ExperimentError> {
        Ok(self.preference.score(&case.prompt, images)?)
    }

    fn embed(&self, images: &[Image]) -> Result<Tensor<2>, ExperimentError> {
        Ok(self.preference.embed_images(images)?)
    }
}
