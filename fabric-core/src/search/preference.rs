//! Gaussian process on comparisons of points.

use serde::{Deserialize, Serialize};

use super::Surrogate;
use super::cholesky::{Cholesky, dot};
use super::kernel::{covariance_matrix, covariances, matern52};
use super::lengthscales::{default_lengthscales, most_probable_shared};
use super::normal::{ln_distribution, ln_distribution_slope};
use super::surrogate::check_points;
use crate::InvalidValue;

/// Standard deviation of the noise on the value of a point in one comparison, relative to the standard deviation of the
/// values: people are not exact judges. With less noise, a few comparisons bend the values so much that searches
/// converge more slowly.
const NOISE: f64 = 0.3;
/// Value on the diagonal of the prior covariance, against rounding errors.
const DIAGONAL: f64 = 1e-8;
/// Maximum number of Newton steps. The likelihood is log-concave: about ten are needed.
const MAX_NEWTON_STEPS: usize = 50;
/// Maximum number of times that a Newton step is halved.
const MAX_HALVINGS: i32 = 20;
/// Squared length of a Newton step, in the metric of the curvature, at which the iteration ends.
const CONVERGED: f64 = 1e-9;

/// Comparison of two points, by their indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Index of the preferred point.
    pub preferred: usize,
    /// Index of the other point.
    pub other: usize,
}

/// Gaussian process whose values explain which of two points a person prefers (Chu and Ghahramani 2005).
///
/// The values have variance 1 and a Matern 5/2 kernel. The probability of a comparison is the normal distribution
/// function of the difference of the two values, divided by its noise. The posterior is the Laplace approximation at
/// its maximum, which Newton's method finds. All dimensions share a lengthscale, the most probable one of a few:
/// comparisons hold too little information for one per dimension. Values have no unit; only their differences mean
/// something.
///
/// A fit takes some tens of Newton steps, each with a Cholesky factorisation of a matrix with a row for each point.
///
/// ```
/// use fabric_core::search::{Comparison, PreferenceModel, Surrogate};
///
/// let points = [vec![0.1], vec![0.5], vec![0.9]];
/// let comparisons = [Comparison { preferred: 1, other: 0 }, Comparison { preferred: 1, other: 2 }];
/// let model = PreferenceModel::fit(&points, &comparisons)?;
/// assert!(model.mean(&[0.5]) > model.mean(&[0.1]));
/// # Ok::<(), fabric_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
pub struct PreferenceModel {
    points: Vec<Vec<f64>>,
    lengthscales: Vec<f64>,
    posterior: Posterior,
    /// Factors of the covariances with the points in the posterior mean.
    weights: Vec<f64>,
}

/// Laplace approximation of the posterior, in coordinates in which the prior is standard normal: the values at the
/// points are `prior * whitened`.
#[derive(Debug, Clone)]
struct Posterior {
    /// Factor of the prior covariance of the points.
    prior: Cholesky,
    /// The most probable coordinates.
    whitened: Vec<f64>,
    /// Factor of the inverse covariance of the coordinates.
    curvature: Cholesky,
    /// Approximate log marginal likelihood of the comparisons.
    log_likelihood: f64,
}

impl PreferenceModel {
    /// Fits a model to comparisons of points. Without comparisons it is the prior: all points have value 0.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no points, their numbers of coordinates differ, a coordinate is not finite, or a
    /// comparison is not of two different points.
    pub fn fit(points: &[Vec<f64>], comparisons: &[Comparison]) -> Result<Self, InvalidValue> {
        let dims = check_points(points)?;
        for Comparison { preferred, other } in comparisons {
            if preferred == other || *preferred.max(other) >= points.len() {
                return Err(InvalidValue::new(
                    "comparison of two points",
                    format!("indices {preferred} and {other}"),
                    format!("two different indices below {}", points.len()),
                    "compare points of the model",
                ));
            }
        }
        let lengthscales = if comparisons.is_empty() {
            default_lengthscales(dims)
        } else {
            let log_likelihood =
                |lengthscales: &[f64]| Posterior::new(points, comparisons, lengthscales).log_likelihood;
            most_probable_shared(dims, log_likelihood).lengthscales
        };
        let posterior = Posterior::new(points, comparisons, &lengthscales);
        let weights = posterior.prior.solve_transposed(&posterior.whitened);
        Ok(Self { points: points.to_vec(), lengthscales, posterior, weights })
    }

