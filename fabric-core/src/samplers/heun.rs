use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;

/// Euler step, repeated with the mean of the slopes at both ends (Karras et al. 2022, algorithm 1 without churn).
///
/// The last step, to sigma 0, has no slope at its end and remains an Euler step.
pub(super) fn heun(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    for step in run.schedule().boundaries().windows(2) {
        let (sigma, next) = (step[0], step[1]);
        let denoised = run.denoise(&x)?;
        let slope = (x.clone() - denoised) / sigma;
        let euler = run.report(x.clone() + slope.clone() * (next - sigma))?;
        if next == 0.0 {
            return Ok(euler);
        }
        let denoised = run.denoise(&euler)?;
        let slope_at_end = (euler - denoised) / next;
        x = x + (slope + slope_at_end) * (0.5 * (next - sigma));
        x = run.report(x)?;
    }
    Ok(x)
}
