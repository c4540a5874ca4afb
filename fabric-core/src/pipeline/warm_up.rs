//! Warm-up: discarded runs that compile and tune the device's kernels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::run::Part;
use super::{Cads, Pipeline, Request, Window};
use crate::Error;

impl Pipeline {
    /// Prepares the device for requests of this kind and returns the time taken.
    ///
    /// Runs the request with as few steps as its sampler allows, with references, adapters and ControlNets
    /// active from the first step, and discards the result. A GPU compiles each kernel at first use and
    /// benchmarks several variants, which takes far longer than the computation itself, so interactive tools
    /// should do this before the first request. On a CPU there is little to gain. The pipeline's caches are
    /// neither used nor changed.
    ///
    /// The batches are those of the request. With a [guidance window](super::Settings::guidance_window) there are two
    /// runs if some evaluations run other branches than others: one with guidance, and one without it. References act
    /// in both, whatever their scopes, so a warm-up may need more memory than a request in which they never act together, or
    /// not together with guidance.
    ///
    /// ```
    /// use fabric_core::{Error, pipeline::{Pipeline, Request}};
    /// fn ready(pipeline: &Pipeline) -> Result<(), Error> {
    ///     let seconds = pipeline.warm_up(&Request::new("anything"))?.as_secs_f64();
    ///     println!("ready after {seconds:.1} s");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::generate`].
    pub fn warm_up(&self, request: &Request) -> Result<Duration, Error> {
        let clock = Instant::now();
        let plan = self.plan(request, None)?;
        let mut windows = Vec::new();
        if !plan.guidance.is_never_inside() {
            windows.push(Window::default());
        }
        if plan.guidance.differs_outside() {
            // Outside of the window the batch has fewer rows, which need kernels of their own.
            windows.push(Window::new(0.0, 0.0)?);
        }
        let mut request = request.clone();
        request.settings.batch = Some(plan.batch);
        // Some samplers need more than one step, and with an init image only a share of the steps is made.
        let enough = |steps: &usize| self.schedule(&request, *steps).is_ok_and(|schedule| schedule.calls() > 0);
        request.settings.steps = (1..request.settings.steps).find(enough).unwrap_or(request.settings.steps);
        let fabric = &mut request.settings.fabric;
        (fabric.start, fabric.end, fabric.min_weight) = (0.0, 1.0, fabric.max_weight);
        request.feedback.iter_mut().for_each(|image| image.scope.window = Window::default());
        let mut own = self.clone();
        (own.tokens, own.latents) = (Arc::default(), Arc::default());
        if let Some(cads) = &mut request.settings.cads {
            *cads = Cads { prompt_only_below: 0.0, noise_only_above: 0.0, ..*cads };
        }
        for window in windows {
            request.settings.guidance_window = window;
            let part = Part { is_warm_up: true, ..Part::whole(&request) };
            own.generate_part(part, &mut ())?;
        }
        Ok(clock.elapsed())
    }
}
