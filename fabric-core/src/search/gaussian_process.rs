//! Gaussian process regression on scores.

use std::f64::consts::TAU;

use super::Surrogate;
use super::cholesky::{Cholesky, dot};
use super::kernel::{covariance_matrix, covariances, matern52};
use super::lengthscales::{default_lengthscales, improved_by_dimension, most_probable_shared};
use super::surrogate::check_points;
use crate::InvalidValue;

/// Largest magnitude of a target, so that squares of targets are finite.
pub(super) const MAX_TARGET: f64 = 1e100;
/// Variances of the noise on targets that are tried, as shares of the variance of the function.
const NOISES: [f64; 5] = [1e-6, 1e-4, 1e-2, 1e-1, 1.0];
/// Limits of the variance of the function, in units of the variance of the targets.
const SIGNAL_LIMITS: [f64; 2] = [0.01, 100.0];
/// Standard deviation of targets, relative to their mean, below which they are constant but for rounding.
const CONSTANT: f64 = 1e-12;

/// Gaussian process with a Matern 5/2 kernel and a lengthscale for each dimension (Rasmussen and Williams 2006,
/// chapters 2 and 5).
///
/// Targets are standardised. Lengthscales and noise are the most probable ones of a coordinate search: the marginal
/// likelihood times a weak prior on the lengthscales. The variance of the function maximises the marginal likelihood in
/// closed form. All of it is deterministic. A fit takes about a hundred Cholesky factorisations of a matrix with a row
/// for each point.
///
/// ```
/// use fabric_core::search::{GaussianProcess, Surrogate};
///
/// let points = [vec![0.0], vec![0.2], vec![0.4], vec![0.6]];
/// let model = GaussianProcess::fit(&points, &[0.0, 0.4, 0.8, 1.2])?;
/// assert!((model.mean(&[0.3]) - 0.6).abs() < 0.05);
/// assert!(model.variance(&[1.0]) > model.variance(&[0.3]));
/// # Ok::<(), fabric_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
pub struct GaussianProcess {
    points: Vec<Vec<f64>>,
    lengthscales: Vec<f64>,
    noise: f64,
    /// Variance of the function, in squared units of the targets.
    variance: f64,
    mean: f64,
    factor: Cholesky,
    /// Factors of the covariances with the points in the posterior mean, in units of the targets.
    weights: Vec<f64>,
    log_marginal_likelihood: f64,
}

/// Observations with standardised targets.
struct Data<'a> {
    points: &'a [Vec<f64>],
    dims: usize,
    mean: f64,
    scale: f64,
    is_constant: bool,
    /// Targets less their mean, divided by `scale`.
    standard: Vec<f64>,
}

/// Fit of a Gaussian process with given lengthscales and noise to standardised targets.
struct Evidence {
    factor: Cholesky,
    variance: f64,
    log_likelihood: f64,
}

impl GaussianProcess {
    /// Fits a process to the targets at points.
    ///
    /// If all targets are equal, the prediction is this value everywhere. Its variance away from the points is then not
    /// known from the targets: the standard deviation is taken to be the magnitude of the value, at least 1.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no points, the numbers of points, coordinates or targets differ, a coordinate is
    /// not finite, or a target is not finite or above 1e100 in magnitude.
    pub fn fit(points: &[Vec<f64>], targets: &[f64]) -> Result<Self, InvalidValue> {
        let data = Data::new(points, targets)?;
        if data.is_constant {
            return Ok(data.fitted(default_lengthscales(data.dims), NOISES[0]));
        }
        let shared = |noise: f64| {
            (most_probable_shared(data.dims, |lengthscales| data.evidence(lengthscales, noise).log_likelihood), noise)
        };
        let best = NOISES.into_iter().map(shared).max_by(|(a, _), (b, _)| a.log_posterior.total_cmp(&b.log_posterior));
        let (start, noise) = best.expect("there are noises to try");
        let log_likelihood = |lengthscales: &[f64]| data.evidence(lengthscales, noise).log_likelihood;
        Ok(data.fitted(improved_by_dimension(start, log_likelihood).lengthscales, noise))
    }

    /// Fits a process with these lengthscales, one for each dimension, and almost no noise.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::fit`], and an error if there is not one positive, finite lengthscale for each
    /// dimension.
    pub fn with_lengthscales(points: &[Vec<f64>], targets: &[f64], lengthscales: &[f64]) -> Result<Self, InvalidValue> {
        let data = Data::new(points, targets)?;
        let usable = lengthscales.iter().all(|value| value.is_finite() && *value > 0.0);
        if lengthscales.len() != data.dims || !usable {
            return Err(InvalidValue::new(
                "lengthscales of a Gaussian process",
                format!("{lengthscales:?}"),
                format!("{} positive numbers", data.dims),
                "give one for each coordinate",
            ));
        }
        Ok(data.fitted(lengthscales.to_vec(), NOISES[0]))
    }

