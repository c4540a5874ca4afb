use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;
use crate::schedule::noised;

/// Predicts the clean image, then adds fresh noise at the next level (Luo et al. 2023, algorithm 2).
pub(super) fn lcm(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    let scaling = run.config().timestep_scaling.unwrap_or(10.0);
    let levels = run.schedule().levels();
    for (i, level) in levels.iter().enumerate() {
        let (skip, out) = boundary_condition(level.timestep * scaling);
        let denoised = run.denoise(&x)?;
        x = denoised * out + x * skip;
        if let Some(next) = levels.get(i + 1) {
            let noise = run.draw(&x)?;
            x = noised(x, noise, next);
        }
        x = run.report(x)?;
    }
    Ok(x)
}

/// Returns the factors of the input and of the estimate, which make step 0 the identity (appendix D).
fn boundary_condition(scaled_timestep: f64) -> (f64, f64) {
    const SIGMA_DATA: f64 = 0.5;
    let variance = scaled_timestep.powi(2) + SIGMA_DATA.powi(2);
    (SIGMA_DATA.powi(2) / variance, scaled_timestep / variance.sqrt())
}
