use burn::tensor::Tensor;

use super::SamplerRun;
use crate::Error;
use crate::schedule::Variance;

/// Samples the posterior of the Markov chain, step by step (Ho et al. 2020, equations 6 and 7).
pub(super) fn ddpm(run: &mut SamplerRun<'_>, mut x: Tensor<4>) -> Result<Tensor<4>, Error> {
    let levels = run.schedule().levels();
    for (i, from) in levels.iter().enumerate() {
        let to = levels.get(i + 1).copied().unwrap_or_else(|| run.schedule().level_at(-1));
        let kept = (from.alpha / to.alpha).powi(2);
        let beta = 1.0 - kept;
        let shrink = (to.sigma / from.sigma).powi(2);

        let denoised = run.denoise(&x)?;
        x = denoised * (to.alpha * beta / from.sigma.powi(2)) + x * (kept.sqrt() * shrink);
        // Noise is omitted only at training step 0: a last step from step 1 draws noise, with a variance of
        // 1e-20.
        if from.timestep > 0.0 {
            let variance = match run.config().variance_type.unwrap_or_default() {
                Variance::Small | Variance::SmallLog => (shrink * beta).max(1e-20),
                Variance::Large => beta,
            };
            x = x.clone() + run.draw(&x)? * variance.sqrt();
        }
        x = run.report(x)?;
    }
    Ok(x)
}
