//! Samplers: one function each, from noise to a clean image along a [`Schedule`], written like the paper.
//!
//! A sampler handles only a state `x`, noise levels and the predicted clean image; `run.rs` converts the
//! network's prediction (noise, velocity, clean image). States follow diffusers' convention for each sampler, so
//! that a run can be compared step by step. Loops read nothing back from the device.

mod ddim;
mod ddpm;
mod dpm_multistep;
mod dpm_sde;
mod euler;
mod heun;
mod kdpm2;
mod lcm;
mod lms;
mod mask_blend;
mod pndm;
mod run;
mod tcd;
mod unipc;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use burn::tensor::Tensor;

use crate::Error;
use crate::denoise::{Denoiser, NoiseLevel, NoiseSource};
use crate::schedule::{SamplerKind, Schedule};
pub(crate) use mask_blend::MaskBlend;
pub use run::SamplerRun;

/// Error of a sampler.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// The network's prediction does not have the latents' shape.
    #[error(
        "prediction {call}: the network gave {got:?} for latents {expected:?}; a network that also predicts a variance \
         is not supported"
    )]
    Prediction {
        /// Index of the evaluation, from 0.
        call: usize,
        /// The prediction's shape.
        got: [usize; 4],
        /// The latents' shape.
        expected: [usize; 4],
    },
    /// A sampler did not make the evaluations of the schedule, one per level, each with one report.
    #[error(
        "sampler: expected {expected} {what}, as the schedule has levels, got {got}; evaluate the network once per level, \
         and report each evaluation"
    )]
    Evaluations {
        /// The kind that was counted: evaluations or reports.
        what: &'static str,
        /// Their number.
        got: usize,
        /// Number of levels.
        expected: usize,
    },
    /// A sampler returned latents of another shape than it was given.
    #[error("sampler: it returned latents {got:?}, expected {expected:?}; return the last state")]
    Latents {
        /// The shape of the result.
        got: [usize; 4],
        /// The shape of the first state.
        expected: [usize; 4],
    },
    /// The noise source returned another shape than requested.
    #[error("noise after prediction {call}: the source gave {got:?}, expected {expected:?}")]
    Noise {
        /// Index of the preceding evaluation, from 0.
        call: usize,
        /// The noise's shape.
        got: [usize; 4],
        /// The latents' shape.
        expected: [usize; 4],
    },
}

/// A sampler of one's own, for a request ([`Request::with_sampler`](crate::pipeline::Request::with_sampler)).
///
/// ```
/// use burn::tensor::Tensor;
/// use fabric_core::Error;
/// use fabric_core::samplers::{Sampler, SamplerRun};
/// use fabric_core::schedule::{SamplerKind, SigmaCurve};
///
/// /// Euler's method, written out.
/// #[derive(Debug)]
/// struct MyEuler;
///
/// impl Sampler for MyEuler {
///     fn kind(&self) -> SamplerKind {
///         SamplerKind::Euler(SigmaCurve::Table)
///     }
///
///     fn sample(&self, run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
///         for step in run.schedule().boundaries().windows(2) {
///             let (sigma, next) = (step[0], step[1]);
///             let denoised = run.denoise(&x)?;
///             x = x.clone() + (x - denoised) / sigma * (next - sigma);
///             x = run.report(x)?;
///         }
///         Ok(x)
///     }
/// }
/// ```
pub trait Sampler: std::fmt::Debug + Send + Sync {
    /// Returns the kind of sampler whose noise levels and convention it uses: [`SamplerKind::Euler`] if `x` is the clean
    /// image plus `sigma / alpha` times noise, [`SamplerKind::Ddim`] if it is variance-preserving. Kinds with two
    /// evaluations per step have two levels per step.
    fn kind(&self) -> SamplerKind;

    /// Runs from the state at the first level of the schedule, `[images, channels, height, width]`, to clean latents.
    ///
    /// # Errors
    ///
    /// Returns the errors of `run`.
    fn sample(&self, run: &mut SamplerRun<'_>, x: Tensor<4>) -> Result<Tensor<4>, Error>;
}

/// State of a run after an evaluation of the network.
#[derive(Debug, Clone, Copy)]
pub struct StepReport<'a> {
    /// Index of the step, from 0. Samplers with two evaluations per step report both.
    pub step: usize,
    /// Number of steps of the run.
    pub steps: usize,
    /// Index of the evaluation, from 0.
    pub call: usize,
    /// Noise level of the evaluation.
    pub level: NoiseLevel,
    /// Latents after the evaluation, `[images, channels, height, width]`, in the sampler's own convention.
    pub state: &'a Tensor<4>,
    /// Predicted clean latents, of the same shape; useful for previews.
    pub denoised: &'a Tensor<4>,
}

/// Runs the schedule's sampler.
///
/// `latents` is the state at the schedule's first level in the sampler's own convention: noise times
/// [`Schedule::init_noise_sigma`], or [`Schedule::add_noise`] of an init image. The network receives it scaled to
/// unit variance ([`NoiseLevel`]). `noise` is called exactly when diffusers draws, `observer` after each
/// evaluation.
///
/// # Shapes
///
/// - `latents`: `[images, channels, height, width]`
/// - returns: the same
///
/// # Errors
///
/// Returns the errors of `denoiser` and `noise`, [`SamplerError`] if their results have another shape, and
/// [`Error::Cancelled`] if `observer` breaks.
pub fn sample(
    schedule: &Schedule,
    latents: Tensor<4>,
    denoiser: &mut dyn Denoiser,
    noise: &mut dyn NoiseSource,
    observer: &mut dyn FnMut(StepReport<'_>) -> ControlFlow<()>,
) -> Result<Tensor<4>, Error> {
    let mut run = SamplerRun::new(schedule, denoiser, noise, observer, None);
    let shape = latents.dims();
    let latents = ByKind(schedule.config().kind).sample(&mut run, latents)?;
    run.check_finished(latents.dims(), shape)?;
    Ok(latents)
}

/// The sampler of this kind.
#[derive(Debug)]
pub(crate) struct ByKind(pub(crate) SamplerKind);

impl Sampler for ByKind {
    fn kind(&self) -> SamplerKind {
        self.0
    }

    fn sample(&self, run: &mut SamplerRun<'_>, x: Tensor<4>) -> Result<Tensor<4>, Error> {
        match self.0 {
            SamplerKind::Ddpm => ddpm::ddpm(run, x),
            SamplerKind::Ddim => ddim::ddim(run, x),
            SamplerKind::Pndm => pndm::pndm(run, x),
            SamplerKind::Lms(_) => lms::lms(run, x),
            SamplerKind::Euler(_) => euler::euler(run, x),
            SamplerKind::EulerAncestral => euler::euler_ancestral(run, x),
            SamplerKind::Heun(_) => heun::heun(run, x),
            SamplerKind::Kdpm2(_) => kdpm2::kdpm2(run, x),
            SamplerKind::DpmPlusPlus2M(_) => dpm_multistep::dpm_multistep(run, x),
            SamplerKind::DpmPlusPlus2MSde(_) => dpm_multistep::dpm_multistep_sde(run, x),
            SamplerKind::DpmPlusPlusSde(_) => dpm_sde::dpm_sde(run, x),
            SamplerKind::UniPc(_) => unipc::unipc(run, x),
            SamplerKind::Lcm => lcm::lcm(run, x),
            SamplerKind::Tcd => tcd::tcd(run, x),
        }
    }
}
