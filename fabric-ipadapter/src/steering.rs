//! Image prompts for a whole run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use fabric_core::Error;
use fabric_core::attention::{AttnCall, AttnExtras, AttnProcessor, AttnSite};
use fabric_core::denoise::ModelCall;
use fabric_core::guidance::{Branch, Guidance};
use fabric_core::models::{CrossAttention, TextEncoder, TextOptions, UNetModel};
use fabric_core::pipeline::{Steering, Window};

use crate::instruction::SDXL_CONTEXT;
use crate::prompt::ImagePromptRows;
use crate::{
    AdapterConfig, AdapterError, Features, ImagePromptKv, InstructGuidance, Instruction, IpAdapter, LayerPreset,
    LayerScales, Mask, PresetScales, ScaleSchedule,
};

/// Image prompt of a run: keys and values for each guidance branch, with scales, masks and a window of steps.
///
/// Pass it to a run with [`Request::with_steering`](fabric_core::pipeline::Request::with_steering).
///
/// ```no_run
/// # use fabric_core::pipeline::{Pipeline, Request};
/// # use fabric_ipadapter::{AdapterError, Features, IpAdapter, ImagePrompt};
/// # fn example(pipeline: &Pipeline, adapter: &IpAdapter, image: &Features, none: &Features) -> Result<(), Box<dyn std::error::Error>> {
/// let prompt = ImagePrompt::new(adapter, &pipeline.cross_attentions(), image, none)?.with_scale(0.6)?;
/// let made = pipeline.generate(&Request::new("best quality").with_steering(prompt))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ImagePrompt {
    seen: BTreeMap<Branch, ImagePromptKv>,
    window: Window,
    /// Factor on all scales over the run.
    schedule: ScaleSchedule,
    /// Layers in which the conditional branch does not attend to the images and all other branches do.
    inverted: BTreeSet<AttnSite>,
    /// Guidance of an Instruct adapter.
    guidance: Option<InstructedMix>,
    /// Whether FABRIC's reference rows attend to the images too.
    references: bool,
}

/// Guidance of an Instruct adapter: classifier-free guidance with two branches, or four branches.
#[derive(Debug, Clone, Copy)]
struct InstructedMix {
    /// Scales of the instruction and the image, for four branches.
    three_way: Option<[f64; 2]>,
}

impl ImagePrompt {
    /// Creates an image prompt for a U-Net with these cross-attention layers.
    ///
    /// - `images`: features for the conditional branch, usually from [`Features::of`]
    /// - `none`: features for all other branches, usually from [`Features::none_of`]; one, or one per image
    ///
    /// # Errors
    ///
    /// Returns an error if the features or the U-Net do not fit the adapter.
    pub fn new(
        adapter: &IpAdapter,
        layers: &[CrossAttention],
        images: &Features,
        none: &Features,
    ) -> Result<Self, AdapterError> {
        let with = adapter.tokens(images)?;
        let without = as_many(adapter.tokens(none)?, with.dims()[0])?;
        let prompt = |tokens| ImagePromptKv::new(adapter, tokens, layers);
        let seen = [(Branch::Conditional, prompt(with)?), (Branch::Unconditional, prompt(without)?)];
        Ok(Self::seen(seen.into(), None))
    }

