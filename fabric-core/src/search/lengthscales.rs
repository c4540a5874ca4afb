//! The choice of lengthscales by their posterior probability.

/// Lengthscales that are tried for all dimensions together, in units of the cube.
const SHARED: [f64; 6] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2];
/// Limits of the lengthscale of one dimension. A dimension at the upper end has next to no influence.
const LIMITS: std::ops::RangeInclusive<f64> = 0.05..=20.0;
/// Factors by which one lengthscale is changed in the search.
const FACTORS: [f64; 2] = [2.0, 0.5];
/// Maximum number of passes over all dimensions.
const PASSES: usize = 3;

/// Lengthscales with their log posterior.
#[derive(Debug, Clone)]
pub(super) struct Fitted {
    pub(super) lengthscales: Vec<f64>,
    pub(super) log_posterior: f64,
}

/// Returns the lengthscales that are most probable before any observation: half the diagonal of the cube.
pub(super) fn default_lengthscales(dims: usize) -> Vec<f64> {
    vec![0.5 * (dims as f64).sqrt(); dims]
}

/// Log density, up to a constant, of a log-normal prior around [`default_lengthscales`] with a deviation of a factor of
/// e. The likelihood of a few observations alone often prefers the smallest or the largest lengthscales.
fn log_prior(lengthscales: &[f64]) -> f64 {
    let expected = default_lengthscales(lengthscales.len());
    let deviations = lengthscales.iter().zip(&expected).map(|(lengthscale, expected)| (lengthscale / expected).ln());
    -0.5 * deviations.map(|deviation| deviation * deviation).sum::<f64>()
}

/// Returns the best lengthscale that all dimensions share, by a log likelihood.
pub(super) fn most_probable_shared(dims: usize, log_likelihood: impl Fn(&[f64]) -> f64) -> Fitted {
    let mut best = Fitted { lengthscales: default_lengthscales(dims), log_posterior: f64::NEG_INFINITY };
    for lengthscale in SHARED {
        let lengthscales = vec![lengthscale; dims];
        let log_posterior = log_likelihood(&lengthscales) + log_prior(&lengthscales);
        if log_posterior > best.log_posterior {
            best = Fitted { lengthscales, log_posterior };
        }
    }
    best
}

/// Improves lengthscales one dimension at a time, until none can be improved or after a few passes.
pub(super) fn improved_by_dimension(start: Fitted, log_likelihood: impl Fn(&[f64]) -> f64) -> Fitted {
    let mut best = start;
    for _ in 0..PASSES {
        let before = best.log_posterior;
        for dimension in 0..best.lengthscales.len() {
            for factor in FACTORS {
                let mut lengthscales = best.lengthscales.clone();
                lengthscales[dimension] *= factor;
                if !LIMITS.contains(&lengthscales[dimension]) {
                    continue;
                }
                let log_posterior = log_likelihood(&lengthscales) + log_prior(&lengthscales);
                if log_posterior > best.log_posterior {
                    best = Fitted { lengthscales, log_posterior };
                    break;
                }
            }
        }
        if best.log_posterior == before {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_climbs_in_each_dimension() {
        let target = [0.2, 3.2];
        let likelihood = |lengthscales: &[f64]| {
            let off = lengthscales.iter().zip(target).map(|(lengthscale, target)| (lengthscale / target).ln());
            -100.0 * off.map(|off| off * off).sum::<f64>()
        };
        let fitted = improved_by_dimension(most_probable_shared(2, likelihood), likelihood);
        for (lengthscale, target) in fitted.lengthscales.iter().zip(target) {
            assert!((lengthscale / target - 1.0).abs() < 1e-12, "{fitted:?}");
        }
    }
}
