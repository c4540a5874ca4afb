use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;

/// Midpoint method: uses the slope halfway in `ln sigma` for the whole step (DPM-Solver-2 of Lu et al. 2022 as
/// k-diffusion writes it).
///
/// The last step, to sigma 0, has no midpoint and is an Euler step.
pub(super) fn kdpm2(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    for step in run.schedule().boundaries().windows(2) {
        let (sigma, next) = (step[0], step[1]);
        let middle = (sigma * next).sqrt();
        let denoised = run.denoise(&x)?;
        let slope = (x.clone() - denoised) / sigma;
        let halfway = run.report(x.clone() + slope * (middle - sigma))?;
        if next == 0.0 {
            return Ok(halfway);
        }
        let denoised = run.denoise(&halfway)?;
        let slope = (halfway - denoised) / middle;
        x = x + slope * (next - sigma);
        x = run.report(x)?;
    }
    Ok(x)
}
