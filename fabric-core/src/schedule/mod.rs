//! Noise schedules: the noise levels of a run, from a `scheduler_config.json` and a number of steps.
//!
//! Everything here is host data in `f64`, used by the samplers in [`crate::samplers`]. Timesteps are identical to
//! diffusers'; noise levels include its f32 roundings.

mod betas;
mod config;
mod curves;
mod error;
mod kind;
mod timesteps;
mod validate;

#[cfg(test)]
mod tests;

use burn::tensor::Tensor;

#[cfg(test)]
pub(crate) use config::BetaSchedule;
pub(crate) use config::{FinalSigma, Spacing, Variance};
pub use config::{Prediction, SchedulerConfig};
pub use error::ScheduleError;
pub use kind::{SamplerKind, SigmaCurve};

use crate::InvalidValue;
use crate::denoise::NoiseLevel;
use curves::{Grid, Levels};

/// The noise levels of one run.
///
/// ```
/// use fabric_core::schedule::{SamplerKind, Schedule, SchedulerConfig};
///
/// let config = SchedulerConfig::default().with_sampler(SamplerKind::Ddim);
/// let schedule = Schedule::new(&config, 10)?;
/// assert_eq!(schedule.calls(), 10);
/// // Image to image: keep three tenths of the run.
/// assert_eq!(schedule.from_strength(0.3)?.timesteps(), [201.0, 101.0, 1.0]);
/// # Ok::<(), fabric_core::schedule::ScheduleError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    config: SchedulerConfig,
    /// Number of steps of the full schedule, before [`Schedule::from_strength`] shortens it.
    steps: usize,
    /// Number of steps skipped at the noisy end.
    skipped: usize,
    /// Cumulative alphas of all training steps.
    alphas: Vec<f32>,
    /// Noise levels of all evaluations of the full schedule, in order.
    levels: Vec<NoiseLevel>,
    /// Noise levels `sigma / alpha` at which each step begins, and at which the last one ends; empty for samplers
    /// over alphas.
    sigmas: Vec<f64>,
}

impl Schedule {
    /// Builds the schedule of `config` with `steps` steps.
    ///
    /// # Errors
    ///
    /// Returns [`ScheduleError::Field`] for a setting out of range, [`ScheduleError::Steps`] for zero steps or
    /// more than the sampler supports, and [`ScheduleError::NoSignal`] for a noise prediction at a level without
    /// signal.
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, ScheduleError> {
        config.validate()?;
        config.validate_steps(steps)?;
        let alphas = betas::cumulative_alphas(config)?;
        let mut schedule =
            Self { config: config.clone(), steps, skipped: 0, alphas, levels: Vec::new(), sigmas: Vec::new() };
        match config.kind {
            SamplerKind::Ddpm | SamplerKind::Ddim | SamplerKind::Pndm | SamplerKind::Lcm | SamplerKind::Tcd => {
                schedule.fill_from_alphas();
            }
            _ => schedule.fill_from_sigmas()?,
        }
        match schedule.levels.iter().find(|level| level.alpha == 0.0) {
            Some(level) if config.prediction == Prediction::Epsilon => {
                Err(ScheduleError::NoSignal { timestep: level.timestep })
            }
            _ => Ok(schedule),
        }
        .and_then(Self::checked)
    }

    /// Checks that the network was trained on every timestep.
    fn checked(self) -> Result<Self, ScheduleError> {
        let end = self.config.num_train_timesteps as f64;
        match self.levels.iter().find(|level| level.timestep >= end) {
            Some(level) => {
                let got = format!("{} (a timestep of {})", self.config.steps_offset, level.timestep);
                let expected = format!("an offset, or fewer steps, that keep timesteps below {end}");
                Err(ScheduleError::field("steps_offset", got, expected))
            }
            None => Ok(self),
        }
    }

    fn fill_from_alphas(&mut self) {
        let mut timesteps = timesteps::timesteps(&self.config, self.steps, self.alphas.len());
        if self.config.uses_prk() {
            let ascending: Vec<f64> = timesteps.iter().rev().copied().collect();
            timesteps.truncate(0);
            timesteps.extend(timesteps::runge_kutta(&ascending, self.stride() as usize / 2));
            timesteps.extend(ascending[..self.steps - 3].iter().rev());
        } else if self.config.kind == SamplerKind::Pndm && self.steps > 1 {
            timesteps.insert(1, timesteps[1]); // PLMS warm-up: two evaluations at the second timestep
        }
        self.levels = timesteps.iter().map(|timestep| self.level_at(*timestep as i64)).collect();
    }