    /// Creates an image prompt with an instruction, for an Instruct adapter. `guidance` selects two or four
    /// branches; [`InstructGuidance::PublishedThreeWay`] uses the scales published for the adapter's base
    /// model.
    ///
    /// # Shapes
    ///
    /// - `images`, `none`: `[images, tokens, channels]`, the image encoder's penultimate layer for the images,
    ///   and for images that are zero after normalisation
    ///
    /// # Errors
    ///
    /// Returns an error if the features, the texts or the U-Net do not fit the adapter.
    pub fn instructed(
        adapter: &IpAdapter,
        layers: &[CrossAttention],
        [images, none]: [&Tensor<3>; 2],
        texts: &InstructTexts,
        guidance: InstructGuidance,
    ) -> Result<Self, AdapterError> {
        let mix = InstructedMix { three_way: guidance.scales(adapter.config()) };
        let branches = match mix.three_way {
            None => vec![Branch::Conditional, Branch::Unconditional],
            Some(_) => vec![Branch::Conditional, Branch::ImageOnly, Branch::Everything, Branch::Unconditional],
        };
        texts.check()?;
        let none = &as_many(none.clone(), images.dims()[0])?;
        let mut seen = BTreeMap::new();
        for branch in branches {
            let tokens = if branch == Branch::Unconditional { none } else { images };
            let features = texts.features(branch, tokens.clone());
            seen.insert(branch, ImagePromptKv::new(adapter, adapter.tokens(&features)?, layers)?);
        }
        Ok(Self::seen(seen, Some(mix)))
    }

    /// Creates a prompt with scale 1 in all layers and all steps.
    fn seen(seen: BTreeMap<Branch, ImagePromptKv>, guidance: Option<InstructedMix>) -> Self {
        let (window, schedule) = (Window::default(), ScaleSchedule::default());
        Self { seen, window, schedule, inverted: BTreeSet::new(), guidance, references: false }
    }

    /// Sets one scale for all layers.
    ///
    /// # Errors
    ///
    /// Returns an error if the scale is not finite.
    pub fn with_scale(self, scale: f32) -> Result<Self, AdapterError> {
        self.with_scales(&LayerScales::same(scale))
    }

    /// Sets a scale for each layer, for all images. Replaces the scales and the inverted layers of a preset.
    ///
    /// # Errors
    ///
    /// Returns an error if a scale is not finite, or names a layer that the U-Net does not have.
    pub fn with_scales(mut self, scales: &LayerScales) -> Result<Self, AdapterError> {
        self.inverted.clear();
        self.each(|seen| seen.with_scales(scales.clone()))
    }

    /// Sets the scales of a preset; `other` is the scale of its second group of layers.
    ///
    /// # Errors
    ///
    /// Returns an error if a scale is not finite, or the preset does not support this U-Net.
    pub fn with_preset(self, preset: LayerPreset, strength: f32, other: Option<f32>) -> Result<Self, AdapterError> {
        let layers = self.seen.values().next().map(ImagePromptKv::layers).unwrap_or_default();
        let PresetScales { scales, inverted } = preset.scales_for(&layers, strength, other)?;
        Ok(Self { inverted, ..self.with_scales(&scales)? })
    }

    /// Sets a weight for each image in their common softmax: 2 counts an image twice, 0 switches it off.
    ///
    /// # Errors
    ///
    /// Returns an error if there is not one weight per image, or one is negative or not finite.
    pub fn with_weights(self, weights: &[f32]) -> Result<Self, AdapterError> {
        self.each(|seen| seen.with_weights(weights.to_vec()))
    }

    /// Sets a scale schedule: all scales are multiplied by its factor for each evaluation.
    #[must_use]
    pub fn with_scale_schedule(self, schedule: ScaleSchedule) -> Self {
        Self { schedule, ..self }
    }

    /// Sets a mask and scales for each image. Each image then has its own softmax.
    ///
    /// # Errors
    ///
    /// Returns an error if there is not one mask per image, or a scale is invalid (see [`Self::with_scales`]).
    pub fn with_masks(self, masked: &[(Mask, LayerScales)]) -> Result<Self, AdapterError> {
        self.each(|seen| seen.with_masks(masked.to_vec()))
    }

    /// Changes the keys and values of each branch.
    fn each(
        mut self,
        change: impl Fn(ImagePromptKv) -> Result<ImagePromptKv, AdapterError>,
    ) -> Result<Self, AdapterError> {
        let seen = self.seen.into_iter().map(|(branch, seen)| Ok((branch, change(seen)?)));
        self.seen = seen.collect::<Result<_, AdapterError>>()?;
        Ok(self)
    }

