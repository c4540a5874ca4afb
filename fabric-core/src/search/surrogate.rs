//! The interface of models that stand in for the person or the score.

use crate::InvalidValue;

/// Model of an unknown function on the unit cube: for each point a normal distribution of its value.
///
/// Points are given by their coordinates in the cube, as in [`Point::unit`](super::Point::unit).
pub trait Surrogate {
    /// Returns the expected value at a point.
    ///
    /// # Panics
    ///
    /// Panics if the point has another number of coordinates than the observations.
    fn mean(&self, at: &[f64]) -> f64;

    /// Returns the covariance of the values at two points, given the observations.
    ///
    /// # Panics
    ///
    /// Panics if a point has another number of coordinates than the observations.
    fn covariance(&self, a: &[f64], b: &[f64]) -> f64;

    /// Returns the variance of the value at a point, at least 0.
    ///
    /// # Panics
    ///
    /// Panics if the point has another number of coordinates than the observations.
    fn variance(&self, at: &[f64]) -> f64 {
        self.covariance(at, at).max(0.0)
    }
}

/// Checks that there are points, that they have equal numbers of coordinates, and that those are finite. Returns the
/// number of coordinates.
pub(super) fn check_points(points: &[Vec<f64>]) -> Result<usize, InvalidValue> {
    let Some(first) = points.first() else {
        return Err(InvalidValue::new("points of a surrogate", 0, "at least 1 point", "record an observation first"));
    };
    let dims = first.len();
    for (index, point) in points.iter().enumerate() {
        if point.is_empty() || point.len() != dims || point.iter().any(|value| !value.is_finite()) {
            return Err(InvalidValue::new(
                format!("point {index} of a surrogate"),
                format!("{point:?}"),
                format!("{} finite coordinates", dims.max(1)),
                "use the coordinates of points of one space",
            ));
        }
    }
    Ok(dims)
}
