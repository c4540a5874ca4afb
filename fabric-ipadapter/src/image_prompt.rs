//! Image prompts, as a user describes them.

use std::sync::Arc;

use fabric_core::guidance::Guidance;
use fabric_core::image::{Crop, Image};
use fabric_core::models::CrossAttention;
use fabric_core::pipeline::{Conditioning, ImageAdapter, PreparedConditioning, RunContext, Window};
use fabric_core::{Error, ImageCondition};

use crate::shares::Shares;
use crate::{
    Aspect, Combine, Features, InstructGuidance, InstructTexts, Instruction, IpAdapter, LayerPreset, LayerScales, Mask,
    ScaleSchedule,
};

/// One or more images as a prompt, with scales, masks and a window of steps. For an Instruct adapter also what to take
/// from the images.
///
/// Made by [`IpAdapter::prompt`] and added to a request with
/// [`Request::with`](fabric_core::pipeline::Request::with). It is a description: nothing is checked or computed before a
/// run prepares it.
///
/// ```no_run
/// # use fabric_core::{image::Image, models::ImageEncoder, pipeline::{Pipeline, Request}};
/// # use fabric_ipadapter::IpAdapter;
/// # fn example(pipeline: &Pipeline, encoder: impl ImageEncoder + Send + Sync + 'static, cat: Image) -> Result<(), Box<dyn std::error::Error>> {
/// let adapter = IpAdapter::open("ip-adapter_sd15.safetensors", &pipeline.device())?.with_encoder(encoder);
/// let request = Request::new("best quality").with(adapter.prompt(cat).with_scale(0.6));
/// let made = pipeline.generate(&request)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ImagePrompt {
    pub(crate) adapter: IpAdapter,
    pub(crate) source: Source,
    pub(crate) crop: Crop,
    pub(crate) combine: Option<Combine>,
    pub(crate) instruction: Option<Instruction>,
    pub(crate) texts: Option<InstructTexts>,
    pub(crate) scale: Scale,
    pub(crate) corrects_scale: bool,
    pub(crate) weights: Option<Vec<f32>>,
    pub(crate) masks: Option<Vec<(Mask, LayerScales)>>,
    /// Whether the scale was set after the masks and replaces theirs.
    pub(crate) masks_use_scale: bool,
    pub(crate) schedule: ScaleSchedule,
    pub(crate) window: Window,
    pub(crate) visible_to_references: bool,
    pub(crate) away: bool,
    pub(crate) shares_softmax: bool,
    /// Factor on the weight of "no image" in its softmax.
    pub(crate) none_weight: f32,
}

/// Source of an image prompt.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Images, for the adapter's encoder.
    Images(Vec<Image>),
    /// Features, and those of "no image" for the other branches; `None` uses the published ones.
    Features(Box<Features>, Option<Box<Features>>),
}

/// Scale of a prompt, by layer.
#[derive(Debug, Clone)]
pub(crate) enum Scale {
    Uniform(f32),
    Layers(LayerScales),
    Preset { preset: LayerPreset, strength: f32, other: Option<f32> },
}

/// Images of a prompt: one [`Image`], or several in an array or vector.
#[derive(Debug, Clone)]
pub struct PromptImages(Vec<Image>);

impl From<Image> for PromptImages {
    fn from(image: Image) -> Self {
        Self(vec![image])
    }
}

impl From<&Image> for PromptImages {
    fn from(image: &Image) -> Self {
        Self(vec![image.clone()])
    }
}

impl From<Vec<Image>> for PromptImages {
    fn from(images: Vec<Image>) -> Self {
        Self(images)
    }
}

impl From<&[Image]> for PromptImages {
    fn from(images: &[Image]) -> Self {
        Self(images.to_vec())
    }
}

impl<const N: usize> From<[Image; N]> for PromptImages {
    fn from(images: [Image; N]) -> Self {
        Self(images.to_vec())
    }
}

impl IpAdapter {
    /// Creates a prompt of one image or several, with scale 1 in all layers and all steps. Several images share one
    /// softmax, as published.
    ///
    /// The adapter needs an encoder ([`Self::with_encoder`]).
    pub fn prompt(&self, images: impl Into<PromptImages>) -> ImagePrompt {
        ImagePrompt::new(self, Source::Images(images.into().0))
    }