    /// The lengthscale of each dimension, in units of the cube. The function varies fastest along the smallest.
    pub fn lengthscales(&self) -> &[f64] {
        &self.lengthscales
    }

    /// The variance of the noise on targets, as a share of the variance of the function.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// The log marginal likelihood of the standardised targets, without the prior on lengthscales.
    pub fn log_marginal_likelihood(&self) -> f64 {
        self.log_marginal_likelihood
    }
}

impl Surrogate for GaussianProcess {
    fn mean(&self, at: &[f64]) -> f64 {
        self.mean + dot(&covariances(&self.lengthscales, &self.points, at), &self.weights)
    }

    fn covariance(&self, a: &[f64], b: &[f64]) -> f64 {
        let explained = |at: &[f64]| self.factor.solve_lower(&covariances(&self.lengthscales, &self.points, at));
        self.variance * (matern52(&self.lengthscales, a, b) - dot(&explained(a), &explained(b)))
    }
}

impl<'a> Data<'a> {
    fn new(points: &'a [Vec<f64>], targets: &[f64]) -> Result<Self, InvalidValue> {
        let dims = check_points(points)?;
        if targets.len() != points.len() {
            return Err(InvalidValue::new(
                "targets of a Gaussian process",
                targets.len(),
                format!("{}, one for each point", points.len()),
                "give a target for each point",
            ));
        }
        if let Some(target) = targets.iter().find(|target| !(-MAX_TARGET..=MAX_TARGET).contains(*target)) {
            return Err(InvalidValue::new(
                "target of a Gaussian process",
                target,
                "a finite number of magnitude at most 1e100",
                "leave out points without a target",
            ));
        }
        let count = targets.len() as f64;
        let mean = targets.iter().sum::<f64>() / count;
        let deviation = (targets.iter().map(|target| (target - mean).powi(2)).sum::<f64>() / count).sqrt();
        let is_constant = deviation <= CONSTANT * mean.abs();
        let scale = if is_constant { mean.abs().max(1.0) } else { deviation };
        let standardise = |target: &f64| if is_constant { 0.0 } else { (target - mean) / scale };
        let standard = targets.iter().map(standardise).collect();
        Ok(Self { points, dims, mean, scale, is_constant, standard })
    }

    fn evidence(&self, lengthscales: &[f64], noise: f64) -> Evidence {
        let factor = Cholesky::new(&covariance_matrix(lengthscales, self.points, noise));
        let whitened = factor.solve_lower(&self.standard);
        let squares = dot(&whitened, &whitened);
        let count = self.standard.len() as f64;
        let [low, high] = SIGNAL_LIMITS;
        // The variance with the greatest likelihood, which would be 0 for constant targets.
        let variance = if self.is_constant { 1.0 } else { (squares / count).clamp(low, high) };
        let log_likelihood = -0.5 * (squares / variance + count * (TAU * variance).ln() + factor.log_determinant());
        Evidence { factor, variance, log_likelihood }
    }

    fn fitted(&self, lengthscales: Vec<f64>, noise: f64) -> GaussianProcess {
        let Evidence { factor, variance, log_likelihood } = self.evidence(&lengthscales, noise);
        let weights = factor.solve(&self.standard).into_iter().map(|weight| weight * self.scale).collect();
        GaussianProcess {
            points: self.points.to_vec(),
            lengthscales,
            noise,
            variance: variance * self.scale * self.scale,
            mean: self.mean,
            factor,
            weights,
            log_marginal_likelihood: log_likelihood,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64]) -> Vec<Vec<f64>> {
        values.iter().map(|value| vec![*value]).collect()
    }

    #[test]
    fn the_mean_interpolates_and_the_variance_grows_away_from_the_points() {
        let points = line(&[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]);
        let targets: Vec<f64> = points.iter().map(|point| (6.0 * point[0]).sin()).collect();
        let model = GaussianProcess::fit(&points, &targets).unwrap();
        for (point, target) in points.iter().zip(&targets) {
            assert!((model.mean(point) - target).abs() < 0.01, "{point:?}");
            assert!(model.variance(point) < 1e-3, "{point:?}");
        }
        assert!((model.mean(&[0.25]) - 1.5_f64.sin()).abs() < 0.02);
        let variances: Vec<f64> = [0.5, 0.6, 0.75, 1.0].iter().map(|at| model.variance(&[*at])).collect();
        assert!(variances.is_sorted() && variances[3] > 100.0 * variances[0].max(1e-6), "{variances:?}");
    }

