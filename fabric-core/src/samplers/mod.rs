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
mod unipc;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use burn::tensor::Tensor;

use crate::Error;
use crate::denoise::{Denoiser, NoiseLevel, NoiseSource};
use crate::schedule::{SamplerKind, Schedule};
pub use mask_blend::MaskBlend;
use run::Run;

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
    sample_within(schedule, latents, denoiser, noise, observer, None)
}

/// Runs the schedule's sampler like [`sample`], and restores the latents that `mask_blend` keeps after each
/// evaluation.
///
/// # Errors
///
/// Returns an error like [`sample`].
pub fn sample_within(
    schedule: &Schedule,
    latents: Tensor<4>,
    denoiser: &mut dyn Denoiser,
    noise: &mut dyn NoiseSource,
    observer: &mut dyn FnMut(StepReport<'_>) -> ControlFlow<()>,
    mask_blend: Option<&MaskBlend>,
) -> Result<Tensor<4>, Error> {
    let mut run = Run::new(schedule, denoiser, noise, observer, mask_blend);
    let latents = match schedule.config().kind {
        SamplerKind::Ddpm => ddpm::ddpm(&mut run, latents),
        SamplerKind::Ddim => ddim::ddim(&mut run, latents),
        SamplerKind::Pndm => pndm::pndm(&mut run, latents),
        SamplerKind::Lms(_) => lms::lms(&mut run, latents),
        SamplerKind::Euler(_) => euler::euler(&mut run, latents),
        SamplerKind::EulerAncestral => euler::euler_ancestral(&mut run, latents),
        SamplerKind::Heun(_) => heun::heun(&mut run, latents),
        SamplerKind::Kdpm2(_) => kdpm2::kdpm2(&mut run, latents),
        SamplerKind::DpmPlusPlus2M(_) => dpm_multistep::dpm_multistep(&mut run, latents),
        SamplerKind::DpmPlusPlus2MSde(_) => dpm_multistep::dpm_multistep_sde(&mut run, latents),
        SamplerKind::DpmPlusPlusSde(_) => dpm_sde::dpm_sde(&mut run, latents),
        SamplerKind::UniPc(_) => unipc::unipc(&mut run, latents),
        SamplerKind::Lcm => lcm::lcm(&mut run, latents),
    }?;
    run.assert_finished();
    Ok(latents)
}
