//! Timesteps of a run, from the noisiest down.

use super::{SamplerKind, SchedulerConfig, Spacing};

/// Returns the timesteps of a sampler with diffusers' rounding, for the first evaluation of each step.
///
/// `last` is the number of training steps in use: all, unless `lambda_min_clipped` omits some.
pub(super) fn timesteps(config: &SchedulerConfig, steps: usize, last: usize) -> Vec<f64> {
    let spacing = config.spacing();
    match config.kind {
        SamplerKind::Lcm | SamplerKind::Tcd => from_teacher(config, steps),
        SamplerKind::DpmPlusPlus2M(_) | SamplerKind::DpmPlusPlus2MSde(_) | SamplerKind::UniPc(_) => {
            multistep(config, spacing, steps, last)
        }
        SamplerKind::Ddpm | SamplerKind::Ddim | SamplerKind::Pndm => {
            one_per_step(config, spacing, steps).into_iter().map(f64::round_ties_even).collect()
        }
        SamplerKind::DpmPlusPlusSde(_) => one_per_step(config, spacing, steps),
        // diffusers computes these in f32 with NumPy: the fractions of `linspace` keep seven digits.
        SamplerKind::Lms(_)
        | SamplerKind::Euler(_)
        | SamplerKind::EulerAncestral
        | SamplerKind::Heun(_)
        | SamplerKind::Kdpm2(_) => {
            one_per_step(config, spacing, steps).into_iter().map(|timestep| f64::from(timestep as f32)).collect()
        }
    }
}

fn one_per_step(config: &SchedulerConfig, spacing: Spacing, steps: usize) -> Vec<f64> {
    let train = config.num_train_timesteps;
    match spacing {
        Spacing::Linspace => {
            let mut timesteps = linspace(0.0, (train - 1) as f64, steps);
            timesteps.reverse();
            timesteps
        }
        Spacing::Leading => leading(train / steps, steps, config.steps_offset),
        Spacing::Trailing => trailing(train, train as f64 / steps as f64, steps),
    }
}

/// Returns timesteps on a grid with one point more than steps; the last point, where the run ends, is omitted.
fn multistep(config: &SchedulerConfig, spacing: Spacing, steps: usize, last: usize) -> Vec<f64> {
    match spacing {
        Spacing::Linspace => {
            let mut timesteps = linspace(0.0, last as f64 - 1.0, steps + 1);
            timesteps.reverse();
            timesteps.pop();
            timesteps.into_iter().map(f64::round_ties_even).collect()
        }
        Spacing::Leading => {
            let mut timesteps = leading(last / (steps + 1), steps + 1, config.steps_offset);
            timesteps.pop();
            timesteps
        }
        Spacing::Trailing => {
            let stride = config.num_train_timesteps as f64 / steps as f64;
            // The requested number of steps; fewer if training steps are omitted.
            let count = if last == config.num_train_timesteps { steps } else { (last as f64 / stride).ceil() as usize };
            trailing(last, stride, count)
        }
    }
}

fn leading(stride: usize, count: usize, offset: usize) -> Vec<f64> {
    (0..count).rev().map(|i| (i * stride + offset) as f64).collect()
}

/// Returns exactly `count` timesteps; diffusers' float range adds another one, -1, for 61 steps and other counts.
fn trailing(start: usize, stride: f64, count: usize) -> Vec<f64> {
    // NumPy's arange steps by the rounded difference of its first two elements.
    let delta = (start as f64 - stride) - start as f64;
    (0..count).map(|i| (start as f64 + i as f64 * delta).round_ties_even() - 1.0).collect()
}

/// Returns every k-th step of the teacher's schedule, from the top.
fn from_teacher(config: &SchedulerConfig, steps: usize) -> Vec<f64> {
    let original = config.original_steps();
    let stride = config.num_train_timesteps / original;
    let part = original as f64 / steps as f64;
    (0..steps).map(|i| ((original - (i as f64 * part).floor() as usize) * stride - 1) as f64).collect()
}

/// NumPy's `linspace`.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    (0..count).map(|i| if i > 0 && i == count - 1 { end } else { i as f64 * step + start }).collect()
}

/// Returns the first timesteps of PNDM: four evaluations for each of three Runge-Kutta steps. `ascending` holds
/// the chosen timesteps in ascending order.
pub(super) fn runge_kutta(ascending: &[f64], half_stride: usize) -> Vec<f64> {
    let tail = &ascending[ascending.len() - 4..];
    let halves: Vec<f64> = tail.iter().flat_map(|timestep| [*timestep, timestep + half_stride as f64]).collect();
    let mut doubled: Vec<f64> = halves[..7].iter().flat_map(|timestep| [*timestep; 2]).collect();
    doubled.pop();
    doubled.remove(0);
    doubled.reverse();
    doubled
}
