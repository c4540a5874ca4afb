//! The model that ships, judged by its readers.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use fabric::core::image::{Crop, Image, clip_batch};
use fabric::core::pipeline::Pipeline;
use fabric::models::clip::ClipVision;
use fabric::models::{ModelOptions, load_model};
use fabric_world::{Judge, Named, SIDE, Sample, Split, sample};

use crate::{Case, ExperimentError, Feedback, Subject};

/// A model of the small world. A prompt names only the kind of a scene's thing ("a star"); what the preference model
/// wants is the whole scene, and the target image is a drawing of it.
#[derive(Debug)]
pub struct SmallWorld {
    pipeline: Pipeline,
    judge: Judge,
    encoder: ClipVision,
    device: Device,
}

/// Seed of the scenes; training and the evaluation of networks use others.
const SEED: u64 = 990_021;

impl SmallWorld {
    /// Loads a model of the small world with its readers and its image encoder.
    ///
    /// # Errors
    ///
    /// Returns an error if a part of the model is missing or damaged.
    pub fn open(model: &Path, device: &Device) -> Result<Self, ExperimentError> {
        let (pipeline, _) = load_model(model, device, &ModelOptions::default())?;
        let judge = Judge::load(model, device)?;
        let encoder = ClipVision::open(model.join("image_encoder"), device)?;
        Ok(Self { pipeline, judge, encoder, device: device.clone() })
    }
}

/// Returns the scene of a case. Faces are left out: they have other factors than things.
fn scene(index: usize) -> Sample {
    let samples = (0..).map(|number| sample(SEED, number, Split::Train));
    samples.filter(|sample| !sample.scene.is_face()).nth(index).expect("there are endless scenes")
}

impl Subject for SmallWorld {
    fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    fn case(&self, index: usize, feedback: Feedback) -> Result<Case, ExperimentError> {
        let sample = scene(index);
        let target = match feedback {
            Feedback::Preference => None,
            Feedback::Target => {
                Some(fabric_world::measure::drawn(std::slice::from_ref(&sample)).map_err(other)?.remove(0))
            }
        };
        Ok(Case { index, prompt: format!("a {}", sample.scene.kind), target })
    }

    fn score(&self, case: &Case, images: &[Image]) -> Result<Vec<f64>, ExperimentError> {
        let wanted = Named::of(&scene(case.index).scene);
        let seen = self.judge.read(images).map_err(fabric::core::Error::from)?;
        Ok(seen.iter().map(|seen| 100.0 * wanted.agreement(seen)).collect())
    }

    fn embed(&self, images: &[Image]) -> Result<Tensor<2>, ExperimentError> {
        let pixels =
            clip_batch(images, SIDE as usize, Crop::Centre, &self.device).map_err(fabric::core::Error::from)?;
        Ok(self.encoder.forward(pixels).image_embeds)
    }
}

fn other(error: Box<dyn std::error::Error>) -> ExperimentError {
    ExperimentError::Other(error.to_string().into())
}
