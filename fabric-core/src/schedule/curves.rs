//! Noise levels of the samplers over sigma: the training levels at the timesteps, or a curve between two end
//! points.

use std::f64::consts::FRAC_PI_4;

use super::config::{BetaSchedule, FinalSigma, Interpolation, SchedulerConfig, TimestepType};
use super::timesteps::{linspace, timesteps};
use super::{Prediction, SamplerKind, ScheduleError, SigmaCurve, betas};

/// Timesteps and noise levels at which the steps begin, and the level at which the last one ends.
pub(super) struct Grid {
    pub(super) timesteps: Vec<f64>,
    /// One more than `timesteps` (two more with [`Interpolation::LogLinear`]); values rounded to f32.
    pub(super) sigmas: Vec<f64>,
}

/// Computes the grid of a sampler over sigma.
pub(super) fn grid(config: &SchedulerConfig, steps: usize, alphas: &[f32]) -> Result<Grid, ScheduleError> {
    let levels = Levels::new(alphas);
    let mut timesteps = timesteps(config, steps, used_training_steps(config, alphas)?);
    let mut sigmas: Vec<f64> = timesteps.iter().map(|timestep| levels.sigma(*timestep)).collect();
    if matches!(config.kind, SamplerKind::Euler(_)) && config.interpolation_type == Some(Interpolation::LogLinear) {
        sigmas = log_linear(&levels, steps);
    }

    let multistep =
        matches!(config.kind, SamplerKind::DpmPlusPlus2M(_) | SamplerKind::DpmPlusPlus2MSde(_) | SamplerKind::UniPc(_));
    let curve = config.kind.curve();
    let lu = config.use_lu_lambdas == Some(true) && multistep && !matches!(config.kind, SamplerKind::UniPc(_));
    if curve != SigmaCurve::Table || lu {
        // The curves of multistep solvers span all training levels, those of other samplers the range of their
        // timesteps.
        let (max, min) = if multistep { levels.ends() } else { (sigmas[0], sigmas[sigmas.len() - 1]) };
        // diffusers' LMS ignores `sigma_min` and `sigma_max` for the Karras curve.
        let own_ends = matches!((config.kind, curve), (SamplerKind::Lms(_), SigmaCurve::Karras));
        let max = config.sigma_max.filter(|_| !own_ends).unwrap_or(max);
        let min = config.sigma_min.filter(|_| !own_ends).unwrap_or(min);
        sigmas = match curve {
            SigmaCurve::Karras => karras(max, min, steps),
            SigmaCurve::Beta => beta(max, min, steps),
            SigmaCurve::Exponential => linspace(max.ln(), min.ln(), steps).into_iter().map(f64::exp).collect(),
            SigmaCurve::Table => {
                let (max, min) = levels.log_ends();
                linspace(max, min, steps).into_iter().map(f64::exp).collect()
            }
        };
        let round = rounding(config, lu && curve == SigmaCurve::Table);
        timesteps = sigmas.iter().map(|sigma| round(levels.timestep(*sigma))).collect();
    }

    sigmas.push(final_sigma(config, &levels, sigmas[sigmas.len() - 1]));
    let sigmas: Vec<f64> = sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).collect();
    if let Some(bad) = sigmas.iter().find(|sigma| !sigma.is_finite()) {
        let expected = "betas that leave some signal at every step";
        return Err(ScheduleError::field("beta_schedule", format!("a noise level of {bad}"), expected));
    }
    if let (SamplerKind::Euler(_), Some(TimestepType::Continuous), Prediction::Velocity) =
        (config.kind, config.timestep_type, config.prediction)
    {
        let told = |sigma: &f64| f64::from(0.25 * (sigma.ln() as f32));
        timesteps = sigmas[..sigmas.len() - 1].iter().map(told).collect();
    }
    Ok(Grid { timesteps, sigmas })
}

