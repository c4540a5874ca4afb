//! A run before the first one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Pipeline, Request};
use crate::Error;

impl Pipeline {
    /// Makes the device ready for requests of this kind, and says how long that took: as few steps of the request as its
    /// sampler can do, references and what else steers the run acting from the first, thrown away.
    ///
    /// A GPU compiles its kernels when each is first needed, and tries several to find the fastest; that takes far longer than the
    /// work itself, so a tool for people does it before the first of them waits. On a CPU there is
    /// little to gain. The caches stay as they are.
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
    /// As [`Self::generate`].
    pub fn warm_up(&self, request: &Request) -> Result<Duration, Error> {
        let clock = Instant::now();
        let mut request = request.clone();
        // Some samplers cannot do one step, and from a start image only a share of them is taken.
        let enough = |steps: &usize| self.schedule(&request, *steps).is_ok_and(|schedule| schedule.calls() > 0);
        request.settings.steps = (1..request.settings.steps).find(enough).unwrap_or(request.settings.steps);
        let fabric = &mut request.settings.fabric;
        (fabric.start, fabric.end, fabric.min_weight) = (0.0, 1.0, fabric.max_weight);
        for steering in &mut request.steering {
            if let Some(always) = steering.at_every_evaluation() {
                *steering = always;
            }
        }
        let mut own = self.clone();
        (own.tokens, own.latents) = (Arc::default(), Arc::default());
        own.generate(&request)?;
        Ok(clock.elapsed())
    }
}
