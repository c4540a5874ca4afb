//! Bootstrap confidence intervals.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Mean with a confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Interval {
    /// Whether the interval lies above or below 0 and does not contain it.
    #[must_use]
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Number of resamples of an interval.
const RESAMPLES: usize = 10_000;
/// Seed of the resampling, so that a report is the same whenever it is made.
const SEED: u64 = 0;

/// Returns the mean of the values and its 95 % interval, by the percentile bootstrap with 10,000 resamples (Efron and
/// Tibshirani 1993, chapter 13).
///
/// For two arms measured on the same prompts and seeds, pass the differences per prompt: the interval is then paired.
/// Values that depend on each other (the images of one session) are to be averaged first. The same values give the same
/// interval on every machine. `None` if there are no values, or one is not finite.
///
/// ```
/// use fabric_core::metrics::bootstrap_mean;
///
/// let gained = bootstrap_mean(&[1.0, 2.0, 3.0, 2.0, 1.5, 2.5]).expect("finite values");
/// assert!(gained.excludes_zero() && gained.low < 2.0 && gained.high > 2.0);
/// ```
#[must_use]
pub fn bootstrap_mean(values: &[f64]) -> Option<Interval> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    // By hand, because rand's ranges may change between its versions, and ChaCha's stream does not.
    let mut pick = || values[((u128::from(rng.next_u64()) * values.len() as u128) >> 64) as usize];
    let mut resampled = || (0..values.len()).map(|_| pick()).sum::<f64>() / count;
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| resampled()).collect();
    means.sort_by(f64::total_cmp);
    // The ends of the middle 95 %.
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Interval { mean, low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_about_as_wide_as_the_normal_one() {
        // 100 values with a standard deviation of 1: the standard error is 0.1.
        let values: Vec<f64> = (0..100).map(|at| if at % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let interval = bootstrap_mean(&values).expect("finite values");
        assert_eq!(interval.mean, 0.0);
        assert!((interval.low + 0.196).abs() < 0.02 && (interval.high - 0.196).abs() < 0.02, "{interval:?}");
        assert!(!interval.excludes_zero());
        assert_eq!(bootstrap_mean(&values), Some(interval), "the same every time");
    }

    #[test]
    fn equal_values_have_no_width_and_nothing_has_no_interval() {
        assert_eq!(bootstrap_mean(&[2.0; 5]), Some(Interval { mean: 2.0, low: 2.0, high: 2.0 }));
        assert_eq!(bootstrap_mean(&[]), None);
        assert_eq!(bootstrap_mean(&[1.0, f64::NAN]), None);
    }
}
