use burn::tensor::Tensor;

use super::SamplerRun;
use super::euler::ancestral;
use crate::Error;

/// DPM-Solver++ for the stochastic equation with a midpoint (k-diffusion's DPM++ SDE, with its `eta` and `r`).
///
/// The noise of the half step is part of the noise of the whole step: both are increments of one Brownian path
/// over sigma.
pub(super) fn dpm_sde(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    for step in run.schedule().boundaries().windows(2) {
        let (sigma, next) = (step[0], step[1]);
        let middle = (sigma * next).sqrt();
        let denoised = run.denoise(&x)?;
        if next == 0.0 {
            return run.report(denoised);
        }
        let first = run.draw(&x)?;
        let (down, up) = ancestral(sigma, middle);
        let halfway = run.report(towards(x.clone(), denoised, down / sigma) + first.clone() * up)?;

        let denoised = run.denoise(&halfway)?;
        let path = first * (sigma - middle).sqrt() + run.draw(&x)? * (middle - next).sqrt();
        let (down, up) = ancestral(sigma, next);
        x = towards(x, denoised, down / sigma) + path * (up / (sigma - next).sqrt());
        x = run.report(x)?;
    }
    Ok(x)
}

/// Moves towards `denoised`, so that the share `keep` of the noise remains.
fn towards(x: Tensor<4>, denoised: Tensor<4>, keep: f64) -> Tensor<4> {
    x * keep + denoised * (1.0 - keep)
}