    /// Applies the prompt to FABRIC's reference rows as well: liked references use the images of the
    /// conditional branch, disliked ones those of the unconditional branch. Masks apply to both. By default,
    /// references use no image prompt, as they use no text.
    ///
    /// The reference keys and values then depend on these images, so
    /// [`ReferencePass::Cached`](fabric_core::fabric::ReferencePass::Cached) caches none of them.
    #[must_use]
    pub fn seen_by_references(self) -> Self {
        Self { references: true, ..self }
    }

    /// Restricts the prompt to a window of the run.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }
}

/// Repeats the tokens or features of "no image" to match the number of images.
fn as_many(none: Tensor<3>, images: usize) -> Result<Tensor<3>, AdapterError> {
    if images == 0 {
        return Err(AdapterError::Setting {
            what: "images of a prompt".to_owned(),
            got: "none".to_owned(),
            expected: "one at least".to_owned(),
            next: "leave the adapter out where there is no image".to_owned(),
        });
    }
    match none.dims()[0] {
        got if got == images => Ok(none),
        1 => Ok(none.repeat_dim(0, images)),
        got => Err(AdapterError::Setting {
            what: "features of no image".to_owned(),
            got: got.to_string(),
            expected: format!("1, or {images} as there are images"),
            next: "give one".to_owned(),
        }),
    }
}

/// Attention processor that applies each branch's image prompt to its rows.
#[derive(Debug)]
struct PromptedBranches<'a>(Vec<ImagePromptRows<'a>>);

impl AttnProcessor for PromptedBranches<'_> {
    fn extras(&self, call: &AttnCall<'_>) -> AttnExtras {
        let mut extras = AttnExtras::default();
        self.0.iter().for_each(|rows| extras.merge(rows.extras(call)));
        extras
    }
}

impl Steering for ImagePrompt {
    fn check(&self, unet: &dyn UNetModel) -> Result<(), Error> {
        let layers = unet.cross_attentions();
        self.seen.values().try_for_each(|seen| seen.check(&layers)).map_err(Error::from)
    }

    fn steers_references(&self) -> bool {
        self.references
    }

    fn at_every_evaluation(&self) -> Option<Arc<dyn Steering>> {
        Some(Arc::new(self.clone().with_window(Window::default()).with_scale_schedule(ScaleSchedule::default())))
    }

    fn processor<'a>(&'a self, call: &ModelCall, rows: &[(Branch, Range<usize>)]) -> Box<dyn AttnProcessor + 'a> {
        if !self.window.contains(call) {
            return Box::new(PromptedBranches(Vec::new()));
        }
        // In a run with an Instruct adapter, branches without an entry here use the unconditional one, without
        // this image.
        let of = |branch| self.seen.get(branch).or_else(|| self.seen.get(&Branch::Unconditional));
        let factor = self.schedule.at(call);
        let mut seen = Vec::new();
        for (branch, rows) in rows {
            let on = |prompt: &'a ImagePromptKv| prompt.on(rows.clone()).times(factor);
            seen.extend(of(branch).map(|prompt| on(prompt).all_but(&self.inverted)));
            // Inverted layers: all branches but the conditional one attend to the images, also with Instruct's
            // four branches and whatever their scales.
            if *branch != Branch::Conditional {
                seen.extend(self.seen.get(&Branch::Conditional).map(|prompt| on(prompt).only(&self.inverted)));
            }
        }
        Box::new(PromptedBranches(seen))
    }

    fn guidance(&self, scale: f64) -> Option<Guidance> {
        Some(match self.guidance?.three_way {
            None => Guidance::classifier_free(scale),
            Some([instruction, image]) => Guidance::instructed(scale, instruction, image),
        })
    }
}

/// Text features for the projection of an Instruct adapter, each `[1, text_tokens, text_channels]`: the last
/// layer of CLIP ViT-L's text encoder, after the final layer norm.
#[derive(Debug, Clone)]
pub struct InstructTexts {
    /// The prompt.
    pub prompt: Tensor<3>,
    /// The negative prompt; for SDXL, the empty text.
    pub negative: Tensor<3>,
    /// The instruction.
    pub query: Tensor<3>,
    /// The word "everything".
    pub everything: Tensor<3>,
    /// The empty text.
    pub empty: Tensor<3>,
}

