//! The training schedule: betas and cumulative alphas of all training steps.
//!
//! Computed in f32 as in PyTorch: `1 - alpha` near step 0 keeps only four significant digits, so noise levels
//! that agree to 1e-6 need the same roundings.

use std::f64::consts::FRAC_PI_2;

use super::config::BetaSchedule;
use super::{SamplerKind, ScheduleError, SchedulerConfig};

/// Returns the cumulative products of `1 - beta` (`alphas_cumprod`), one per training step.
pub(super) fn cumulative_alphas(config: &SchedulerConfig) -> Result<Vec<f32>, ScheduleError> {
    let mut alphas = cumulative_product(&betas(config)?);
    let may_end_at_zero =
        matches!(config.kind, SamplerKind::Ddpm | SamplerKind::Ddim | SamplerKind::Lcm | SamplerKind::Tcd);
    if config.rescale_betas_zero_snr && !may_end_at_zero {
        // This gives a sigma of 4096 instead of infinity; the value is diffusers'.
        *alphas.last_mut().unwrap_or(&mut 0.0) = f32::exp2(-24.0);
    }
    Ok(alphas)
}

/// Returns one beta per training step.
pub(super) fn betas(config: &SchedulerConfig) -> Result<Vec<f32>, ScheduleError> {
    let betas = published(config);
    if let Some(i) = betas.iter().position(|beta| !(*beta > 0.0 && *beta < 1.0)) {
        let field = if config.trained_betas.is_some() { "trained_betas" } else { "beta_schedule" };
        let got = format!("{} at step {i}", betas[i]);
        return Err(ScheduleError::field(field, got, "betas between 0 and 1"));
    }
    if !config.rescale_betas_zero_snr {
        return Ok(betas);
    }
    let rescaled = without_terminal_signal(&betas);
    if rescaled.iter().any(|beta| beta.is_nan()) {
        let expected = "false, unless there are two training steps or more and the last one takes signal away";
        return Err(ScheduleError::field("rescale_betas_zero_snr", true, expected));
    }
    Ok(rescaled)
}

fn published(config: &SchedulerConfig) -> Vec<f32> {
    let steps = config.num_train_timesteps;
    if let Some(betas) = &config.trained_betas {
        return betas.iter().map(|beta| *beta as f32).collect();
    }
    let (start, end, schedule) = config.betas();
    match schedule {
        BetaSchedule::Linear => linspace(start, end, steps),
        BetaSchedule::ScaledLinear => {
            linspace(start.sqrt(), end.sqrt(), steps).into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredCos => from_signal(steps, |time| ((time + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)),
        BetaSchedule::Exp => from_signal(steps, |time| (-12.0 * time).exp()),
        BetaSchedule::Sigmoid => {
            let range = (end - start) as f32;
            let sigmoid = |x: f32| (1.0 / (1.0 + (-f64::from(x)).exp())) as f32;
            linspace(-6.0, 6.0, steps).into_iter().map(|x| sigmoid(x) * range + start as f32).collect()
        }
    }
}

/// Returns betas whose cumulative product follows `signal(time)`, time from 0 to 1, capped below 1.
fn from_signal(steps: usize, signal: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |i: usize| signal(i as f64 / steps as f64);
    (0..steps).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}

/// PyTorch's `linspace` in f32: computed from both ends to the middle, with fused multiply-adds.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if count == 1 {
        return vec![start];
    }
    let step = (end - start) / (count - 1) as f32;
    let at = |i: usize| {
        if i < count / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((count - 1 - i) as f32, end) }
    };
    (0..count).map(at).collect()
}

/// PyTorch's `cumprod` of `1 - beta`: accumulated in f64, each result rounded to f32.
fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let multiply = |product: &mut f64, beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0, multiply).collect()
}

/// Shifts and scales the signal amplitudes so that the first is unchanged and the last is 0 (Lin et al. 2023). Some are
/// NaN if the last step takes no signal away.
fn without_terminal_signal(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_product(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let stretch = first / (first - last);
    let squares: Vec<f32> = roots.iter().map(|root| (root - last) * stretch).map(|root| root * root).collect();
    let ratio = |i: usize| if i == 0 { squares[0] } else { squares[i] / squares[i - 1] };
    (0..squares.len()).map(|i| 1.0 - ratio(i)).collect()
}
