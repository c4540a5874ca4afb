//! Checks and preparations before the first evaluation of a run.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::callback::{contained_conditioning, described};
use super::named_conditioning::NamedConditioning;
use super::references::Chosen;
use super::run_guidance::RunGuidance;
use super::{ImageAdapter, Pipeline, PreparedConditioning, Request, RequestConditioning, RunContext};
use crate::attention::AttnSite;
use crate::layout::BatchLayout;
use crate::schedule::Schedule;
use crate::{Error, ImageCondition};

/// A checked request with everything that all of its batches share.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) request: &'a Request,
    /// Width and height in pixels.
    pub(super) size: [usize; 2],
    pub(super) schedule: Schedule,
    pub(super) guidance: RunGuidance,
    pub(super) chosen: Chosen<'a>,
    /// Number of images per batch.
    pub(super) batch: usize,
    described: Described,
    /// Empty until [`Pipeline::prepare`].
    pub(super) conditioning: Vec<ActiveConditioning>,
    /// Seconds spent on preparing the conditioning.
    pub(super) seconds: f64,
}

/// Conditioning of a request, followed by that of its image conditions.
#[derive(Debug)]
struct Described {
    all: Vec<RequestConditioning>,
    /// For each of `all`, the index of the image condition that it realises.
    image_conditions: Vec<Option<usize>>,
}

/// A conditioning that was prepared for a run, and the images that it acts on.
#[derive(Debug)]
pub(super) struct ActiveConditioning {
    pub(super) prepared: Box<dyn PreparedConditioning>,
    images: Option<Range<usize>>,
    /// Index of the image condition that it realises.
    pub(super) image_condition: Option<usize>,
}

impl ActiveConditioning {
    /// Returns the rows of a batch as this conditioning sees them.
    pub(super) fn view(&self, layout: &BatchLayout) -> BatchLayout {
        layout.selecting(self.images.as_ref(), self.prepared.visible_to_references())
    }

    /// Returns the rows of images that attend to the image of this conditioning in a layer.
    pub(super) fn rows_with_image(&self, layout: &BatchLayout, site: &AttnSite) -> Vec<Range<usize>> {
        let groups = self.view(layout).groups().into_iter().filter(|(_, rows)| rows.end <= layout.image_rows());
        groups.filter(|(branch, _)| self.prepared.attends_to_image(*branch, site)).map(|(_, rows)| rows).collect()
    }
}

impl Plan<'_> {
    /// Describes the conditioning of the run.
    pub(super) fn origin(&self) -> impl Iterator<Item = String> {
        self.described.all.iter().map(|one| described(&*one.conditioning))
    }

    /// Whether keys and values of references depend on the conditioning of this run.
    pub(super) fn references_are_conditioned(&self) -> bool {
        self.conditioning.iter().any(|one| one.prepared.visible_to_references())
    }
}

impl Pipeline {
    /// Returns the context of a run of this request, to prepare a [`Conditioning`](super::Conditioning) outside of a run.
    ///
    /// # Errors
    ///
    /// Returns an error if the size of the request does not fit the model.
    pub fn run_context<'a>(&'a self, request: &'a Request) -> Result<RunContext<'a>, Error> {
        let [_, _, height, width] = self.latent_shape(1, self.size(request)?);
        Ok(RunContext::new(request, &*self.unet, self.text_encoder(), [height, width]))
    }