    /// Creates a prompt of features, for adapters of faces and for research.
    ///
    /// - `images`: features for the conditional branch. An Instruct adapter takes [`Features::Tokens`] and reads the
    ///   texts itself.
    /// - `none`: features of "no image" for the other branches; one, or one per image. `None` uses the published ones,
    ///   for which an adapter of encoder tokens needs an encoder.
    pub fn prompt_from_features(&self, images: Features, none: Option<Features>) -> ImagePrompt {
        ImagePrompt::new(self, Source::Features(Box::new(images), none.map(Box::new)))
    }
}

impl ImagePrompt {
    fn new(adapter: &IpAdapter, source: Source) -> Self {
        Self {
            adapter: adapter.clone(),
            source,
            crop: Crop::Centre,
            combine: None,
            instruction: None,
            texts: None,
            scale: Scale::Uniform(1.0),
            corrects_scale: true,
            weights: None,
            masks: None,
            masks_use_scale: false,
            schedule: ScaleSchedule::default(),
            window: Window::default(),
            visible_to_references: false,
            away: false,
            shares_softmax: false,
            none_weight: 1.0,
        }
    }

    /// Sets what an Instruct adapter takes from the images: an [`Aspect`], or words such as "the style". Without this,
    /// an Instruct adapter uses everything.
    ///
    /// The guidance follows the published rule ([`Instruction::new`]).
    #[must_use]
    pub fn using(self, aspect: impl Into<Aspect>) -> Self {
        self.with_instruction(aspect.into().into())
    }

    /// Sets the instruction of an Instruct adapter word for word, with its guidance.
    #[must_use]
    pub fn with_instruction(self, instruction: Instruction) -> Self {
        Self { instruction: Some(instruction), ..self }
    }

    /// Sets texts that were encoded elsewhere, instead of those of the run and the instruction.
    #[must_use]
    pub fn with_texts(self, texts: InstructTexts) -> Self {
        Self { texts: Some(texts), ..self }
    }

    pub(crate) fn scaled(self, scale: Scale) -> Self {
        Self { scale, masks_use_scale: self.masks.is_some(), ..self }
    }

    /// Sets one scale for all layers, and for all images with masks.
    ///
    /// With an Instruct adapter for Stable Diffusion 1.5 and an instruction about the composition or the pose, 0.2 less
    /// is used, as published; [`Self::without_scale_correction`] switches that off.
    #[must_use]
    pub fn with_scale(self, scale: f32) -> Self {
        self.scaled(Scale::Uniform(scale))
    }

    /// Sets a scale for each layer, which is used as it is.
    #[must_use]
    pub fn with_scales(self, scales: LayerScales) -> Self {
        self.scaled(Scale::Layers(scales))
    }

    /// Sets the scales of a preset; `other` is the scale of its second group of layers.
    #[must_use]
    pub fn with_preset(self, preset: LayerPreset, strength: f32, other: Option<f32>) -> Self {
        self.scaled(Scale::Preset { preset, strength, other })
    }

    /// Uses the scale as it is, without the published correction ([`Self::with_scale`]).
    #[must_use]
    pub fn without_scale_correction(self) -> Self {
        Self { corrects_scale: false, ..self }
    }

    /// Sets a weight for each image in their common softmax: 2 counts an image twice, 0 switches it off.
    #[must_use]
    pub fn with_weights(self, weights: impl Into<Vec<f32>>) -> Self {
        Self { weights: Some(weights.into()), ..self }
    }

    /// Sets a mask and scales for each image. Each image then has its own softmax. Scales that are set later replace
    /// these.
    #[must_use]
    pub fn with_masks(self, masks: impl Into<Vec<(Mask, LayerScales)>>) -> Self {
        Self { masks: Some(masks.into()), masks_use_scale: false, ..self }
    }

    /// Combines the features of several images into those of one.
    #[must_use]
    pub fn combined(self, combine: Combine) -> Self {
        Self { combine: Some(combine), ..self }
    }

    /// Sets which part of an image the encoder sees. The default is the centre, as published.
    #[must_use]
    pub fn with_crop(self, crop: Crop) -> Self {
        Self { crop, ..self }
    }

    /// Sets a scale schedule: all scales are multiplied by its factor for each evaluation.
    #[must_use]
    pub fn with_scale_schedule(self, schedule: ScaleSchedule) -> Self {
        Self { schedule, ..self }
    }