/// Returns the number of training steps with `ln(alpha / sigma)` above `lambda_min_clipped`.
fn used_training_steps(config: &SchedulerConfig, alphas: &[f32]) -> Result<usize, ScheduleError> {
    let limit = match (config.kind, config.lambda_min_clipped) {
        (SamplerKind::DpmPlusPlus2M(_) | SamplerKind::DpmPlusPlus2MSde(_), Some(limit)) => limit,
        _ => return Ok(alphas.len()),
    };
    let lambda = |alpha: f32| 0.5 * (f64::from(alpha) / f64::from(1.0 - alpha)).ln();
    let clipped = alphas.iter().rev().take_while(|alpha| lambda(**alpha) < limit).count();
    if clipped + 1 >= alphas.len() {
        let expected = "a limit that leaves two or more training steps";
        return Err(ScheduleError::field("lambda_min_clipped", limit, expected));
    }
    Ok(alphas.len() - clipped)
}

/// Returns how each sampler rounds a timestep between two training steps.
fn rounding(config: &SchedulerConfig, lu: bool) -> fn(f64) -> f64 {
    let cosine = config.betas().2 == BetaSchedule::SquaredCos;
    match (config.kind, config.kind.curve()) {
        (SamplerKind::DpmPlusPlus2M(_) | SamplerKind::DpmPlusPlus2MSde(_), curve) => {
            if (curve == SigmaCurve::Karras || lu) && !cosine { f64::round_ties_even } else { f64::trunc }
        }
        (SamplerKind::UniPc(_), SigmaCurve::Karras) => f64::round_ties_even,
        (SamplerKind::UniPc(_), _) => f64::trunc,
        (SamplerKind::Kdpm2(_), SigmaCurve::Karras) => f64::round_ties_even,
        (SamplerKind::Kdpm2(_) | SamplerKind::DpmPlusPlusSde(_), _) => |timestep| timestep,
        _ => |timestep| f64::from(timestep as f32),
    }
}

fn final_sigma(config: &SchedulerConfig, levels: &Levels, last: f64) -> f64 {
    let smallest = match config.kind {
        SamplerKind::UniPc(SigmaCurve::Table)
        | SamplerKind::Euler(_)
        | SamplerKind::DpmPlusPlus2M(_)
        | SamplerKind::DpmPlusPlus2MSde(_) => levels.ends().1,
        SamplerKind::UniPc(_) => last,
        _ => return 0.0,
    };
    if config.final_sigma() == FinalSigma::SigmaMin { smallest } else { 0.0 }
}

/// NumPy's logarithm of an f32: a rational function of `mantissa - 1` that rounds differently from the exact
/// logarithm in one case of twelve. The difference shows in samplers that truncate timesteps instead of rounding
/// them.
fn ln_as_numpy(x: f32) -> f32 {
    const P: [f32; 6] = [0.0, 1.0, 2.112_677_6, 1.480_000_6, 3.808_837_8e-1, 2.589_979_2e-2];
    const Q: [f32; 6] = [1.0, 2.612_677_6, 2.453_006, 9.864_943e-1, 1.546_476_4e-1, 5.875_095_4e-3];
    if !x.is_normal() || x < 0.0 {
        return x.ln();
    }
    let (mut exponent, mut mantissa) =
        ((x.to_bits() >> 23) as i32 - 127, f32::from_bits(x.to_bits() & 0x007f_ffff | 0x3f80_0000));
    if mantissa > std::f32::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let y = mantissa - 1.0;
    let horner = |c: &[f32; 6]| c.iter().rev().fold(0.0_f32, |sum, c| sum.mul_add(y, *c));
    (exponent as f32).mul_add(std::f32::consts::LN_2, horner(&P) / horner(&Q))
}

/// The training levels `sigma / alpha` in f32, and their logarithms.
pub(super) struct Levels {
    sigmas: Vec<f32>,
    logs: Vec<f32>,
}

impl Levels {
    pub(super) fn new(alphas: &[f32]) -> Self {
        let sigmas: Vec<f32> = alphas.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
        let logs = sigmas.iter().map(|sigma| ln_as_numpy(*sigma)).collect();
        Self { sigmas, logs }
    }

    /// Returns the largest and the smallest level.
    fn ends(&self) -> (f64, f64) {
        (f64::from(self.sigmas[self.sigmas.len() - 1]), f64::from(self.sigmas[0]))
    }

    fn log_ends(&self) -> (f64, f64) {
        (f64::from(self.logs[self.logs.len() - 1]), f64::from(self.logs[0]))
    }

