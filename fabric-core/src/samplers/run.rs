//! State and operations shared by all samplers.

use std::ops::ControlFlow;

use burn::tensor::Tensor;

use super::{MaskBlend, SamplerError, StepReport};
use crate::Error;
use crate::denoise::{Denoiser, ModelCall, NoiseLevel, NoiseSource};
use crate::schedule::{Prediction, Schedule, SchedulerConfig};
use crate::spans;

/// One run of a sampler: evaluates the network, converts its prediction to the clean image, and counts evaluations.
pub struct SamplerRun<'a> {
    schedule: &'a Schedule,
    denoiser: &'a mut dyn Denoiser,
    noise: &'a mut dyn NoiseSource,
    observer: &'a mut dyn FnMut(StepReport<'_>) -> ControlFlow<()>,
    mask_blend: Option<&'a MaskBlend>,
    /// Number of evaluations so far.
    calls: usize,
    /// Number of reports so far.
    reports: usize,
    /// The last predicted clean image.
    denoised: Option<Tensor<4>>,
}

impl<'a> SamplerRun<'a> {
    pub(crate) fn new(
        schedule: &'a Schedule,
        denoiser: &'a mut dyn Denoiser,
        noise: &'a mut dyn NoiseSource,
        observer: &'a mut dyn FnMut(StepReport<'_>) -> ControlFlow<()>,
        mask_blend: Option<&'a MaskBlend>,
    ) -> Self {
        Self { schedule, denoiser, noise, observer, mask_blend, calls: 0, reports: 0, denoised: None }
    }

    /// The noise levels of the run. A sampler makes one evaluation per level, in order.
    pub fn schedule(&self) -> &'a Schedule {
        self.schedule
    }

    pub(super) fn config(&self) -> &'a SchedulerConfig {
        self.schedule.config()
    }

    /// Evaluates the network at the next level of the schedule and returns the predicted clean image for `x`.
    ///
    /// `x` is in the convention of the schedule's sampler kind: clean image plus `sigma / alpha` times noise for the
    /// variance-exploding kinds (Euler, Heun, LMS, ...), variance-preserving ([`NoiseLevel`]) otherwise.
    ///
    /// # Errors
    ///
    /// Returns the errors of the network, and [`SamplerError::Evaluations`] if all levels were evaluated.
    pub fn denoise(&mut self, x: &Tensor<4>) -> Result<Tensor<4>, Error> {
        self.predict(x).map(|(_, denoised)| denoised)
    }

    /// Evaluates the network like [`Self::denoise`] and returns the predicted clean image and noise for `x`
    /// (variance-preserving samplers).
    ///
    /// # Errors
    ///
    /// Same as [`Self::denoise`].
    pub fn split(&mut self, x: &Tensor<4>) -> Result<(Tensor<4>, Tensor<4>), Error> {
        let (raw, denoised) = self.predict(x)?;
        let level = self.schedule.levels()[self.calls - 1];
        Ok((denoised, self.noise_in(raw, x, level)))
    }

    /// Returns the network's raw prediction and the clean image, which is clipped if the configuration says so.
    pub(super) fn predict(&mut self, x: &Tensor<4>) -> Result<(Tensor<4>, Tensor<4>), Error> {
        let levels = self.schedule.levels();
        if self.calls == levels.len() {
            return Err(
                SamplerError::Evaluations { what: "evaluations", got: self.calls + 1, expected: levels.len() }.into()
            );
        }
        let call = ModelCall { index: self.calls, total: levels.len(), level: levels[self.calls] };
        let NoiseLevel { alpha, sigma, .. } = call.level;

        let exploding = self.config().kind.is_variance_exploding();
        let input = if exploding { x.clone() * alpha } else { x.clone() };
        let evaluation = spans::evaluation(&call, self.config().kind.order());
        let raw = self.denoiser.predict(input, &call)?;
        evaluation.end();
        let (got, expected) = (raw.dims(), x.dims());
        if got != expected {
            return Err(SamplerError::Prediction { call: call.index, got, expected }.into());
        }

        let denoised = match (self.config().prediction, exploding) {
            (Prediction::Epsilon, true) => x.clone() - raw.clone() * (sigma / alpha),
            (Prediction::Epsilon, false) => (x.clone() - raw.clone() * sigma) / alpha,
            (Prediction::Velocity, true) => x.clone() * (alpha * alpha) - raw.clone() * sigma,
            (Prediction::Velocity, false) => x.clone() * alpha - raw.clone() * sigma,
            (Prediction::Sample, _) => raw.clone(),
        };
        let denoised = match self.config().clip() {
            Some(range) => denoised.clamp(-range, range),
            None => denoised,
        };
        self.calls += 1;
        self.denoised = Some(denoised.clone());
        Ok((raw, denoised))
    }

    /// Converts the network's raw prediction at `level` to noise (variance-preserving samplers).
    pub(super) fn noise_in(&self, raw: Tensor<4>, x: &Tensor<4>, level: NoiseLevel) -> Tensor<4> {
        match self.config().prediction {
            Prediction::Epsilon => raw,
            Prediction::Velocity => raw * level.alpha + x.clone() * level.sigma,
            Prediction::Sample => (x.clone() - raw * level.alpha) / level.sigma,
        }
    }

    /// Draws fresh standard normal noise of the shape of `x`.
    ///
    /// # Errors
    ///
    /// Returns an error if recorded noise is exhausted or has another shape.
    pub fn draw(&mut self, x: &Tensor<4>) -> Result<Tensor<4>, Error> {
        let noise = self.noise.draw(x.dims())?;
        let (got, expected) = (noise.dims(), x.dims());
        if got == expected {
            Ok(noise)
        } else {
            Err(SamplerError::Noise { call: self.calls.saturating_sub(1), got, expected }.into())
        }
    }

    /// Restores the kept latents in the state after an evaluation (inpainting), and passes it to the observer, which may
    /// stop the run. Call it once after each evaluation, and go on with the result.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Cancelled`] if the observer stops the run.
    pub fn report(&mut self, state: Tensor<4>) -> Result<Tensor<4>, Error> {
        let state = match self.mask_blend {
            Some(mask_blend) => mask_blend.put_back(state, self.schedule, self.calls),
            None => state,
        };
        let order = self.config().kind.order();
        self.reports += 1;
        let Some(denoised) = self.denoised.as_ref().filter(|_| self.reports == self.calls) else {
            let (got, expected) = (self.reports, self.calls);
            return Err(SamplerError::Evaluations { what: "reports", got, expected }.into());
        };
        let call = self.calls - 1;
        let (step, steps) = (call / order, self.schedule.calls().div_ceil(order));
        let level = self.schedule.levels()[call];
        match (self.observer)(StepReport { step, steps, call, level, state: &state, denoised }) {
            ControlFlow::Continue(()) => Ok(state),
            ControlFlow::Break(()) => {
                let last_of_step = self.calls.is_multiple_of(order) || self.calls == self.schedule.calls();
                Err(Error::Cancelled { step: step + usize::from(last_of_step), steps, finished: Vec::new() })
            }
        }
    }

    /// Checks that the sampler made and reported all evaluations of the schedule, and kept the shape of the latents.
    pub(crate) fn check_finished(&self, got: [usize; 4], expected: [usize; 4]) -> Result<(), SamplerError> {
        let levels = self.schedule.calls();
        for (what, count) in [("evaluations", self.calls), ("reports", self.reports)] {
            if count != levels {
                return Err(SamplerError::Evaluations { what, got: count, expected: levels });
            }
        }
        if got == expected { Ok(()) } else { Err(SamplerError::Latents { got, expected }) }
    }
}

impl std::fmt::Debug for SamplerRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SamplerRun").field("evaluations", &self.calls).finish_non_exhaustive()
    }
}