    /// Restricts the prompt to a window of the run.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Applies the prompt to FABRIC's reference rows as well: liked references use the images of the
    /// conditional branch, disliked ones those of the unconditional branch. Masks apply to both. References belong to all
    /// images of a run, also if the prompt is for some of them only. By default,
    /// references use no image prompt, as they use no text.
    ///
    /// The reference keys and values then depend on these images, so
    /// [`ReferencePass::Cached`](fabric_core::fabric::ReferencePass::Cached) caches none of them.
    #[must_use]
    pub fn visible_to_references(self) -> Self {
        Self { visible_to_references: true, ..self }
    }

    /// Leads away from the images: they act on the branches that guidance leads away from (the unconditional branch, and
    /// with four branches the one with the image only), and "no image" on the others. Has no effect at guidance scale 1,
    /// where the unconditional branch does not run.
    #[must_use]
    pub fn away(self) -> Self {
        Self { away: true, ..self }
    }

    /// Shares one softmax with all other image prompts of the run that do so, weighted by their scales, like several images
    /// of one prompt. Their results then do not add up to drown the text. By default, each prompt has a softmax of its own.
    /// Prompts with masks keep one.
    #[must_use]
    pub fn with_shared_softmax(self) -> Self {
        Self { shares_softmax: true, ..self }
    }

    /// Returns the instruction if the adapter takes one; everything by default.
    pub(crate) fn effective_instruction(&self) -> Option<Instruction> {
        let is_read_elsewhere = matches!(&self.source, Source::Features(features, _) if features.is_instructed());
        let takes_one = self.adapter.config().is_instruct() && !is_read_elsewhere;
        takes_one.then(|| self.instruction.clone().unwrap_or_else(|| Aspect::Everything.into()))
    }
}

impl ImageAdapter for IpAdapter {
    fn reads_instructions(&self) -> bool {
        self.config().is_instruct()
    }

    fn supports(&self, aspect: &Aspect, layers: &[CrossAttention]) -> bool {
        self.reads_instructions() || self.scale_of_aspect(aspect, 1.0, layers).is_some()
    }

    /// Several images share one softmax. Images to lead away from take the place of "no image" as far as they are as
    /// strong as those to lead towards, and the other way round.
    fn conditioning(&self, images: &[ImageCondition], layers: &[CrossAttention]) -> Vec<Arc<dyn Conditioning>> {
        let instruction = |one: &ImageCondition| Instruction::from(one.aspect.clone().unwrap_or(Aspect::Everything));
        // All branches of a run are the same. Four lead away from everything in the image but the aspect. With several
        // images, that is also what the other images are to give, so they have two; and one image to lead away from has
        // two, as it would have beside others.
        let common = match images {
            [one] if !one.away => instruction(one).guidance,
            _ => InstructGuidance::Simple,
        };
        let made = images.iter().map(|one| {
            let shares = Shares::of(one, images, self.reads_instructions());
            let strength = shares.strength as f32;
            // A scale of 1 is as trained, and a weak vote is weak, whatever the aspect.
            let mut prompt = self.prompt(&one.image).with_window(one.window).without_scale_correction();
            if self.reads_instructions() {
                prompt = prompt.with_instruction(instruction(one).with_guidance(common));
            }
            let of_aspect = one.aspect.as_ref().filter(|_| !self.reads_instructions());
            let scales = of_aspect.and_then(|aspect| self.scale_of_aspect(aspect, strength, layers));
            prompt = prompt.scaled(scales.unwrap_or(Scale::Uniform(strength)));
            prompt = prompt.with_shared_softmax().with_weights([shares.own as f32]);
            prompt.none_weight = shares.none as f32;
            Arc::new(if one.away { prompt.away() } else { prompt }) as Arc<dyn Conditioning>
        });
        made.collect()
    }
}

impl Conditioning for ImagePrompt {
    fn prepare(&self, run: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        Ok(Box::new(self.prepared(run)?))
    }

    fn describe(&self) -> String {
        let instruction = self.effective_instruction().map(|one| format!(", `{}`", one.query)).unwrap_or_default();
        format!("{}{instruction}", self.adapter.config())
    }

    fn guidance(&self, scale: f64) -> Option<Guidance> {
        let instruction = self.effective_instruction()?;
        Some(match instruction.guidance.scales(self.adapter.config()) {
            None => Guidance::classifier_free(scale),
            Some([instruction, image]) => Guidance::instructed(scale, instruction, image),
        })
    }
}
