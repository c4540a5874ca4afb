//! Trajectory consistency distillation.

use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;

/// Jumps along the predicted trajectory to a level below the next one, then adds fresh noise up to the next level (Zheng
/// et al. 2024, "strategic stochastic sampling"). `eta`, the paper's gamma, says how far below: at 0 the run is
/// deterministic, at 1 each step starts from the clean estimate, as in [`lcm`](super::lcm).
pub(super) fn tcd(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    let gamma = run.config().eta.unwrap_or(0.3);
    let levels = run.schedule().levels();
    for i in 0..levels.len() {
        let next = levels.get(i + 1);
        let next_timestep = next.map_or(0.0, |level| level.timestep);
        // In f32, as in the published code, whose integer tensor becomes one of f32 here.
        let lower = ((1.0 - gamma) as f32 * next_timestep as f32).floor();
        let to = run.schedule().level_at(lower as i64);
        let (denoised, noise) = run.split(&x)?;
        x = denoised * to.alpha + noise * to.sigma;
        if let Some(next) = next.filter(|_| gamma > 0.0) {
            let kept = next.alpha / to.alpha;
            x = x.clone() * kept + run.draw(&x)? * (1.0 - kept.powi(2)).max(0.0).sqrt();
        }
        x = run.report(x)?;
    }
    Ok(x)
}
