//! The standard normal distribution.

use std::f64::consts::{LN_2, SQRT_2, TAU};

/// Coefficients of the Chebyshev fit to `erfc` with a relative error below 1.2e-7 (Press et al., Numerical Recipes in
/// C, section 6.2), by rising power.
const ERFC: [f64; 10] = [
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
];

/// Returns the logarithm of the complementary error function, for `z >= 0`. It does not underflow for large `z`.
fn ln_erfc(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * z);
    let series = ERFC.iter().rev().fold(0.0_f64, |sum, coefficient| sum * t + coefficient);
    t.ln() - z * z + series
}

fn ln_density(x: f64) -> f64 {
    -0.5 * (x * x + TAU.ln())
}

/// Returns the density at `x`.
pub(super) fn density(x: f64) -> f64 {
    ln_density(x).exp()
}

/// Returns the probability of a value below `x`.
pub(super) fn distribution(x: f64) -> f64 {
    ln_distribution(x).exp()
}

/// Returns the logarithm of the probability of a value below `x`.
pub(super) fn ln_distribution(x: f64) -> f64 {
    let ln_tail = ln_erfc(x.abs() / SQRT_2) - LN_2;
    if x < 0.0 { ln_tail } else { (-ln_tail.exp()).ln_1p() }
}

/// Returns the derivative of [`ln_distribution`]: the density divided by the distribution.
pub(super) fn ln_distribution_slope(x: f64) -> f64 {
    (ln_density(x) - ln_distribution(x)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_has_the_values_of_tables() {
        for (x, expected) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.959_963_985, 0.025), (3.0, 0.998_650_102)] {
            assert!((distribution(x) - expected).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn far_tails_are_finite() {
        // Mills' ratio: the slope approaches -x.
        assert!((ln_distribution_slope(-100.0) - 100.01).abs() < 0.001);
        assert!(ln_distribution(-100.0) < -5000.0 && ln_distribution(-100.0).is_finite());
        assert!(ln_distribution(100.0) <= 0.0 && ln_distribution_slope(100.0) >= 0.0);
    }

    #[test]
    fn the_slope_is_the_derivative() {
        for x in [-5.0, -0.7, 0.3, 2.0] {
            let difference = (ln_distribution(x + 0.01) - ln_distribution(x - 0.01)) / 0.02;
            assert!((ln_distribution_slope(x) - difference).abs() < 1e-3, "{x}");
        }
    }
}
