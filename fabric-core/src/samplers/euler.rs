use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;

/// Euler steps of the probability-flow equation (Karras et al. 2022, `dx/dsigma = (x - denoised) / sigma`).
pub(super) fn euler(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    for step in run.schedule().boundaries().windows(2) {
        let (sigma, next) = (step[0], step[1]);
        let denoised = run.denoise(&x)?;
        let slope = (x.clone() - denoised) / sigma;
        x = x + slope * (next - sigma);
        x = run.report(x)?;
    }
    Ok(x)
}

/// Euler step to below the next level, then fresh noise to return to it.
pub(super) fn euler_ancestral(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    for step in run.schedule().boundaries().windows(2) {
        let (sigma, next) = (step[0], step[1]);
        let (down, up) = ancestral(sigma, next);
        let denoised = run.denoise(&x)?;
        let slope = (x.clone() - denoised) / sigma;
        x = x + slope * (down - sigma);
        // Noise is drawn even if its amplitude is 0, as published, so that seeds give the same images.
        x = x.clone() + run.draw(&x)? * up;
        x = run.report(x)?;
    }
    Ok(x)
}

/// Returns the level of the Euler step and the amplitude of the noise that returns to `next`.
pub(super) fn ancestral(sigma: f64, next: f64) -> (f64, f64) {
    let up = next * (1.0 - (next / sigma).powi(2)).max(0.0).sqrt();
    let down = (next.powi(2) - up.powi(2)).max(0.0).sqrt();
    (down, up)
}
