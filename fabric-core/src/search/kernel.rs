//! The covariance function of the surrogates.

/// Matern covariance with smoothness 5/2 and variance 1 (Rasmussen and Williams 2006, equation 4.17), with a
/// lengthscale for each dimension.
pub(super) fn matern52(lengthscales: &[f64], a: &[f64], b: &[f64]) -> f64 {
    let scaled = a.iter().zip(b).zip(lengthscales).map(|((a, b), lengthscale)| (a - b) / lengthscale);
    // The limit is far beyond where the covariance is 0, and keeps an infinite distance from giving infinity times 0.
    let distance = (5.0 * scaled.map(|difference| difference * difference).sum::<f64>()).sqrt().min(1e3);
    (1.0 + distance + distance * distance / 3.0) * (-distance).exp()
}

/// Returns the lower triangle of the covariance matrix of points, with `noise` added to the diagonal.
pub(super) fn covariance_matrix(lengthscales: &[f64], points: &[Vec<f64>], noise: f64) -> Vec<Vec<f64>> {
    let row = |(index, point): (usize, &Vec<f64>)| {
        let mut row: Vec<f64> = points[..=index].iter().map(|other| matern52(lengthscales, point, other)).collect();
        row[index] += noise;
        row
    };
    points.iter().enumerate().map(row).collect()
}

/// Returns the covariance of each point with the point `at`.
pub(super) fn covariances(lengthscales: &[f64], points: &[Vec<f64>], at: &[f64]) -> Vec<f64> {
    assert_eq!(at.len(), lengthscales.len(), "coordinates of a point");
    points.iter().map(|point| matern52(lengthscales, point, at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covariance_falls_with_distance_in_lengthscales() {
        let lengthscales = [0.5, 2.0];
        let at = |b: [f64; 2]| matern52(&lengthscales, &[0.0, 0.0], &b);
        assert_eq!(at([0.0, 0.0]), 1.0);
        assert!((at([0.5, 0.0]) - at([0.0, 2.0])).abs() < 1e-12);
        // (1 + sqrt(5) + 5 / 3) * exp(-sqrt(5)), at a distance of one lengthscale.
        assert!((at([0.5, 0.0]) - 0.523_994_108_831_205).abs() < 1e-6);
        assert!(at([1.0, 0.0]) < at([0.5, 0.0]));
    }

    #[test]
    fn covariance_is_a_number_at_any_distance() {
        assert_eq!(matern52(&[1e-200], &[1e200], &[-1e200]), 0.0);
        assert_eq!(matern52(&[1e-200], &[1e200], &[1e200]), 1.0);
    }
}