impl InstructTexts {
    /// Encodes all five texts with the text encoder of a model; the projection uses CLIP ViT-L's last layer.
    /// Text beyond the tokenizer window is cut off.
    ///
    /// The SDXL adapter uses the empty text instead of the negative prompt, as published.
    ///
    /// # Errors
    ///
    /// Returns an error if a text cannot be encoded.
    pub fn encode(
        encoder: &dyn TextEncoder,
        adapter: &AdapterConfig,
        prompt: &str,
        negative: &str,
        instruction: &Instruction,
        options: &TextOptions,
    ) -> Result<Self, Error> {
        let negative = if adapter.context == SDXL_CONTEXT { "" } else { negative };
        let texts = [prompt, negative, &instruction.query, "everything", ""].map(str::to_owned);
        let context = encoder.last_hidden(&texts, options)?;
        let text = |index| context.clone().narrow(0, index, 1);
        Ok(Self { prompt: text(0), negative: text(1), query: text(2), everything: text(3), empty: text(4) })
    }

    /// Checks that each text has one row.
    fn check(&self) -> Result<(), AdapterError> {
        let texts = [&self.prompt, &self.negative, &self.query, &self.everything, &self.empty];
        let dims = texts.map(Tensor::dims);
        if dims.iter().all(|got| *got == dims[0] && got[0] == 1 && got[1] > 0) {
            return Ok(());
        }
        Err(AdapterError::Setting {
            what: "texts of an Instruct adapter".to_owned(),
            got: format!("{dims:?}"),
            expected: "one row of each, all of the same size".to_owned(),
            next: "make them with `InstructTexts::encode`".to_owned(),
        })
    }

    /// Returns the features of a branch, with image tokens `[images, tokens, channels]`.
    fn features(&self, branch: Branch, tokens: Tensor<3>) -> Features {
        // As in the published code: the projection gets the prompt with "everything", although the U-Net gets
        // the negative prompt on that branch.
        let (prompt, instruction) = match branch {
            Branch::Everything => (&self.prompt, &self.everything),
            Branch::ImageOnly => (&self.negative, &self.negative),
            Branch::Unconditional => (&self.negative, &self.empty),
            _ => (&self.prompt, &self.query),
        };
        let images = tokens.dims()[0];
        let repeated = |text: &Tensor<3>| text.clone().narrow(0, 0, 1).repeat_dim(0, images);
        Features::Instructed { tokens, prompt: repeated(prompt), instruction: repeated(instruction) }
    }
}

#[cfg(test)]
mod tests {
    use fabric_core::attention::{AttnKind, Block};
    use fabric_core::models::TextEmbedding;

    use super::*;
    use crate::projection::ResamplerConfig;

    #[test]
    fn each_branch_reads_its_own_texts() {
        let device = fabric_backends::default_device().expect("a device");
        let text = |value: f32| Tensor::<3>::ones([1, 2, 3], &device) * value;
        let texts = InstructTexts {
            prompt: text(1.0),
            negative: text(2.0),
            query: text(3.0),
            everything: text(4.0),
            empty: text(5.0),
        };
        let read = |branch| {
            let Features::Instructed { tokens, prompt, instruction } =
                texts.features(branch, text(9.0).repeat_dim(0, 2))
            else {
                panic!("not instructed")
            };
            assert_eq!([tokens.dims()[0], prompt.dims()[0], instruction.dims()[0]], [2; 3]);
            [prompt, instruction].map(|text| text.mean().into_scalar::<f32>())
        };
        assert_eq!(read(Branch::Conditional), [1.0, 3.0]);
        assert_eq!(read(Branch::Everything), [1.0, 4.0]);
        assert_eq!(read(Branch::ImageOnly), [2.0, 2.0]);
        assert_eq!(read(Branch::Unconditional), [2.0, 5.0]);
    }

