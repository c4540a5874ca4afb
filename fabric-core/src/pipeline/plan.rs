//! Checks and preparations before the first evaluation of a run.

use std::ops::Range;
use std::time::Instant;

use super::references::Chosen;
use super::run_guidance::RunGuidance;
use super::{Pipeline, PreparedConditioning, Request, RequestConditioning, RunContext};
use crate::Error;
use crate::layout::BatchLayout;
use crate::schedule::Schedule;

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
    /// The request's conditioning and that of its images.
    described: Vec<RequestConditioning>,
    /// Empty until [`Pipeline::prepare`].
    pub(super) conditioning: Vec<ActiveConditioning>,
    /// Seconds spent on preparing the conditioning.
    pub(super) seconds: f64,
}

/// A conditioning that was prepared for a run, and the images that it acts on.
#[derive(Debug)]
pub(super) struct ActiveConditioning {
    pub(super) prepared: Box<dyn PreparedConditioning>,
    images: Option<Range<usize>>,
}

impl ActiveConditioning {
    /// Returns the rows of a batch as this conditioning sees them.
    pub(super) fn view(&self, layout: &BatchLayout) -> BatchLayout {
        layout.selecting(self.images.as_ref(), self.prepared.visible_to_references())
    }
}

impl Plan<'_> {
    /// Describes the conditioning of the run.
    pub(super) fn origin(&self) -> impl Iterator<Item = String> {
        self.described.iter().map(|one| one.conditioning.describe())
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
        request.settings.fabric.block_weights.check_levels(self.unet.levels())?;
        self.check_mask(request, size)?;
        let described = self.described(request)?;
        let guidance = request.settings.guidance_with(&described)?;
        let guidance = RunGuidance::new(guidance, request.settings.guidance_window, &schedule);
        let chosen = Chosen::of(request, &guidance, &schedule);
        let (conditioning, seconds) = (Vec::new(), 0.0);
        let mut plan = Plan { request, size, schedule, guidance, chosen, batch: 1, described, conditioning, seconds };
        plan.batch = images.unwrap_or_else(|| self.batch(&plan));
        self.check_memory(&plan)?;
        Ok(plan)
    }

    /// Returns the conditioning of a request, with that of its images by the pipeline's adapters.
    fn described(&self, request: &Request) -> Result<Vec<RequestConditioning>, Error> {
        let mut all = request.conditioning.clone();
        let (with_aspect, plain): (Vec<_>, Vec<_>) =
            request.image_conditions.iter().cloned().partition(|one| one.aspect.is_some());
        let instruct = self.adapters.iter().rev().find(|adapter| adapter.reads_instructions());
        let image_prompt = self.adapters.iter().rev().find(|adapter| !adapter.reads_instructions()).or(instruct);
        // An adapter gets all of its images at once, because they must agree on the guidance.
        let is_only_instruct = image_prompt.is_some_and(|adapter| adapter.reads_instructions());
        let (with_aspect, plain) =
            if is_only_instruct { ([with_aspect, plain].concat(), Vec::new()) } else { (with_aspect, plain) };
        for (images, adapter, kind) in
            [(with_aspect, instruct, "an Instruct adapter"), (plain, image_prompt, "an adapter")]
        {
            let Some(first) = images.first() else { continue };
            let Some(adapter) = adapter else {
                let what = first.aspect.as_ref().map_or("an image prompt".to_owned(), |aspect| format!("`{aspect}`"));
                return Err(Error::settings(
                    format!("image condition {what}"),
                    "a pipeline without one",
                    format!("a pipeline with {kind}"),
                    "give the pipeline one with `Pipeline::with_adapter`",
                ));
            };
            let made = adapter.conditioning(&images).into_iter();
            all.extend(made.map(|conditioning| RequestConditioning { conditioning, images: None }));
        }
        Ok(all)
    }

    /// Prepares the conditioning of a run, once for all of its batches.
    pub(super) fn prepare(&self, plan: &mut Plan<'_>, is_warm_up: bool) -> Result<(), Error> {
        let clock = Instant::now();
        let run = self.run_context(plan.request)?.with_branches(plan.guidance.branches());
        let run = if is_warm_up { run.warming_up() } else { run };
        let conditioning = plan.described.iter().map(|one| {
            Ok(ActiveConditioning { prepared: one.conditioning.prepare(&run)?, images: one.images.clone() })
        });
        plan.conditioning = conditioning.collect::<Result<_, Error>>()?;
        plan.seconds = clock.elapsed().as_secs_f64();
        Ok(())
    }
}
