//! DDIM.

use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;

/// Moves to the next level along the predicted noise, replacing the share `eta` of it by fresh noise (Song et al.
/// 2020, equations 12 and 16).
pub(super) fn ddim(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    let eta = run.config().eta.unwrap_or(0.0);
    for from in run.schedule().levels() {
        // One stride down, as published, not the next timestep: they differ for `linspace` and odd `trailing`
        // spacing.
        let to = run.schedule().level_at(from.timestep as i64 - run.schedule().stride());
        let variance = (to.sigma / from.sigma).powi(2) * (1.0 - (from.alpha / to.alpha).powi(2));
        let fresh = eta * variance.max(0.0).sqrt();
        let direction = (to.sigma.powi(2) - fresh.powi(2)).max(0.0).sqrt();

        let (denoised, noise) = run.split(&x)?;
        x = denoised * to.alpha + noise * direction;
        if eta > 0.0 {
            x = x.clone() + run.draw(&x)? * fresh;
        }
        x = run.report(x)?;
    }
    Ok(x)
}