    #[test]
    fn the_likelihood_prefers_the_right_lengthscale() {
        // A function that varies along the first dimension only.
        let points: Vec<Vec<f64>> = (0..36).map(|at| vec![f64::from(at % 6) / 5.0, f64::from(at / 6) / 5.0]).collect();
        let targets: Vec<f64> = points.iter().map(|point| (5.0 * point[0]).sin()).collect();
        let likelihood = |lengthscales: [f64; 2]| {
            GaussianProcess::with_lengthscales(&points, &targets, &lengthscales).unwrap().log_marginal_likelihood()
        };
        assert!(likelihood([0.4, 10.0]) > likelihood([10.0, 0.4]) + 10.0);
        assert!(likelihood([0.4, 10.0]) > likelihood([0.4, 0.4]) + 10.0);
        let model = GaussianProcess::fit(&points, &targets).unwrap();
        assert!(model.lengthscales()[1] > 3.0 * model.lengthscales()[0], "{:?}", model.lengthscales());
    }

    #[test]
    fn the_likelihood_falls_towards_shorter_and_longer_lengthscales() {
        let points: Vec<Vec<f64>> = (0..20).map(|at| vec![f64::from(at) / 19.0]).collect();
        let targets: Vec<f64> = points.iter().map(|point| (5.0 * point[0]).sin()).collect();
        let likelihood = |lengthscale: f64| {
            GaussianProcess::with_lengthscales(&points, &targets, &[lengthscale]).unwrap().log_marginal_likelihood()
        };
        assert!(likelihood(0.5) > likelihood(0.1) + 10.0 && likelihood(0.1) > likelihood(0.02) + 10.0);
        assert!(likelihood(0.5) > likelihood(2.0) + 3.0 && likelihood(2.0) > likelihood(8.0) + 10.0);
    }

    #[test]
    fn noise_is_recognised_and_smoothed() {
        let points: Vec<Vec<f64>> = (0..30).map(|at| vec![f64::from(at) / 29.0]).collect();
        let noise = |index: usize| if index.is_multiple_of(2) { -0.5 } else { 0.5 };
        let targets: Vec<f64> =
            points.iter().enumerate().map(|(index, point)| (5.0 * point[0]).sin() + noise(index)).collect();
        let model = GaussianProcess::fit(&points, &targets).unwrap();
        for at in [0.1, 0.3, 0.5, 0.9_f64] {
            assert!((model.mean(&[at]) - (5.0 * at).sin()).abs() < 0.35, "{at}");
        }
        assert!(model.noise() > 0.05, "{}", model.noise());
    }

    #[test]
    fn constant_targets_give_a_constant_with_a_large_variance() {
        for value in [0.0, 5.0, -1e-9, 1e99] {
            let model = GaussianProcess::fit(&line(&[0.0, 0.1, 0.2]), &[value; 3]).unwrap();
            assert!((model.mean(&[0.7]) - value).abs() <= 1e-9 * value.abs(), "{value}");
            assert!(model.variance(&[1.0]) > 0.1 * value.abs().max(1.0), "{value}");
            assert!(model.log_marginal_likelihood().is_finite());
        }
    }

    #[test]
    fn one_point_is_enough() {
        let model = GaussianProcess::fit(&line(&[0.3]), &[2.0]).unwrap();
        assert_eq!(model.mean(&[0.9]), 2.0);
        assert!(model.variance(&[0.9]) > model.variance(&[0.3]));
    }

    #[test]
    fn unusable_observations_are_refused() {
        let points = line(&[0.0, 1.0]);
        let refused = |points: &[Vec<f64>], targets: &[f64]| GaussianProcess::fit(points, targets).unwrap_err();
        assert!(refused(&[], &[]).to_string().contains("at least 1 point"));
        assert!(refused(&points, &[1.0]).to_string().contains("one for each point"));
        assert!(refused(&points, &[1.0, f64::NAN]).to_string().contains("got NaN"));
        assert!(refused(&points, &[1.0, f64::NEG_INFINITY]).to_string().contains("got -inf"));
        assert!(refused(&[vec![0.0], vec![0.0, 1.0]], &[1.0, 2.0]).to_string().contains("point 1"));
        assert!(refused(&[vec![f64::NAN]], &[1.0]).to_string().contains("point 0"));
        let unusable: [&[f64]; 4] = [&[], &[0.0], &[f64::NAN], &[1.0, 1.0]];
        for lengthscales in unusable {
            assert!(GaussianProcess::with_lengthscales(&points, &[1.0, 2.0], lengthscales).is_err());
        }
    }
}