    /// Checks a request of which `images` are made at once (`None`: as many as the memory allows), before any long work.
    pub(super) fn plan<'a>(&self, request: &'a Request, images: Option<usize>) -> Result<Plan<'a>, Error> {
        request.validate()?;
        let size = self.size(request)?;
        let schedule = self.schedule(request, request.settings.steps)?;
        self.check_halves(request)?;
        let (settings, levels) = (&request.settings, self.unet.levels());
        settings.fabric.block_weights.check_levels("fabric.block_weights", levels)?;
        settings.reasons.check_levels(levels)?;
        for (index, image) in request.feedback.iter().enumerate() {
            image.scope.blocks.check_levels(&format!("feedback[{index}].scope.blocks"), levels)?;
        }
        self.check_mask(request, size)?;
        let described = self.described(request)?;
        let guidance = request.settings.guidance_with(&described.all, self.unet.reads_guidance_scale())?;
        let guidance = RunGuidance::new(guidance, request.settings.guidance_window, &schedule);
        let chosen = Chosen::of(request, &guidance, &schedule);
        let (conditioning, seconds) = (Vec::new(), 0.0);
        let mut plan = Plan { request, size, schedule, guidance, chosen, batch: 1, described, conditioning, seconds };
        plan.batch = images.unwrap_or_else(|| self.batch(&plan));
        self.check_memory(&plan)?;
        Ok(plan)
    }

    /// Returns the conditioning of a request, with that of its images by the pipeline's adapters.
    fn described(&self, request: &Request) -> Result<Described, Error> {
        let mut all = request.conditioning.clone();
        let mut image_conditions = vec![None; all.len()];
        let last = |instructed: bool| {
            self.adapters.iter().rev().find(move |adapter| adapter.reads_instructions() == instructed)
        };
        let (instruct, plain, layers) = (last(true), last(false), self.cross_attentions());
        // An adapter gets all of its images at once, because they must agree on the guidance.
        let (mut instructed, mut prompted) = (Vec::new(), Vec::new());
        for (index, image) in request.image_conditions.iter().enumerate() {
            let is_supported = |adapter: &Arc<dyn ImageAdapter>| {
                image.aspect.as_ref().is_none_or(|aspect| adapter.supports(aspect, &layers))
            };
            if (image.aspect.is_some() || plain.is_none()) && instruct.is_some_and(is_supported) {
                instructed.push((index, image.clone()));
            } else if plain.is_some_and(is_supported) {
                prompted.push((index, image.clone()));
            } else {
                return Err(without_adapter(image, plain.is_some()));
            }
        }
        for (images, adapter) in [(instructed, instruct), (prompted, plain)] {
            let Some(adapter) = adapter.filter(|_| !images.is_empty()) else { continue };
            let (indices, images): (Vec<usize>, Vec<ImageCondition>) = images.into_iter().unzip();
            let made = adapter.conditioning(&images, &layers);
            assert_eq!(made.len(), images.len(), "adapter: {} conditionings for {} images", made.len(), images.len());
            all.extend(made.into_iter().map(|conditioning| RequestConditioning { conditioning, images: None }));
            image_conditions.extend(indices.into_iter().map(Some));
        }
        Ok(Described { all, image_conditions })
    }

    /// Prepares the conditioning of a run, once for all of its batches.
    pub(super) fn prepare(&self, plan: &mut Plan<'_>, is_warm_up: bool) -> Result<(), Error> {
        let clock = Instant::now();
        let run = self.run_context(plan.request)?.with_branches(plan.guidance.branches());
        let run = if is_warm_up { run.warming_up() } else { run };
        let Described { all, image_conditions } = &plan.described;
        let conditioning = all.iter().zip(image_conditions).map(|(one, &image_condition)| {
            let name = described(&*one.conditioning);
            let prepared = contained_conditioning(|| name.clone(), || one.conditioning.prepare(&run))?;
            let prepared: Box<dyn PreparedConditioning> = Box::new(NamedConditioning { name, prepared });
            Ok(ActiveConditioning { prepared, images: one.images.clone(), image_condition })
        });
        plan.conditioning = conditioning.collect::<Result<_, Error>>()?;
        plan.seconds = clock.elapsed().as_secs_f64();
        Ok(())
    }
}

/// Returns the error for an image condition that no adapter of the pipeline can use.
fn without_adapter(image: &ImageCondition, has_plain_adapter: bool) -> Error {
    let (what, expected) = match &image.aspect {
        None => ("an image prompt".to_owned(), "a pipeline with an adapter"),
        Some(aspect) => (format!("`{aspect}`"), "a pipeline with an Instruct adapter"),
    };
    let got = if has_plain_adapter {
        "a pipeline whose adapter reads no instructions and has no layers for this aspect"
    } else {
        "a pipeline without one"
    };
    let next = "give the pipeline one with `Pipeline::with_adapter`";
    Error::settings(format!("image condition {what}"), got, expected, next)
}
