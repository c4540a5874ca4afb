//! Strength over a run.

use fabric_core::denoise::ModelCall;

use crate::AdapterError;

/// Factors over a run, evenly spaced from its first evaluation to its last, with straight lines between them: as many as
/// there are evaluations are one for each (some samplers evaluate a step twice), two are a ramp.
///
/// ```
/// use fabric_ipadapter::ScaleSchedule;
/// let fading = ScaleSchedule::new([1.0, 0.0])?;
/// assert!(ScaleSchedule::new([]).is_err());
/// # Ok::<(), fabric_ipadapter::AdapterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleSchedule(Vec<f32>);

/// Full strength from beginning to end.
impl Default for ScaleSchedule {
    fn default() -> Self {
        Self(vec![1.0])
    }
}

impl ScaleSchedule {
    /// Of these factors.
    ///
    /// # Errors
    ///
    /// When there are none, or one is not finite.
    pub fn new(factors: impl IntoIterator<Item = f32>) -> Result<Self, AdapterError> {
        let factors: Vec<f32> = factors.into_iter().collect();
        if !factors.is_empty() && factors.iter().all(|factor| factor.is_finite()) {
            return Ok(Self(factors));
        }
        Err(AdapterError::Setting {
            what: "factors over a run".to_owned(),
            got: format!("{factors:?}"),
            expected: "one finite number at least".to_owned(),
            next: "1 is full strength".to_owned(),
        })
    }

    /// The factor of an evaluation.
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
        assert!(ScaleSchedule::new([1.0, f32::NAN]).is_err());
    }
}
