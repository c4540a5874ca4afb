//! The U-Net as the sampler calls it: with text, guidance, references, image prompts and ControlNets.

use std::cell::RefCell;
use std::ops::Range;

use burn::tensor::Tensor;

use super::cads::Annealing;
use super::callback::contained;
use super::finite::{NetworkOutputs, Output};
use super::image_prompt_effect::EffectCollector;
use super::inpaint::MaskChannels;
use super::plan::ActiveConditioning;
use super::reference_attention::Collector;
use super::run_guidance::RunGuidance;
use super::text::{Conditions, TextRows};
use super::{Observer, Report};
use crate::Error;
use crate::attention::{AttnProcessor, MeasuredAttention, MeasuredContributions, NoProcessor};
use crate::denoise::{Denoiser, ModelCall, NoiseSource};
use crate::fabric::{Contribution, ReferencePasses, References, indices};
use crate::guidance::{Branch, ProjectedGuidance};
use crate::layout::BatchLayout;
use crate::models::{Record, RecordedTokens, Residuals, UNetInput, UNetModel, UNetOutput};
use crate::noise::{self, Draw, ReferenceId, RunNoise};
use crate::spans;

/// The U-Net with everything that steers it in one run.
///
/// Each evaluation asks the references for their contribution, runs one forward pass over the rows of a
/// [`BatchLayout`], and mixes the branches. References that are recorded beforehand go through the same forward pass.
pub(super) struct GuidedModel<'a, 'n> {
    pub(super) unet: &'a dyn UNetModel,
    /// Guidance scale that the U-Net reads; `None` if it reads none.
    pub(super) guidance_scale: Option<f64>,
    pub(super) guidance: &'a RunGuidance,
    /// Mixes the branches instead of `Guidance::mix`, if it is set.
    pub(super) projected: Option<ProjectedGuidance>,
    /// Adds noise to the prompts' embeddings, if it is set.
    pub(super) annealing: Option<Annealing>,
    pub(super) conditions: &'a Conditions,
    pub(super) references: &'a References<'a>,
    pub(super) conditioning: &'a [ActiveConditioning],
    /// The images of the run that are in this batch.
    pub(super) images: Range<usize>,
    /// Extra input channels for inpainting U-Nets.
    pub(super) mask: Option<&'a MaskChannels>,
    pub(super) noise: &'a RefCell<&'n mut (dyn RunNoise + 'n)>,
    pub(super) observer: &'a RefCell<&'n mut (dyn Observer + 'n)>,
    pub(super) report: &'a RefCell<Report>,
    pub(super) outputs: &'a RefCell<NetworkOutputs>,
    /// Collects each reference's share of the attention, if it is to be measured.
    pub(super) attention: Option<&'a RefCell<Collector>>,
    /// Collects what each image condition contributes to the cross-attention, if it is to be measured.
    pub(super) effects: Option<&'a RefCell<EffectCollector>>,
}

impl Denoiser for GuidedModel<'_, '_> {
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error> {
        // Contained here, because a sampler of the caller's own may call this.
        let doing = format_args!("evaluating the U-Net, {} of {}", call.index + 1, call.total);
        contained(doing, || self.guided_prediction(latents, call))
    }
}

impl GuidedModel<'_, '_> {
    fn guided_prediction(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error> {
        let guidance = self.guidance.at(call);
        let layout = BatchLayout::new(guidance.branches(), self.images.clone());
        let annealed = match &mut self.annealing {
            Some(annealing) if layout.branches().contains(&Branch::Conditional) => {
                annealing.conditions(self.conditions, call)
            }
            _ => None,
        };
        let conditions = annealed.as_ref().unwrap_or(self.conditions);
        let sample = latents.clone().repeat_dim(0, layout.branches().len());
        let active = self.references.active(call, &layout);
        self.report.borrow_mut().calls += 1;
        let predictions = if active.is_empty() {
            self.predict_rows(conditions, sample, call, &layout, &NoProcessor)?
        } else {
            self.report.borrow_mut().calls_with_references += 1;
            let indices = indices(&active);
            match self.references.contribute(active, call, &layout, self)? {
                Contribution::InBatch { latents, processor } => {
                    self.report.borrow_mut().reference_passes += indices.len();
                    let layout = layout.with_references(self.references.sides(&indices));
                    let sample = Tensor::cat(vec![sample, latents], 0);
                    self.measured(&processor, call, &indices, |processor| {
                        self.predict_rows(conditions, sample, call, &layout, processor)
                    })?
                }
                Contribution::Recorded(processor) => self.measured(&processor, call, &indices, |processor| {
                    self.predict_rows(conditions, sample, call, &layout, processor)
                })?,
            }
        };
        let output = Output::Prediction { evaluation: call.index + 1, evaluations: call.total };
        self.outputs.borrow_mut().note(output, &predictions);
        self.observer.borrow_mut().predictions(call, &predictions);
        Ok(match &mut self.projected {
            Some(projected) => projected.mix(guidance, predictions, latents, call.level),
            None => guidance.mix(predictions),
        })
    }
}

impl ReferencePasses for GuidedModel<'_, '_> {
    fn draw(&self, call: &ModelCall, ids: &[ReferenceId], shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        noise::drawn(&mut **self.noise.borrow_mut(), Draw::Reference { call, ids }, shape)
    }

    fn observe(&self, call: &ModelCall, noised: &Tensor<4>) {
        self.observer.borrow_mut().references(call, noised);
    }

    fn record(&self, call: &ModelCall, noised: Tensor<4>, layout: BatchLayout) -> Result<Vec<RecordedTokens>, Error> {
        let _pass = spans::reference_pass(layout.reference_rows());
        self.report.borrow_mut().reference_passes += layout.reference_rows();
        let record = Record::SelfAttentionOnly;
        Ok(self.forward(self.conditions, noised, call, &layout, &NoProcessor, record)?.recorded)
    }
}

impl GuidedModel<'_, '_> {
    fn predict_rows(
        &self,
        conditions: &Conditions,
        rows: Tensor<4>,
        call: &ModelCall,
        layout: &BatchLayout,
        references: &dyn AttnProcessor,
    ) -> Result<Tensor<4>, Error> {
        let output = self.forward(conditions, rows, call, layout, references, Record::Nothing)?;
        Ok(output.sample.expect("a pass that does not record predicts"))
    }

    /// Runs the U-Net on a batch with this layout and the texts of `conditions`. `references` adds the keys and values
    /// of references.
    fn forward(
        &self,
        conditions: &Conditions,
        rows: Tensor<4>,
        call: &ModelCall,
        layout: &BatchLayout,
        references: &dyn AttnProcessor,
        record: Record,
    ) -> Result<UNetOutput, Error> {
        let views: Vec<BatchLayout> = self.conditioning.iter().map(|one| one.view(layout)).collect();
        let conditioning = self.conditioning.iter().zip(&views);
        let added: Vec<_> = conditioning.clone().map(|(one, view)| one.prepared.attention(call, view)).collect();
        let processors: Vec<&dyn AttnProcessor> =
            std::iter::once(references).chain(added.iter().map(|processor| &**processor)).collect();
        // A batch of references only has no images on which image conditions act.
        let effects = self.effects.filter(|_| layout.image_rows() > 0);
        let measured = effects.map(|_| MeasuredContributions::new(&processors, layout.image_rows()));
        let processors = processors.as_slice();
        let processor: &dyn AttnProcessor = match &measured {
            Some(measured) => measured,
            None => &processors,
        };

        let timesteps = [call.level.timestep];
        let mut residuals: Option<Residuals> = None;
        // A batch of references only has no rows to predict for.
        if layout.image_rows() > 0 && !self.conditioning.is_empty() {
            let images = rows.clone().narrow(0, 0, layout.image_rows());
            let text = conditions.rows(layout.branches(), 0);
            let input = self.input(images, &timesteps, &text);
            for (one, view) in conditioning {
                residuals = match (residuals, one.prepared.residuals(call, &input, view)?) {
                    (Some(sum), Some(more)) => Some(sum.plus(more)),
                    (sum, more) => sum.or(more),
                };
            }
        }
        let rows = match self.mask {
            Some(mask) => mask.beside(rows, layout),
            None => rows,
        };
        let text = conditions.rows(layout.branches(), layout.reference_rows());
        // In a batch of references only, they are what the pass is about: it records them.
        let reference_rows = if record == Record::Nothing { layout.reference_rows() } else { 0 };
        let input = UNetInput { processor, reference_rows, record, ..self.input(rows, &timesteps, &text) };
        let output = self.unet.forward(UNetInput { residuals: residuals.as_ref(), ..input });
        if let (Some(effects), Some(measured)) = (effects, measured) {
            effects.borrow_mut().note(call.index, &measured.layers(), self.conditioning, layout);
        }
        Ok(output)
    }

    /// Creates the U-Net input for these rows.
    fn input<'a>(&self, sample: Tensor<4>, timesteps: &'a [f64], text: &'a TextRows) -> UNetInput<'a> {
        let TextRows { context, added, keys } = text;
        let input = UNetInput::new(sample, timesteps, context.clone());
        let guidance_scale = self.guidance_scale;
        UNetInput { added: added.clone(), guidance_scale, text_kv_cache: Some(keys), ..input }
    }

    /// Runs `pass` with a processor of references, whose shares of the attention are measured if asked for.
    fn measured<T>(
        &self,
        processor: &dyn AttnProcessor,
        call: &ModelCall,
        indices: &[usize],
        pass: impl FnOnce(&dyn AttnProcessor) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(attention) = self.attention else { return pass(processor) };
        let measured = MeasuredAttention::new(processor);
        let made = pass(&measured)?;
        let mut attention = attention.borrow_mut();
        measured.shares().iter().for_each(|share| attention.note(indices[share.source], call.index, share));
        Ok(made)
    }
}

/// Noise source for the sampler's steps.
pub(super) struct StepNoise<'a, 'n>(pub(super) &'a RefCell<&'n mut (dyn RunNoise + 'n)>);

impl NoiseSource for StepNoise<'_, '_> {
    fn draw(&mut self, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        self.0.borrow_mut().draw(Draw::Step, shape)
    }
}
