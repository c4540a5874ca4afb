//! Means over prompts with their intervals.

use fabric::core::metrics::bootstrap_mean;

/// Fewest prompts for which there is an interval. The bootstrap of fewer values is far too narrow; that of one value is
/// a point.
pub const FEWEST_PROMPTS: usize = 5;

/// Note on estimates without an interval.
const TOO_FEW: &str = "too few prompts for an interval";

/// Mean over prompts with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Lower and upper end of the interval. `None` for fewer than [`FEWEST_PROMPTS`] prompts.
    pub interval: Option<[f64; 2]>,
}

impl Estimate {
    /// Returns the mean of these values, one per prompt, with its bootstrap interval. `None` if there are no values, or
    /// one is not finite.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let estimated = bootstrap_mean(values)?;
        let interval = (values.len() >= FEWEST_PROMPTS).then_some([estimated.low, estimated.high]);
        Some(Self { mean: estimated.mean, interval })
    }

    /// Whether the interval lies above or below 0 and does not contain it. Never without an interval.
    #[must_use]
    pub fn excludes_zero(self) -> bool {
        self.interval.is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }

    /// Returns the ends of the interval for a chart, which does not draw limits that are NaN.
    pub(crate) fn drawn_interval(self) -> [f64; 2] {
        self.interval.unwrap_or([f64::NAN; 2])
    }
}

/// Returns the end of a caption over these estimates: `shown`, the words on their intervals, and a note if some have
/// none.
pub(crate) fn caption_end(estimates: impl IntoIterator<Item = Estimate>, shown: &str) -> String {
    let (with, without): (Vec<Estimate>, Vec<Estimate>) =
        estimates.into_iter().partition(|estimate| estimate.interval.is_some());
    match (with.is_empty(), without.is_empty()) {
        (_, true) => shown.to_owned(),
        (false, false) => format!("{shown}; {TOO_FEW} where there is none"),
        (true, false) => format!("; {TOO_FEW}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_than_five_prompts_have_no_interval_and_exclude_nothing() {
        for count in 1..FEWEST_PROMPTS {
            let few = Estimate::of(&vec![2.0; count]).expect("finite values");
            assert_eq!(few, Estimate { mean: 2.0, interval: None }, "{count}");
            assert!(!few.excludes_zero() && few.drawn_interval().iter().all(|end| end.is_nan()), "{count}");
        }
        let enough = Estimate::of(&[2.0; FEWEST_PROMPTS]).expect("finite values");
        assert_eq!(enough, Estimate { mean: 2.0, interval: Some([2.0; 2]) });
        assert!(enough.excludes_zero());
        assert!(!Estimate::of(&[-2.0, 2.0, -2.0, 2.0, 0.0]).expect("finite values").excludes_zero());
        assert_eq!((Estimate::of(&[]), Estimate::of(&[f64::NAN; 6])), (None, None));
    }

    #[test]
    fn a_caption_says_once_that_intervals_are_missing() {
        let [few, enough] = [1, 9].map(|count| Estimate::of(&vec![1.0; count]).expect("finite values"));
        let end = |estimates: &[Estimate]| caption_end(estimates.iter().copied(), ", with intervals");
        assert_eq!(end(&[enough, enough]), ", with intervals");
        assert_eq!(end(&[few, few]), "; too few prompts for an interval");
        assert_eq!(end(&[enough, few, few]), ", with intervals; too few prompts for an interval where there is none");
        assert_eq!(end(&[]), ", with intervals");
    }
}
