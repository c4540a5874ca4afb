//! Scale schedules over a run.

use fabric_core::InvalidValue;
use fabric_core::denoise::ModelCall;

use crate::AdapterError;
use crate::scales::MAX_SCALE;

/// Factors on the scales over a run, evenly spaced from the first evaluation to the last and linearly
/// interpolated. As many factors as evaluations give one to each (some samplers evaluate a step twice); two are
/// a ramp.
///
/// ```
/// use fabric_ipadapter::ScaleSchedule;
/// let fading = ScaleSchedule::new([1.0, 0.0])?;
/// assert!(ScaleSchedule::new([]).is_err());
/// # Ok::<(), fabric_ipadapter::AdapterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleSchedule(Vec<f32>);

/// Factor 1 throughout.
impl Default for ScaleSchedule {
    fn default() -> Self {
        Self(vec![1.0])
    }
}

impl ScaleSchedule {
    /// Creates a schedule with these factors.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no factors, or one is not a number from -100 to 100.
    pub fn new(factors: impl IntoIterator<Item = f32>) -> Result<Self, AdapterError> {
        let factors: Vec<f32> = factors.into_iter().collect();
        if !factors.is_empty() && factors.iter().all(|factor| (-MAX_SCALE..=MAX_SCALE).contains(factor)) {
            return Ok(Self(factors));
        }
        Err(AdapterError::Setting(InvalidValue {
            what: "factors over a run".to_owned(),
            got: format!("{factors:?}"),
            expected: format!("at least one number, each from -{MAX_SCALE} to {MAX_SCALE}"),
            help: "1 is full strength".to_owned(),
        }))
    }

    /// Returns the factor of an evaluation.
    pub fn at(&self, call: &ModelCall) -> f32 {
        let Self(factors) = self;
        let last = factors.len() - 1;
        let place = call.index as f32 * last as f32 / call.total.saturating_sub(1).max(1) as f32;
        let before = (place as usize).min(last);
        let after = (before + 1).min(last);
        let share = place - before as f32;
        factors[before] * (1.0 - share) + factors[after] * share
    }
}

#[cfg(test)]
mod tests {
    use fabric_core::denoise::NoiseLevel;

    use super::*;

    #[test]
    fn factors_are_those_of_the_steps_or_lie_between_them() {
        let level = NoiseLevel { timestep: 1.0, alpha: 0.5, sigma: 0.5 };
        let over = |factors: &[f32], total| -> Vec<f32> {
            let schedule = ScaleSchedule::new(factors.iter().copied()).expect("factors");
            (0..total).map(|index| schedule.at(&ModelCall { index, total, level })).collect()
        };
        assert_eq!(over(&[0.5, 1.0, 0.0], 3), [0.5, 1.0, 0.0]);
        assert_eq!(over(&[1.0, 0.0], 5), [1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(over(&[0.3], 4), [0.3; 4]);
        assert_eq!(over(&[1.0, 0.0], 1), [1.0]);
        assert!(ScaleSchedule::new([-100.0, 100.0]).is_ok());
        for wrong in [f32::NAN, f32::INFINITY, 100.5, -1e30] {
            let message = ScaleSchedule::new([1.0, wrong]).expect_err("an absurd factor").to_string();
            assert!(message.contains("each from -100 to 100"), "{message}");
        }
    }
}