    /// Returns the level at a timestep, linear between two training steps (NumPy's `interp`).
    fn sigma(&self, timestep: f64) -> f64 {
        let below = (timestep.max(0.0).floor() as usize).min(self.sigmas.len() - 1);
        let from = f64::from(self.sigmas[below]);
        match self.sigmas.get(below + 1) {
            Some(to) => (f64::from(*to) - from) * (timestep - below as f64) + from,
            None => from,
        }
    }

    /// Returns the timestep of a level, linear in `ln sigma` (diffusers' `_sigma_to_t`).
    pub(super) fn timestep(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        // A binary search would be wrong: with zero terminal SNR the last, capped level can be below the one
        // before.
        let below = self.logs.iter().rposition(|level| f64::from(*level) <= log);
        let low = below.unwrap_or(0).min(self.logs.len().saturating_sub(2));
        let Some(high) = self.logs.get(low + 1) else { return 0.0 };
        let part = (f64::from(self.logs[low]) - log) / f64::from(self.logs[low] - high);
        let part = part.clamp(0.0, 1.0);
        (1.0 - part) * low as f64 + part * (low + 1) as f64
    }
}

/// Returns levels evenly spaced in `ln sigma` over all training levels, one more than steps (PyTorch in f32).
fn log_linear(levels: &Levels, steps: usize) -> Vec<f64> {
    let (max, min) = levels.log_ends();
    betas::linspace(max, min, steps + 1).into_iter().map(|log| f64::from(f64::from(log).exp() as f32)).collect()
}

fn karras(max: f64, min: f64, steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let (max, min) = (max.powf(1.0 / RHO), min.powf(1.0 / RHO));
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| (max + ramp * (min - max)).powf(RHO)).collect()
}

fn beta(max: f64, min: f64, steps: usize) -> Vec<f64> {
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| min + beta_quantile(1.0 - ramp) * (max - min)).collect()
}

/// Returns a quantile of the distribution Beta(0.6, 0.6).
///
/// With `x = sin²(angle)` the mass grows as `sin(2 angle)^0.2`. Substituting `angle = u^5` makes the density
/// smooth at 0 as well, so that Gauss-Legendre quadrature is exact to ten digits. The quantile is found by
/// bisection; by symmetry the lower half suffices.
fn beta_quantile(probability: f64) -> f64 {
    if probability > 0.5 {
        return 1.0 - beta_quantile(1.0 - probability);
    }
    let density = |u: f64| u.powi(4) * (2.0 * u.powi(5)).sin().max(0.0).powf(0.2);
    let mass = |end: f64| {
        const PARTS: usize = 48;
        let half = 0.5 * end / PARTS as f64;
        let part = |i: usize| {
            let (middle, offset) = ((2 * i + 1) as f64 * half, 0.6_f64.sqrt() * half);
            5.0 * (density(middle - offset) + density(middle + offset)) + 8.0 * density(middle)
        };
        (0..PARTS).map(part).sum::<f64>() * half
    };
    let middle = FRAC_PI_4.powf(0.2);
    let expected = 2.0 * probability * mass(middle);
    let (mut low, mut high) = (0.0, middle);
    for _ in 0..52 {
        let guess = 0.5 * (low + high);
        if mass(guess) < expected { low = guess } else { high = guess }
    }
    (0.5 * (low + high)).powi(5).sin().powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_beta_are_scipys() {
        // scipy.stats.beta.ppf(p, 0.6, 0.6)
        let published = [
            (0.0, 0.0),
            (0.01, 0.0008612388215429059),
            (0.25, 0.17568037865269498),
            (0.4, 0.3627009907532143),
            (0.9, 0.9604155944112192),
            (1.0, 1.0),
        ];
        for (probability, expected) in published {
            let got = beta_quantile(probability);
            assert!((got - expected).abs() < 1e-9, "{probability}: {got}, expected {expected}");
        }
    }

    #[test]
    fn a_training_level_has_its_own_timestep() {
        let alphas = betas::cumulative_alphas(&SchedulerConfig::default()).unwrap();
        let levels = Levels::new(&alphas);
        for timestep in [0.0, 1.0, 500.0, 998.0, 999.0] {
            assert!((levels.timestep(levels.sigma(timestep)) - timestep).abs() < 1e-3, "{timestep}");
        }
    }
}
