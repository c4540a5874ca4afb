use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::inpaint::MaskChannels;
use super::text::{Conditions, TextRows};
use super::{Observer, Report, Steering};
use crate::Error;
use crate::attention::{AttnProcessor, MeasuredMass, NoProcessor};
use crate::denoise::{Denoiser, ModelCall, NoiseSource};
use crate::fabric::{
    FabricSettings, FeedbackSchedule, InBatchReferences, RecordedReferences, Reference, ReferenceKvCache,
    ReferenceKvKey, ReferencePass, ReferenceWeight, Side, TokensBySite, acted_on,
};
use crate::guidance::{Branch, Guidance};
use crate::models::{Record, Residuals, UNetInput, UNetModel};
use crate::noise::{self, Draw, ReferenceId, RunNoise};
use crate::schedule::noised;

/// U-Net with text, guidance, references, adapters and ControlNets, as the sampler calls it.
pub(super) struct GuidedModel<'a, 'n> {
    pub(super) unet: &'a dyn UNetModel,
    pub(super) guidance: &'a Guidance,
    pub(super) conditions: &'a Conditions,
    pub(super) settings: &'a FabricSettings,
    pub(super) schedule: FeedbackSchedule,
    /// Liked before disliked.
    pub(super) references: &'a [Reference],
    pub(super) steering: &'a [Arc<dyn Steering>],
    /// Extra input channels for inpainting U-Nets.
    pub(super) mask: Option<&'a MaskChannels>,
    pub(super) cache: &'a ReferenceKvCache,
    /// Digest of settings that affect recordings: clip skip, number of text tokens and image size.
    pub(super) cache_conditions: u64,
    pub(super) noise: &'a RefCell<&'n mut (dyn RunNoise + 'n)>,
    pub(super) observer: &'a RefCell<&'n mut (dyn Observer + 'n)>,
    pub(super) report: &'a RefCell<Report>,
    /// Collects each reference's share of the attention, if it is to be measured.
    pub(super) masses: Option<&'a RefCell<Masses>>,
}

/// Per reference, the sum of its shares of the attention and the number of evaluations in which it was used.
#[derive(Debug, Default)]
pub(super) struct Masses(BTreeMap<usize, (f64, usize)>);

impl Masses {
    fn note(&mut self, reference: usize, share: f64) {
        let (sum, calls) = self.0.entry(reference).or_default();
        *sum += share;
        *calls += 1;
    }

    /// Mean share per reference; 0 for references that were never used.
    pub(super) fn means(&self, references: usize) -> Vec<f64> {
        let mean = |index| self.0.get(&index).map_or(0.0, |(sum, calls)| sum / *calls as f64);
        (0..references).map(mean).collect()
    }
}

/// References used in one evaluation, as (index, rows and weights).
struct Active {
    lenders: Vec<(usize, ReferenceWeight)>,
}

impl Denoiser for GuidedModel<'_, '_> {
    fn predict(&mut self, latents: Tensor<4>, call: &ModelCall) -> Result<Tensor<4>, Error> {
        let branches = self.guidance.branches();
        let images = latents.dims()[0];
        let active = self.active(call, &branches, images);
        self.report.borrow_mut().calls += 1;
        let sample = latents.repeat_dim(0, branches.len());
        let predictions = if active.lenders.is_empty() {
            self.pass(sample, None, &branches, call, &NoProcessor)?
        } else {
            self.report.borrow_mut().calls_with_references += 1;
            match self.settings.pass {
                ReferencePass::Interleaved => self.interleaved(sample, active, &branches, call)?,
                ReferencePass::TwoPasses { .. } | ReferencePass::Cached { .. } => {
                    self.two_passes(sample, active, &branches, call)?
                }
            }
        };
        self.observer.borrow_mut().predictions(call, &predictions);
        Ok(self.guidance.mix(predictions))
    }
}

impl GuidedModel<'_, '_> {
    /// Returns the references that have a nonzero weight in this evaluation, on a branch that is computed.
    fn active(&self, call: &ModelCall, branches: &[Branch], images: usize) -> Active {
        let count = |side| self.references.iter().filter(|reference| reference.side == side).count();
        let counts = [count(Side::Liked), count(Side::Disliked)];
        let lenders = self.references.iter().enumerate().filter_map(|(index, reference)| {
            let of = counts[usize::from(reference.side == Side::Disliked)];
            let to = acted_on(reference.side, branches);
            let to = to.start * images..to.end * images;
            let weights = self.schedule.weights(call, reference.side, reference.strength, of);
            (!to.is_empty() && !weights.is_zero()).then_some((index, ReferenceWeight { to, weights }))
        });
        Active { lenders: lenders.collect() }
    }

    /// Adds noise to all references at once, so that the draws do not depend on which of them are active.
    fn noised_references(&self, call: &ModelCall) -> Result<Tensor<4>, Error> {
        let clean = Tensor::cat(self.references.iter().map(|reference| reference.latents.clone()).collect(), 0);
        let ids: Vec<ReferenceId> = self.references.iter().map(|reference| reference.id).collect();
        let noise = noise::drawn(&mut **self.noise.borrow_mut(), Draw::Reference { call, ids: &ids }, clean.dims())?;
        let noise = noise.cast(clean.dtype());
        let noised = noised(clean, noise, &call.level);
        self.observer.borrow_mut().references(call, &noised);
        Ok(noised)
    }

    fn interleaved(
        &self,
        sample: Tensor<4>,
        active: Active,
        branches: &[Branch],
        call: &ModelCall,
    ) -> Result<Tensor<4>, Error> {
        let noised = self.noised_references(call)?;
        let rows = active.lenders.iter().map(|(index, _)| noised.clone().slice_dim(0, *index..index + 1)).collect();
        let riders = Some(Tensor::cat(rows, 0));
        let indices: Vec<usize> = active.lenders.iter().map(|(index, _)| *index).collect();
        let processor = InBatchReferences {
            first: sample.dims()[0],
            lenders: active.lenders.into_iter().map(|(_, lender)| lender).collect(),
            token_merge_ratio: self.settings.token_merge_ratio,
            levels: self.unet.levels(),
        };
        self.report.borrow_mut().reference_passes += processor.lenders.len();
        self.steered(sample, riders, branches, call, (&processor, &indices))
    }

    fn two_passes(
        &self,
        sample: Tensor<4>,
        active: Active,
        branches: &[Branch],
        call: &ModelCall,
    ) -> Result<Tensor<4>, Error> {
        let (chunk, kept) = match self.settings.pass {
            ReferencePass::TwoPasses { chunk } => (chunk, None),
            ReferencePass::Cached { chunk, .. } if !self.may_keep() => (chunk, None),
            ReferencePass::Cached { chunk, budget, half } => (chunk, Some((budget, half))),
            ReferencePass::Interleaved => unreachable!("two_passes: asked for in interleaved mode"),
        };
        let mut tokens: Vec<Option<Arc<TokensBySite>>> =
            active.lenders.iter().map(|(index, _)| kept.and_then(|kept| self.cached(*index, call, kept))).collect();
        let missing: Vec<usize> = (0..tokens.len()).filter(|&at| tokens[at].is_none()).collect();
        if !missing.is_empty() {
            let noised = self.noised_references(call)?;
            for group in missing.chunks(chunk) {
                let indices: Vec<usize> = group.iter().map(|&at| active.lenders[at].0).collect();
                let rows = indices.iter().map(|&index| noised.clone().slice_dim(0, index..index + 1)).collect();
                for (&at, recorded) in group.iter().zip(self.record(Tensor::cat(rows, 0), &indices, call)) {
                    let Some((budget, half)) = kept else {
                        tokens[at] = Some(Arc::new(recorded));
                        continue;
                    };
                    let recorded = Arc::new(if half { RecordedReferences::in_half(recorded) } else { recorded });
                    let key = self.cache_key(active.lenders[at].0, call, half);
                    self.cache.insert(key, recorded.clone(), budget);
                    tokens[at] = Some(recorded);
                }
            }
        }
        let indices: Vec<usize> = active.lenders.iter().map(|(index, _)| *index).collect();
        let lenders =
            active.lenders.into_iter().zip(tokens).filter_map(|((_, lender), tokens)| Some((lender, tokens?)));
        let processor = RecordedReferences { lenders: lenders.collect(), levels: self.unet.levels() };
        self.steered(sample, None, branches, call, (&processor, &indices))
    }

    /// Whether reference keys and values may be cached: they must depend only on the [`ReferenceKvKey`].
    fn may_keep(&self) -> bool {
        let noise = self.noise.borrow();
        // If adapters act on references, their keys and values are specific to this run.
        let steered = self.steering.iter().any(|one| one.steers_references());
        noise.is_seeded() && noise.has_fixed_references() && !steered
    }

    fn cache_key(&self, index: usize, call: &ModelCall, half: bool) -> ReferenceKvKey {
        let id = self.references[index].id;
        let level = [call.level.timestep, call.level.alpha, call.level.sigma].map(f64::to_bits);
        ReferenceKvKey {
            id,
            level,
            conditions: self.cache_conditions,
            half,
            token_merge_ratio: self.settings.token_merge_ratio.to_bits(),
        }
    }

    fn cached(&self, index: usize, call: &ModelCall, (budget, half): (u64, bool)) -> Option<Arc<TokensBySite>> {
        self.cache.get(&self.cache_key(index, call, half), budget)
    }

    /// Passes references through the U-Net with the empty prompt and returns their keys and values.
    fn record(&self, references: Tensor<4>, indices: &[usize], call: &ModelCall) -> Vec<TokensBySite> {
        let count = references.dims()[0];
        self.report.borrow_mut().reference_passes += count;
        let text = self.conditions.rows(&[], count);
        let timesteps = [call.level.timestep];
        let references = match self.mask {
            Some(mask) => mask.beside_references(references),
            None => references,
        };
        let steering = self.processors(call, &[], &self.lent_to(0, indices));
        let processors: Vec<&dyn AttnProcessor> = steering.iter().map(|steering| &**steering).collect();
        let processor = processors.as_slice();
        let input = UNetInput { processor: &processor, ..read(references, &timesteps, &text) };
        let input = UNetInput { record: Record::SelfAttentionOnly, ..input };
        RecordedReferences::split(self.unet.forward(input).recorded, self.settings.token_merge_ratio)
    }

    /// Returns the rows of references, starting at `first`, by the branch that attends to them.
    fn lent_to(&self, first: usize, indices: &[usize]) -> Vec<(Branch, Range<usize>)> {
        let liked = indices.iter().filter(|&&index| self.references[index].side == Side::Liked).count();
        let rows = [first, first + liked, first + indices.len()];
        let sides = [(Branch::Conditional, rows[0]..rows[1]), (Branch::Unconditional, rows[1]..rows[2])];
        sides.into_iter().filter(|(_, rows)| !rows.is_empty()).collect()
    }

    /// Returns the attention processors of adapters for these rows of images and references.
    fn processors(
        &self,
        call: &ModelCall,
        rows: &[(Branch, Range<usize>)],
        references: &[(Branch, Range<usize>)],
    ) -> Vec<Box<dyn AttnProcessor + '_>> {
        let all = [rows, references].concat();
        let seen = |steers_references| if steers_references { all.as_slice() } else { rows };
        self.steering.iter().map(|one| one.processor(call, seen(one.steers_references()))).collect()
    }

    /// Runs one pass with an attention processor whose sources are these references, and measures attention if
    /// requested.
    fn steered(
        &self,
        sample: Tensor<4>,
        riders: Option<Tensor<4>>,
        branches: &[Branch],
        call: &ModelCall,
        (processor, indices): (&dyn AttnProcessor, &[usize]),
    ) -> Result<Tensor<4>, Error> {
        let riders = riders.map(|rows| (rows, indices));
        let Some(masses) = self.masses else { return self.pass(sample, riders, branches, call, processor) };
        let measured = MeasuredMass::new(processor);
        let prediction = self.pass(sample, riders, branches, call, &measured)?;
        for (source, share) in measured.shares() {
            masses.borrow_mut().note(indices[source], share);
        }
        Ok(prediction)
    }

    /// Runs one pass of the images, optionally with reference rows at the end of the batch.
    fn pass(
        &self,
        sample: Tensor<4>,
        riders: Option<(Tensor<4>, &[usize])>,
        branches: &[Branch],
        call: &ModelCall,
        processor: &dyn AttnProcessor,
    ) -> Result<Tensor<4>, Error> {
        let references = riders.as_ref().map_or(Vec::new(), |(_, indices)| self.lent_to(sample.dims()[0], indices));
        let reference_rows = riders.as_ref().map_or(0, |(_, indices)| indices.len());
        let images = sample.dims()[0] / branches.len();
        let rows: Vec<_> =
            branches.iter().enumerate().map(|(at, &branch)| (branch, at * images..(at + 1) * images)).collect();
        let steering = self.processors(call, &rows, &references);
        let processors: Vec<&dyn AttnProcessor> =
            std::iter::once(processor).chain(steering.iter().map(|steering| &**steering)).collect();
        let processor = processors.as_slice();
        let residuals = self.residuals(&sample, branches, call, &rows)?;
        let sample = match riders {
            Some((rows, _)) => Tensor::cat(vec![sample, rows], 0),
            None => sample,
        };
        let sample = match self.mask {
            Some(mask) => mask.beside(sample, reference_rows),
            None => sample,
        };
        let text = self.conditions.rows(branches, reference_rows);
        let timesteps = [call.level.timestep];
        let input = UNetInput { processor: &processor, reference_rows, ..read(sample, &timesteps, &text) };
        let input = UNetInput { residuals: residuals.as_ref(), ..input };
        Ok(self.unet.forward(input).sample.expect("a pass that was not asked to record only predicts"))
    }

    /// Sums the residuals that ControlNets and adapters add to the skip connections.
    fn residuals(
        &self,
        sample: &Tensor<4>,
        branches: &[Branch],
        call: &ModelCall,
        rows: &[(Branch, Range<usize>)],
    ) -> Result<Option<Residuals>, Error> {
        if self.steering.is_empty() {
            return Ok(None);
        }
        let text = self.conditions.rows(branches, 0);
        let timesteps = [call.level.timestep];
        let input = read(sample.clone(), &timesteps, &text);
        let mut sum: Option<Residuals> = None;
        for steering in self.steering {
            sum = match (sum, steering.residuals(call, &input, rows)?) {
                (Some(sum), Some(more)) => Some(sum.plus(more)),
                (sum, more) => sum.or(more),
            };
        }
        Ok(sum)
    }
}

/// Creates the U-Net input for these rows.
fn read<'a>(sample: Tensor<4>, timesteps: &'a [f64], text: &'a TextRows) -> UNetInput<'a> {
    let TextRows { context, added, keys } = text;
    let input = UNetInput::new(sample, timesteps, context.clone());
    UNetInput { added: added.clone(), text_kv_cache: Some(keys), ..input }
}

/// Noise source for the sampler's steps.
pub(super) struct StepNoise<'a, 'n>(pub(super) &'a RefCell<&'n mut (dyn RunNoise + 'n)>);

impl NoiseSource for StepNoise<'_, '_> {
    fn draw(&mut self, shape: [usize; 4]) -> Result<Tensor<4>, Error> {
        self.0.borrow_mut().draw(Draw::Step, shape)
    }
}
