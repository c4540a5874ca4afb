//! The model that ships, judged by its readers.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use fabric::core::InvalidValue;
use fabric::core::image::{Crop, Image, clip_batch};
use fabric::core::pipeline::Pipeline;
use fabric::ipadapter::IpAdapter;
use fabric::models::LoraChoice;
use fabric::models::clip::ClipVision;
use fabric_world::{Judge, Named, SIDE, Sample, Split, sample};

use crate::corpus::Drawings;
use crate::pipelines::Pipelines;
use crate::{Arm, Case, ExperimentError, FactorShares, Feedback, Subject};

/// A model of the small world. A prompt names only the kind of a scene's thing ("a star"); what the preference model
/// wants is the whole scene, and the target image is a drawing of it.
#[derive(Debug)]
pub struct SmallWorld {
    pipelines: Pipelines,
    judge: Judge,
    encoder: ClipVision,
    device: Device,
    /// Corpora that first rounds are from.
    drawings: Vec<Drawings>,
}

/// Seed of the scenes; training and the evaluation of networks use others.
const SEED: u64 = 990_021;

impl SmallWorld {
    /// Loads a model of the small world with its readers and its image encoder. With a LoRA, the model is loaded twice.
    ///
    /// # Errors
    ///
    /// Returns an error if a part of the model is missing or damaged.
    pub fn open(model: &Path, lora: Option<&LoraChoice>, device: &Device) -> Result<Self, ExperimentError> {
        let pipelines = Pipelines::load(model, lora, device)?;
        let judge = Judge::load(model, device)?;
        let encoder = ClipVision::open(model.join("image_encoder"), device)?;
        Ok(Self { pipelines, judge, encoder, device: device.clone(), drawings: Vec::new() })
    }

    /// Loads the adapters that realise the reasons of arms. `model` is the folder that the world was opened from.
    ///
    /// # Errors
    ///
    /// Returns an error if an adapter is missing, damaged, of another kind or made for another model.
    pub fn with_adapters(mut self, model: &Path, arms: &[Arm]) -> Result<Self, ExperimentError> {
        for adapter in arms.iter().filter_map(Arm::adapter) {
            if self.pipelines.with(adapter).is_none() {
                let loaded = adapter.open(model, &self)?;
                self.pipelines.add(adapter, loaded);
            }
        }
        Ok(self)
    }

    /// Draws and embeds the corpora that first rounds of arms are from. `model` is the folder that the world was opened
    /// from.
    ///
    /// # Errors
    ///
    /// Returns an error if drawings cannot be written or embedded, or the text encoder cannot be loaded.
    pub fn with_drawings(mut self, model: &Path, arms: &[Arm]) -> Result<Self, ExperimentError> {
        for count in arms.iter().filter_map(Arm::drawings) {
            if self.drawings(count).is_none() {
                self.drawings.push(Drawings::new(count, model, &self.encoder, &self.device)?);
            }
        }
        Ok(self)
    }

    /// Returns the corpus with this number of drawings, if it was drawn.
    pub(crate) fn drawings(&self, count: usize) -> Option<&Drawings> {
        self.drawings.iter().find(|drawings| drawings.count() == count)
    }

    /// Loads an adapter of the model, which reads images through the model's image encoder.
    pub(crate) fn adapter(&self, path: &Path, has_instructions: bool) -> Result<IpAdapter, ExperimentError> {
        let adapter = IpAdapter::open(path, &self.device)?;
        if adapter.config().is_instruct() != has_instructions {
            let expected =
                if has_instructions { "an Instruct adapter" } else { "an adapter that reads no instructions" };
            let what = format!("adapter {}", path.display());
            let help = "put the adapter of this experiment there";
            return Err(InvalidValue::new(what, adapter.config(), expected, help).into());
        }
        adapter.config().check_layers(&self.plain_pipeline().cross_attentions())?;
        Ok(adapter.with_encoder(self.encoder.clone()))
    }

    /// The pipeline without a LoRA.
    pub(crate) fn plain_pipeline(&self) -> &Pipeline {
        self.pipelines.plain()
    }

    /// The readers, which tell what an image shows.
    pub(crate) fn judge(&self) -> &Judge {
        &self.judge
    }

    /// The device of all networks.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }
}

/// Returns the scene of a case. Faces are left out: they have other factors than things.
pub(crate) fn scene(index: usize) -> Sample {
    let samples = (0..).map(|number| sample(SEED, number, Split::Train));
    samples.filter(|sample| !sample.scene.is_face()).nth(index).expect("there are endless scenes")
}

/// Draws the image of a sample.
pub(crate) fn drawn(sample: &Sample) -> Result<Image, ExperimentError> {
    let images = fabric_world::measure::drawn(std::slice::from_ref(sample));
    Ok(images.map_err(|error| ExperimentError::Other(error.to_string().into()))?.remove(0))
}

impl Subject for SmallWorld {
    fn pipeline(&self, arm: &Arm) -> Result<&Pipeline, ExperimentError> {
        self.pipelines.of(arm)
    }

    fn cases(&self) -> Option<usize> {
        None
    }

    fn is_small(&self) -> bool {
        true
    }

    fn case(&self, index: usize, feedback: Feedback) -> Result<Case, ExperimentError> {
        let sample = scene(index);
        let target = match feedback {
            Feedback::Preference => None,
            Feedback::Target => Some(drawn(&sample)?),
        };
        Ok(Case { index, prompt: format!("a {}", sample.scene.kind), negative: None, target })
    }

    fn score(&self, case: &Case, images: &[Image]) -> Result<Vec<f64>, ExperimentError> {
        let wanted = Named::of(&scene(case.index).scene);
        let seen = self.judge.read(images).map_err(fabric::core::Error::from)?;
        Ok(seen.iter().map(|seen| 100.0 * wanted.agreement(seen)).collect())
    }

    fn factor_shares(
        &self,
        case: &Case,
        images: &[Image],
        liked: &[Image],
        disliked: &[Image],
    ) -> Result<Option<Vec<FactorShares>>, ExperimentError> {
        let wanted = Named::of(&scene(case.index).scene);
        let read = |images: &[Image]| self.judge.read(images).map_err(fabric::core::Error::from);
        let (seen, liked, disliked) = (read(images)?, read(liked)?, read(disliked)?);
        Ok(Some(seen.iter().map(|seen| FactorShares::of(&wanted, seen, &liked, &disliked)).collect()))
    }

    fn small_world(&self) -> Option<&Self> {
        Some(self)
    }

    fn embed(&self, images: &[Image]) -> Result<Tensor<2>, ExperimentError> {
        let pixels =
            clip_batch(images, SIDE as usize, Crop::Centre, &self.device).map_err(fabric::core::Error::from)?;
        Ok(self.encoder.forward(pixels).image_embeds)
    }
}