    /// The lengthscale of each dimension, in units of the cube.
    pub fn lengthscales(&self) -> &[f64] {
        &self.lengthscales
    }
}

impl Surrogate for PreferenceModel {
    fn mean(&self, at: &[f64]) -> f64 {
        dot(&covariances(&self.lengthscales, &self.points, at), &self.weights)
    }

    fn covariance(&self, a: &[f64], b: &[f64]) -> f64 {
        let Posterior { prior, curvature, .. } = &self.posterior;
        let whitened = |at: &[f64]| prior.solve_lower(&covariances(&self.lengthscales, &self.points, at));
        let (a_whitened, b_whitened) = (whitened(a), whitened(b));
        // The part that the values at the points explain, and the part of it that the comparisons leave open.
        let explained = dot(&a_whitened, &b_whitened);
        let open = dot(&curvature.solve_lower(&a_whitened), &curvature.solve_lower(&b_whitened));
        matern52(&self.lengthscales, a, b) - explained + open
    }
}

impl Posterior {
    fn new(points: &[Vec<f64>], comparisons: &[Comparison], lengthscales: &[f64]) -> Self {
        let prior = Cholesky::new(&covariance_matrix(lengthscales, points, DIAGONAL));
        let differences = differences(&prior, points.len(), comparisons);
        let objective = |whitened: &[f64]| {
            let comparisons = differences.iter().map(|difference| ln_distribution(dot(difference, whitened)));
            comparisons.sum::<f64>() - 0.5 * dot(whitened, whitened)
        };
        let mut whitened = vec![0.0; points.len()];
        let mut highest = objective(&whitened);
        for _ in 0..MAX_NEWTON_STEPS {
            let (gradient, curvature) = derivatives(&differences, &whitened);
            let step = curvature.solve(&gradient);
            if dot(&step, &gradient) < CONVERGED {
                break;
            }
            let shortened = |halvings: i32| {
                let share = 0.5_f64.powi(halvings);
                let next: Vec<f64> = whitened.iter().zip(&step).map(|(value, step)| value + share * step).collect();
                let height = objective(&next);
                (next, height)
            };
            let Some(better) = (0..MAX_HALVINGS).map(shortened).find(|(_, height)| *height > highest) else {
                break;
            };
            (whitened, highest) = better;
        }
        let (_, curvature) = derivatives(&differences, &whitened);
        let log_likelihood = highest - 0.5 * curvature.log_determinant();
        Self { prior, whitened, curvature, log_likelihood }
    }
}

/// Returns, for each comparison, the row whose product with the whitened values is the difference of the two values,
/// divided by the standard deviation of its noise.
fn differences(prior: &Cholesky, count: usize, comparisons: &[Comparison]) -> Vec<Vec<f64>> {
    let slope = 1.0 / (NOISE * std::f64::consts::SQRT_2);
    let row = |comparison: &Comparison| {
        let mut row = vec![0.0; count];
        for (sum, value) in row.iter_mut().zip(prior.row(comparison.preferred)) {
            *sum += slope * value;
        }
        for (sum, value) in row.iter_mut().zip(prior.row(comparison.other)) {
            *sum -= slope * value;
        }
        row
    };
    comparisons.iter().map(row).collect()
}

