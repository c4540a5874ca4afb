//! An adapter of a model of the small world, with the networks that measure its images.

use std::path::Path;

use burn::tensor::Tensor;
use fabric::core::InvalidValue;
use fabric::core::image::Image;
use fabric::core::metrics::similarity;
use fabric::core::pipeline::Pipeline;
use fabric::ipadapter::{ImagePrompt, Instruction, IpAdapter};
use fabric_world::Named;

use super::AdapterExperiment;
use super::beyond_texts::beyond_texts;
use super::case::AdapterCase;
use crate::text_ruler::TextRuler;
use crate::{ExperimentError, SmallWorld, Subject};

/// An adapter of a model of the small world, with its image encoder and the networks that measure its images.
#[derive(Debug)]
pub struct AdapterWorld<'a> {
    world: &'a SmallWorld,
    adapter: IpAdapter,
    texts: TextRuler,
}

impl<'a> AdapterWorld<'a> {
    /// Loads the adapter of an experiment from the folder of a model, which must be that of the subject.
    ///
    /// # Errors
    ///
    /// Returns an error if the subject is not the small world, or the adapter is missing, damaged, of another kind or
    /// made for another model.
    pub fn open(
        subject: &'a dyn Subject,
        model: &Path,
        experiment: &AdapterExperiment,
    ) -> Result<Self, ExperimentError> {
        let Some(world) = subject.small_world() else {
            return Err(ExperimentError::NeedsSmallWorld { experiment: experiment.name.clone() });
        };
        let path = experiment.adapter_of(model)?;
        let adapter = world.adapter(&path, experiment.cases.has_instructions())?;
        Ok(Self { world, adapter, texts: TextRuler::open(model, world.device())? })
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        self.world.plain_pipeline()
    }

    /// Returns the image prompt of a case.
    pub(super) fn prompt(&self, case: &AdapterCase, condition: &Image, scale: f32) -> ImagePrompt {
        let prompt = self.adapter.prompt(condition).with_scale(scale);
        match &case.instruction {
            // All wordings of a task have the guidance of its usual wording, and the scale as it is: the published rules
            // go by words, and would compare two methods.
            Some(instruction) => {
                let guidance = Instruction::from(instruction.task.aspect()).guidance;
                let worded = Instruction::new(&instruction.words).with_guidance(guidance);
                prompt.without_scale_correction().with_instruction(worded)
            }
            None => prompt,
        }
    }

    /// Returns the embeddings of images, `[images, channels]`.
    pub(super) fn embed(&self, images: &[Image]) -> Result<Tensor<2>, ExperimentError> {
        self.world.embed(images)
    }

    /// Returns the similarity of embedded images to an image, in percent.
    pub(super) fn similarity_to(&self, embedded: &Tensor<2>, image: &Image) -> Result<Vec<f64>, ExperimentError> {
        finite("condition image", similarity(embedded.clone(), self.embed(std::slice::from_ref(image))?).concat())
    }

    /// Returns the similarity of embedded images to a text, in percent.
    pub(super) fn similarity_to_text(&self, embedded: &Tensor<2>, text: &str) -> Result<Vec<f64>, ExperimentError> {
        let read = self.texts.embed(text, embedded.dims()[1])?;
        finite(&format!("text {text:?}"), similarity(embedded.clone(), read).concat())
    }

    /// Returns the similarity of embedded images to a condition image beyond their texts, in percent: see
    /// [`beyond_texts`].
    pub(super) fn similarity_beyond_texts(
        &self,
        (embedded, text): (&Tensor<2>, &str),
        (condition, caption): (&Image, &str),
    ) -> Result<Vec<f64>, ExperimentError> {
        let channels = embedded.dims()[1];
        let texts = [self.texts.embed(text, channels)?, self.texts.embed(caption, channels)?];
        let condition = self.embed(std::slice::from_ref(condition))?;
        finite(&format!("condition beyond the text {text:?}"), beyond_texts([embedded.clone(), condition], texts))
    }

    /// Returns the factors that a reader sees in each image.
    pub(super) fn read(&self, images: &[Image]) -> Result<Vec<Named>, ExperimentError> {
        Ok(self.world.judge().read(images).map_err(fabric::core::Error::from)?)
    }
}

/// Returns the similarities, or an error if one is not a finite number, which no record can hold.
fn finite(other: &str, similarities: Vec<f64>) -> Result<Vec<f64>, ExperimentError> {
    let wrong = similarities.iter().copied().enumerate().find(|(_, similarity)| !similarity.is_finite());
    match wrong {
        None => Ok(similarities),
        Some((image, got)) => {
            let what = format!("similarity of image {image} to the {other}");
            let help = "the weights are damaged, or the device computes wrongly: get the model again";
            Err(InvalidValue::new(what, got, "a finite number", help).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarities_that_are_no_numbers_are_refused_with_their_image() {
        assert_eq!(finite("x", vec![1.0, -2.0]).expect("numbers"), [1.0, -2.0]);
        let error = finite("text \"a star\"", vec![1.0, f64::NAN]).expect_err("no number").to_string();
        assert!(error.contains("image 1 to the text \"a star\": expected a finite number, got NaN"), "{error}");
    }
}