    fn fill_from_sigmas(&mut self) -> Result<(), ScheduleError> {
        let Grid { timesteps, sigmas } = curves::grid(&self.config, self.steps, &self.alphas)?;
        let level = |timestep: f64, ratio: f64| {
            let (alpha, sigma) = amplitudes(ratio);
            NoiseLevel { timestep, alpha, sigma }
        };
        let table = Levels::new(&self.alphas);
        for (i, timestep) in timesteps.iter().enumerate() {
            self.levels.push(level(*timestep, sigmas[i]));
            let Some(next) = timesteps.get(i + 1) else { break };
            match self.config.kind {
                SamplerKind::Heun(_) => self.levels.push(level(*next, sigmas[i + 1])),
                SamplerKind::Kdpm2(curve) => {
                    let middle = f64::from(midpoint(sigmas[i], sigmas[i + 1]) as f32);
                    let told = table.timestep(middle);
                    let told = if curve == SigmaCurve::Table { f64::from(told as f32) } else { told };
                    self.levels.push(level(told, middle));
                }
                SamplerKind::DpmPlusPlusSde(_) => {
                    let middle = midpoint(sigmas[i], sigmas[i + 1]);
                    self.levels.push(level(table.timestep(middle), middle));
                }
                _ => {}
            }
        }
        self.sigmas = sigmas;
        Ok(())
    }

    /// Returns the configuration of the schedule.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Returns the noise level of every evaluation of the network, in order.
    pub fn levels(&self) -> &[NoiseLevel] {
        &self.levels[self.skipped * self.config.kind.order()..]
    }

    /// Returns the number of evaluations of the run.
    pub fn calls(&self) -> usize {
        self.levels().len()
    }

    /// Returns the timestep of every evaluation: diffusers' `timesteps`.
    pub fn timesteps(&self) -> Vec<f64> {
        self.levels().iter().map(|level| level.timestep).collect()
    }

    /// Returns diffusers' `sigmas` (most of them twice for samplers with two evaluations per step); empty for
    /// DDPM, DDIM, PNDM, LCM and TCD.
    pub fn sigmas(&self) -> Vec<f64> {
        let sigmas = self.sigmas.get(self.skipped..).unwrap_or_default();
        let twice = |inner: &[f64]| inner.iter().flat_map(|sigma| [*sigma; 2]).collect::<Vec<f64>>();
        match (self.config.kind, sigmas) {
            (SamplerKind::Heun(_) | SamplerKind::DpmPlusPlusSde(_), [first, inner @ .., last]) => {
                [vec![*first], twice(inner), vec![*last]].concat()
            }
            (SamplerKind::Kdpm2(_), [first, rest @ .., last]) => [vec![*first], twice(rest), vec![*last; 3]].concat(),
            _ => sigmas.to_vec(),
        }
    }

    /// Returns the factor from standard normal noise to the initial state: 1 for variance-preserving samplers,
    /// otherwise derived from the largest sigma, as in diffusers.
    pub fn init_noise_sigma(&self) -> f64 {
        if !self.config.kind.is_variance_exploding() {
            return 1.0;
        }
        let max = self.sigmas.iter().fold(0.0_f64, |max, sigma| max.max(*sigma)) as f32;
        match self.config.spacing() {
            Spacing::Leading => f64::from((max * max + 1.0).sqrt()),
            Spacing::Trailing | Spacing::Linspace => f64::from(max),
        }
    }

    /// Returns the last `strength` of the run, for image-to-image; [`Schedule::add_noise`] makes its initial
    /// state.
    ///
    /// The number of steps is rounded as in diffusers: `int(steps * strength)` steps are kept.
    ///
    /// # Errors
    ///
    /// Returns [`ScheduleError::Strength`] if `strength` is outside [0, 1] or leaves no step, and for PNDM with
    /// Runge-Kutta steps, which cannot start midway.
    pub fn from_strength(&self, strength: f64) -> Result<Self, ScheduleError> {
        let wants = |good: bool, expected: &str| {
            let what = format!("strength of {} steps", self.steps);
            let error = || ScheduleError::Strength(InvalidValue::new(what, strength, expected, "0.6 to 0.8 is usual"));
            if good { Ok(()) } else { Err(error()) }
        };
        wants((0.0..=1.0).contains(&strength), "0 to 1")?;
        let kept = (self.steps as f64 * strength) as usize;
        wants(kept > 0, &format!("{:.3} or more, for one step to be left", 1.0 / self.steps as f64))?;
        let skipped = self.steps - kept.min(self.steps);
        wants(skipped == 0 || !self.config.uses_prk(), "1 with `skip_prk_steps: false`")?;
        let cut = Self { skipped, ..self.clone() };
        // With `lambda_min_clipped` there can be fewer evaluations than steps.
        wants(skipped * self.config.kind.order() < self.levels.len(), "more, for one step to be left")?;
        Ok(cut)
    }