/// Returns the gradient of the log posterior with respect to the whitened values, and the factor of its negative second
/// derivative.
fn derivatives(differences: &[Vec<f64>], whitened: &[f64]) -> (Vec<f64>, Cholesky) {
    let mut gradient: Vec<f64> = whitened.iter().map(|value| -value).collect();
    let identity = |index: usize| {
        let mut row = vec![0.0; index + 1];
        row[index] = 1.0;
        row
    };
    let mut curvature: Vec<Vec<f64>> = (0..whitened.len()).map(identity).collect();
    for difference in differences {
        let margin = dot(difference, whitened);
        let slope = ln_distribution_slope(margin);
        // Not below 0, but for rounding.
        let weight = (slope * (slope + margin)).max(0.0);
        for (index, left) in difference.iter().enumerate() {
            gradient[index] += slope * left;
            for (value, right) in curvature[index].iter_mut().zip(difference) {
                *value += weight * left * right;
            }
        }
    }
    (gradient, Cholesky::new(&curvature))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Vec<f64>> {
        [0.0, 0.12, 0.3, 0.45, 0.62, 0.7, 0.95, 1.0].iter().map(|value| vec![*value]).collect()
    }

    /// Latent function that the model does not see, with its maximum at 0.6.
    fn latent(at: &[f64]) -> f64 {
        -(at[0] - 0.6).powi(2)
    }

    fn all_comparisons(points: &[Vec<f64>]) -> Vec<Comparison> {
        let pairs = (0..points.len()).flat_map(|preferred| (0..points.len()).map(move |other| (preferred, other)));
        let ordered = pairs.filter(|(preferred, other)| latent(&points[*preferred]) > latent(&points[*other]));
        ordered.map(|(preferred, other)| Comparison { preferred, other }).collect()
    }

    #[test]
    fn points_are_ordered_by_the_latent_function() {
        let points = points();
        let comparisons = all_comparisons(&points);
        let model = PreferenceModel::fit(&points, &comparisons).unwrap();
        for Comparison { preferred, other } in comparisons {
            assert!(model.mean(&points[preferred]) > model.mean(&points[other]), "{preferred} over {other}");
        }
        // Points that were in no comparison.
        assert!(model.mean(&[0.55]) > model.mean(&[0.2]) && model.mean(&[0.65]) > model.mean(&[0.95]));
    }

    #[test]
    fn comparisons_reduce_the_variance_where_they_are() {
        let points = [vec![0.1], vec![0.2]];
        let fit = |comparisons: &[Comparison]| PreferenceModel::fit(&points, comparisons).unwrap();
        let prior = fit(&[]);
        assert!((prior.variance(&[0.1]) - 1.0).abs() < 1e-6 && prior.mean(&[0.1]) == 0.0);
        let model = fit(&[Comparison { preferred: 0, other: 1 }; 5]);
        let difference = |model: &PreferenceModel| {
            model.variance(&points[0]) + model.variance(&points[1]) - 2.0 * model.covariance(&points[0], &points[1])
        };
        let before = 2.0 - 2.0 * matern52(model.lengthscales(), &points[0], &points[1]);
        assert!(difference(&model) < 0.5 * before, "{} of {before}", difference(&model));
        assert!(model.variance(&[1.0]) > 0.5 && model.variance(&[1.0]) <= 1.0 + 1e-9);
    }

    #[test]
    fn contradictory_comparisons_leave_points_equal() {
        let comparisons = [Comparison { preferred: 0, other: 1 }, Comparison { preferred: 1, other: 0 }];
        let model = PreferenceModel::fit(&[vec![0.0], vec![1.0]], &comparisons).unwrap();
        assert!((model.mean(&[0.0]) - model.mean(&[1.0])).abs() < 1e-6);
    }

    #[test]
    fn the_result_is_the_maximum_of_the_posterior() {
        let points = points();
        let comparisons = all_comparisons(&points);
        let posterior = Posterior::new(&points, &comparisons, &[0.4]);
        let differences = differences(&posterior.prior, points.len(), &comparisons);
        let (gradient, _) = derivatives(&differences, &posterior.whitened);
        assert!(gradient.iter().all(|value| value.abs() < 0.01), "{gradient:?}");
    }

    #[test]
    fn unusable_comparisons_are_refused() {
        for (preferred, other) in [(0, 0), (0, 8), (9, 1)] {
            let error = PreferenceModel::fit(&points(), &[Comparison { preferred, other }]).unwrap_err();
            assert!(error.to_string().contains("two different indices below 8"), "{error}");
        }
        assert!(PreferenceModel::fit(&[], &[]).is_err());
    }
}