    /// Text encoder whose last layer contains the length of each text; `encode` panics.
    struct Length;

    impl TextEncoder for Length {
        fn encode(&self, _prompts: &[String], _options: &TextOptions) -> Result<TextEmbedding, Error> {
            panic!("the projection reads the last layer, normed")
        }

        fn last_hidden(&self, prompts: &[String], _options: &TextOptions) -> Result<Tensor<3>, Error> {
            let device = fabric_backends::default_device().expect("a device");
            let lengths: Vec<f32> = prompts.iter().map(|prompt| prompt.len() as f32).collect();
            Ok(Tensor::<1>::from_data(lengths.as_slice(), &device).reshape([prompts.len(), 1, 1]))
        }
    }

    #[test]
    fn the_large_models_adapter_reads_an_empty_text_instead_of_the_negative_prompt() {
        let projection = crate::ProjectionConfig::Pooled { features: 4, tokens: 1 };
        let read = |context| {
            let adapter = AdapterConfig { projection, widths: vec![8], context, lora_rank: None };
            let (instruction, options) = (Instruction::new("use all of it"), TextOptions::default());
            let texts = InstructTexts::encode(&Length, &adapter, "four", "not that", &instruction, &options);
            let InstructTexts { prompt, negative, query, everything, empty } = texts.expect("texts");
            [prompt, negative, query, everything, empty].map(|text| text.into_scalar::<f32>())
        };
        assert_eq!(read(768), [4.0, 8.0, 13.0, 10.0, 0.0]);
        assert_eq!(read(SDXL_CONTEXT), [4.0, 0.0, 13.0, 10.0, 0.0]);
    }

    /// Returns a small Instruct adapter for a U-Net with one cross-attention layer and this context dimension,
    /// and that layer.
    fn instruct(context: usize) -> (IpAdapter, CrossAttention) {
        let device = fabric_backends::default_device().expect("a device");
        let resampler =
            ResamplerConfig { features: 4, channels: 64, heads: 1, depth: 1, factor: 1, tokens: 2, context };
        let projection = crate::ProjectionConfig::Instruct { resampler, text: 3 };
        let config = AdapterConfig { projection, widths: vec![8], context, lora_rank: None };
        let weights = config.init(&device);
        let site = AttnSite { block: Block::Mid, attention: 0, layer: 0, kind: AttnKind::CrossAttention };
        (IpAdapter::new(config, weights).expect("an adapter"), CrossAttention { site, channels: 8, context })
    }

    #[test]
    fn instruct_for_sdxl_mixes_with_its_own_scales() {
        let device = fabric_backends::default_device().expect("a device");
        let text = Tensor::<3>::ones([1, 2, 3], &device);
        let texts = InstructTexts {
            prompt: text.clone(),
            negative: text.clone(),
            query: text.clone(),
            everything: text.clone(),
            empty: text,
        };
        let image = Tensor::<3>::ones([1, 5, 4], &device);
        let mixed = |context, guidance| {
            let (adapter, layer) = instruct(context);
            let prompt = ImagePrompt::instructed(&adapter, &[layer], [&image, &image], &texts, guidance);
            prompt.expect("a prompt").guidance(7.0)
        };
        let pose = Instruction::new("use the pose").guidance;
        assert_eq!(mixed(768, pose), Some(Guidance::instructed(7.0, 6.0, 1.0)));
        assert_eq!(mixed(SDXL_CONTEXT, pose), Some(Guidance::instructed(7.0, 5.0, 1.0)));
        let asked = InstructGuidance::ThreeWay { instruction: 6.0, image: 0.5 };
        assert_eq!(mixed(SDXL_CONTEXT, asked), Some(Guidance::instructed(7.0, 6.0, 0.5)));
        let style = Instruction::new("use the style").guidance;
        assert_eq!(mixed(SDXL_CONTEXT, style), Some(Guidance::classifier_free(7.0)));
    }
}