    /// Adds noise to a clean image at the first noise level, in the sampler's own convention.
    ///
    /// # Shapes
    ///
    /// - `clean`, `noise`: `[images, channels, height, width]`
    /// - returns: the same
    pub fn add_noise(&self, clean: Tensor<4>, noise: Tensor<4>) -> Tensor<4> {
        self.add_noise_before(0, clean, noise)
    }

    /// Adds noise to a clean image at the level of evaluation `call`, in the sampler's own convention; returns it
    /// unchanged after the last evaluation.
    pub(crate) fn add_noise_before(&self, call: usize, clean: Tensor<4>, noise: Tensor<4>) -> Tensor<4> {
        let Some(level) = self.levels().get(call) else { return clean };
        if self.config.kind.is_variance_exploding() {
            clean + noise * level.ratio()
        } else {
            noised(clean, noise, level)
        }
    }

    /// Returns the number of steps of the full schedule, before [`Schedule::from_strength`] shortened it.
    pub(crate) fn whole_steps(&self) -> usize {
        self.levels.len().div_ceil(self.config.kind.order())
    }

    /// Returns the values of `sigma / alpha` at which each step begins and the last one ends, for samplers over sigma.
    pub fn boundaries(&self) -> &[f64] {
        let steps = self.levels().len().div_ceil(self.config.kind.order());
        &self.sigmas[self.skipped..][..=steps]
    }

    /// Returns the number of training steps between two steps.
    pub(crate) fn stride(&self) -> i64 {
        (self.config.num_train_timesteps / self.steps) as i64
    }

    /// Returns the noise level of a training step; below step 0, that of the end of the run.
    pub(crate) fn level_at(&self, timestep: i64) -> NoiseLevel {
        let last = self.alphas.len() - 1;
        let alpha = match usize::try_from(timestep) {
            Ok(step) => self.alphas[step.min(last)],
            Err(_) if self.config.ends_clean() => 1.0,
            Err(_) => self.alphas[0],
        };
        level(timestep as f64, alpha)
    }
}

/// Returns `alpha` and `sigma` of a ratio `sigma / alpha`.
pub(crate) fn amplitudes(ratio: f64) -> (f64, f64) {
    let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
    (alpha, ratio * alpha)
}

/// Returns the betas of all training steps, in f32 as in the published code.
///
/// # Errors
///
/// Returns [`ScheduleError::Field`] for a setting out of range.
pub fn training_betas(config: &SchedulerConfig) -> Result<Vec<f32>, ScheduleError> {
    config.validate()?;
    betas::betas(config)
}

/// Returns the noise levels of all training steps, which [`noised`] takes during training.
///
/// # Errors
///
/// Returns [`ScheduleError::Field`] for a setting out of range.
pub fn training_levels(config: &SchedulerConfig) -> Result<Vec<NoiseLevel>, ScheduleError> {
    config.validate()?;
    let alphas = betas::cumulative_alphas(config)?;
    Ok(alphas.iter().enumerate().map(|(step, alpha)| level(step as f64, *alpha)).collect())
}

/// Returns the noise level of a cumulative alpha.
fn level(timestep: f64, cumulative_alpha: f32) -> NoiseLevel {
    let signal = f64::from(cumulative_alpha);
    NoiseLevel { timestep, alpha: signal.sqrt(), sigma: (1.0 - signal).sqrt() }
}

/// Returns the midpoint in `ln sigma`; 0 if `to` is 0.
fn midpoint(from: f64, to: f64) -> f64 {
    (from * to).sqrt()
}

/// Adds noise to a clean image at a noise level: `alpha * clean + sigma * noise`.
///
/// # Shapes
///
/// - `clean`, `noise`: `[images, channels, height, width]`
/// - returns: the same
pub fn noised(clean: Tensor<4>, noise: Tensor<4>, level: &NoiseLevel) -> Tensor<4> {
    clean * level.alpha + noise * level.sigma
}

/// Returns the target of a [`Prediction::Velocity`] network, `alpha * noise - sigma * clean` (Salimans & Ho
/// 2022).
///
/// # Shapes
///
/// - `clean`, `noise`: `[images, channels, height, width]`
/// - returns: the same
pub fn velocity(clean: Tensor<4>, noise: Tensor<4>, level: &NoiseLevel) -> Tensor<4> {
    noise * level.alpha - clean * level.sigma
}
