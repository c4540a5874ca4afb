//! Guidance within an attention layer: its result is led away from that of another attention.

use burn::tensor::{DType, Tensor};
use fabric_backends::ops::cast;
use serde::{Deserialize, Serialize};

use crate::InvalidValue;

/// How far the result of an attention is led away from that of another one: normalised attention guidance (NAG,
/// [arXiv 2505.21179](https://arxiv.org/abs/2505.21179)).
///
/// With the results `z` and `away`, the new result is `share * g + (1 - share) * z`, where `g` is
/// `scale * z - (scale - 1) * away`, shortened so that the sum of its absolute values over the channels of a query is at
/// most `limit` times that of `z`. The defaults are those of the published code.
///
/// ```
/// use fabric_core::attention::Extrapolation;
///
/// assert!(Extrapolation::default().validate("nag").is_ok());
/// assert!(Extrapolation { limit: 0.0, ..Extrapolation::default() }.validate("nag").is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Extrapolation {
    /// Scale; 1 leads nowhere.
    pub scale: f64,
    /// Largest ratio of the sums of absolute values.
    pub limit: f64,
    /// Share of what is extrapolated in the result, from 0 to 1.
    pub share: f64,
}

impl Default for Extrapolation {
    fn default() -> Self {
        Self { scale: 5.0, limit: 2.5, share: 0.25 }
    }
}

impl Extrapolation {
    /// Checks the ranges of all numbers; `name` is that of the setting in messages.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first invalid number.
    pub fn validate(&self, name: &str) -> Result<(), InvalidValue> {
        for (field, value, low, high) in
            [("scale", self.scale, 1.0, 100.0), ("limit", self.limit, 1.0, 100.0), ("share", self.share, 0.0, 1.0)]
        {
            if !(low..=high).contains(&value) {
                let (what, expected) = (format!("{name}.{field}"), format!("a number from {low} to {high}"));
                return Err(InvalidValue::new(what, value, expected, "leave it out for the published one"));
            }
        }
        Ok(())
    }

    /// Leads a result away from another one. Both are `[rows, queries, channels]`.
    pub(super) fn apply(&self, towards: Tensor<3>, away: Tensor<3>) -> Tensor<3> {
        let Self { scale, limit, share } = *self;
        // Sums over all channels can be too large for half precision.
        let dtype = towards.dtype();
        let [towards, away] = [towards, away].map(|x| cast(x, DType::F32));
        let led = towards.clone() * scale - away * (scale - 1.0);
        let size = |x: &Tensor<3>| x.clone().abs().sum_dim(2);
        // Where the result is 0 in all channels there is nothing to shorten.
        let shortened = (size(&towards) * limit / size(&led).clamp_min(f64::from(f32::MIN_POSITIVE))).clamp_max(1.0);
        cast(led * shortened * share + towards * (1.0 - share), dtype)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn row(values: [f32; 2]) -> Tensor<3> {
        let device: Device = fabric_backends::default_device().expect("a device");
        Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, 2]), &device)
    }

    fn led(how: Extrapolation, towards: [f32; 2], away: [f32; 2]) -> Vec<f32> {
        how.apply(row(towards), row(away)).to_data().try_to_vec().expect("f32")
    }

    fn assert_near(got: &[f32], expected: [f32; 2]) {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}, {expected:?} expected");
    }

    #[test]
    fn a_result_is_led_away_up_to_the_limit() {
        let how = Extrapolation { scale: 3.0, limit: 10.0, share: 1.0 };
        // 3 * [1, 2] - 2 * [2, 1] = [-1, 4], whose size is 5/3 of that of [1, 2].
        assert_near(&led(how, [1.0, 2.0], [2.0, 1.0]), [-1.0, 4.0]);
        assert_near(&led(Extrapolation { limit: 1.0, ..how }, [1.0, 2.0], [2.0, 1.0]), [-0.6, 2.4]);
        assert_near(&led(Extrapolation { share: 0.25, ..how }, [1.0, 2.0], [2.0, 1.0]), [0.5, 2.5]);
    }

    #[test]
    fn nothing_to_lead_away_from_changes_nothing() {
        let how = Extrapolation::default();
        assert_near(&led(how, [1.0, -2.0], [1.0, -2.0]), [1.0, -2.0]);
        assert_near(&led(Extrapolation { scale: 1.0, ..how }, [1.0, -2.0], [5.0, 5.0]), [1.0, -2.0]);
        assert_near(&led(Extrapolation { share: 0.0, ..how }, [1.0, -2.0], [5.0, 5.0]), [1.0, -2.0]);
        assert_near(&led(how, [0.0, 0.0], [0.0, 0.0]), [0.0, 0.0]);
    }
}
