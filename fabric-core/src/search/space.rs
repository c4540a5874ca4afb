//! Search spaces: settings with their ranges.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Point;
use crate::InvalidValue;

/// Scale on which the values of a dimension are evenly spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Equal differences are equally important.
    #[default]
    Linear,
    /// Equal ratios are equally important, as for a guidance scale. The range must be above 0.
    Logarithmic,
}

/// Named setting with its range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// Name of the setting.
    pub name: String,
    /// Lowest value.
    pub low: f64,
    /// Highest value.
    pub high: f64,
    /// Scale on which the values are evenly spaced.
    #[serde(default)]
    pub scale: Scale,
}

impl Dimension {
    /// Creates a dimension with a linear scale. [`Space::new`] checks the range.
    pub fn linear(name: impl Into<String>, low: f64, high: f64) -> Self {
        Self { name: name.into(), low, high, scale: Scale::Linear }
    }

    /// Creates a dimension with a logarithmic scale. [`Space::new`] checks the range.
    pub fn logarithmic(name: impl Into<String>, low: f64, high: f64) -> Self {
        Self { name: name.into(), low, high, scale: Scale::Logarithmic }
    }

    fn scaled(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.ln(),
        }
    }

    fn validate(&self) -> Result<(), InvalidValue> {
        let (low, high) = (self.scaled(self.low), self.scaled(self.high));
        // The difference of two finite ends may be too large, and the logarithms of two close ends may be equal.
        if low.is_finite() && high.is_finite() && low < high && (high - low).is_finite() {
            return Ok(());
        }
        let expected = match self.scale {
            Scale::Linear => "two finite numbers, the lower one first",
            Scale::Logarithmic => "two finite numbers above 0, the lower one first",
        };
        Err(InvalidValue::new(
            format!("range of the dimension `{}`", self.name),
            format!("{} to {}", self.low, self.high),
            expected,
            "correct the range, or leave the dimension out if it is fixed",
        ))
    }

    /// Returns the coordinate from 0 to 1 of a value in the range.
    pub(crate) fn unit_of(&self, value: f64) -> f64 {
        let (low, high) = (self.scaled(self.low), self.scaled(self.high));
        ((self.scaled(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Returns the value at a coordinate from 0 to 1.
    pub(crate) fn value_at(&self, unit: f64) -> f64 {
        let (low, high) = (self.scaled(self.low), self.scaled(self.high));
        let scaled = low + unit * (high - low);
        let value = match self.scale {
            Scale::Linear => scaled,
            Scale::Logarithmic => scaled.exp(),
        };
        value.clamp(self.low, self.high)
    }
}

/// Settings to search over, each with its range.
///
/// ```
/// use fabric_core::search::{Dimension, Space};
///
/// let space = Space::new([
///     Dimension::linear("fabric.max_weight", 0.0, 1.0),
///     Dimension::logarithmic("guidance_scale", 1.0, 16.0),
/// ])?;
/// let point = space.point([("guidance_scale", 4.0), ("fabric.max_weight", 0.8)])?;
/// assert_eq!(point.get("fabric.max_weight"), Some(0.8));
/// assert!((point.unit()[1] - 0.5).abs() < 1e-9);
///
/// assert!(space.point([("guidance_scale", 4.0)]).is_err(), "a value is missing");
/// assert!(Space::new([Dimension::logarithmic("guidance_scale", 0.0, 16.0)]).is_err());
/// # Ok::<(), fabric_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Dimension>", into = "Vec<Dimension>")]
pub struct Space {
    dimensions: Vec<Dimension>,
}

impl TryFrom<Vec<Dimension>> for Space {
    type Error = InvalidValue;

    fn try_from(dimensions: Vec<Dimension>) -> Result<Self, InvalidValue> {
        Self::new(dimensions)
    }
}

impl From<Space> for Vec<Dimension> {
    fn from(space: Space) -> Self {
        space.dimensions
    }
}

impl Space {
    /// Creates a space. The surrogates are meant for at most about twelve dimensions.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no dimensions, a name is empty or used twice, or a range is not two finite numbers
    /// in order, above 0 if its scale is logarithmic.
    pub fn new(dimensions: impl IntoIterator<Item = Dimension>) -> Result<Self, InvalidValue> {
        let dimensions: Vec<Dimension> = dimensions.into_iter().collect();
        if dimensions.is_empty() {
            let help = "add the settings that may change";
            return Err(InvalidValue::new("dimensions of a search space", 0, "at least 1", help));
        }
        for (index, dimension) in dimensions.iter().enumerate() {
            let name = &dimension.name;
            if name.is_empty() {
                let what = format!("name of dimension {index} of a search space");
                return Err(InvalidValue::new(what, "an empty name", "the name of a setting", "name the dimension"));
            }
            if dimensions[..index].iter().any(|other| other.name == *name) {
                return Err(InvalidValue::new(
                    "dimensions of a search space",
                    format!("`{name}` twice"),
                    "different names",
                    "remove or rename one of the two",
                ));
            }
            dimension.validate()?;
        }
        Ok(Self { dimensions })
    }

    /// The dimensions, in the order of [`Point::unit`].
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// Creates a point from the values of all dimensions, in any order.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is missing, given twice, out of its range or NaN, or the space has no dimension of
    /// that name.
    pub fn point(&self, values: impl IntoIterator<Item = (impl Into<String>, f64)>) -> Result<Point, InvalidValue> {
        let mut by_name = BTreeMap::new();
        for (name, value) in values {
            let name: String = name.into();
            let Some(dimension) = self.dimensions.iter().find(|dimension| dimension.name == name) else {
                let expected = format!("one of {}", self.names());
                let got = format!("`{name}`");
                return Err(InvalidValue::new("dimension of a point", got, expected, "correct the name"));
            };
            if !(dimension.low..=dimension.high).contains(&value) {
                return Err(InvalidValue::new(
                    format!("value of `{name}`"),
                    value,
                    format!("a number from {} to {}", dimension.low, dimension.high),
                    "correct the value, or create a space with a wider range",
                ));
            }
            if by_name.insert(name.clone(), value).is_some() {
                return Err(InvalidValue::new(
                    format!("value of `{name}`"),
                    "two values",
                    "one value",
                    "remove one of the two",
                ));
            }
        }
        let mut unit = Vec::with_capacity(self.dimensions.len());
        for dimension in &self.dimensions {
            let Some(value) = by_name.get(&dimension.name) else {
                let what = format!("value of `{}`", dimension.name);
                return Err(InvalidValue::new(what, "none", "a value for each dimension", "add the value"));
            };
            unit.push(dimension.unit_of(*value));
        }
        Ok(Point::new(by_name, unit))
    }

    /// Whether a point was created by this space or an equal one.
    pub fn contains(&self, point: &Point) -> bool {
        self.point(point.values().clone()).as_ref() == Ok(point)
    }

    /// Returns the point whose values are those at coordinates from 0 to 1.
    pub(super) fn point_at(&self, unit: &[f64]) -> Point {
        assert_eq!(unit.len(), self.dimensions.len(), "coordinates of a point");
        let values = self.dimensions.iter().zip(unit);
        let values = values.map(|(dimension, unit)| (dimension.name.clone(), dimension.value_at(*unit)));
        self.point(values).expect("the values are in their ranges")
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.dimensions.iter().map(|dimension| format!("`{}`", dimension.name)).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        Space::new([Dimension::linear("weight", -1.0, 3.0), Dimension::logarithmic("guidance", 0.1, 10.0)]).unwrap()
    }

    #[test]
    fn coordinates_and_values_agree() {
        let space = space();
        let point = space.point([("guidance", 1.0), ("weight", 0.0)]).unwrap();
        assert!((point.unit()[0] - 0.25).abs() < 1e-12 && (point.unit()[1] - 0.5).abs() < 1e-12, "{point:?}");
        for unit in [[0.0, 1.0], [1.0, 0.0], [0.3, 0.7]] {
            let point = space.point_at(&unit);
            assert!(point.unit().iter().zip(unit).all(|(got, unit)| (got - unit).abs() < 1e-12), "{point:?}");
            assert!(space.contains(&point));
        }
        assert_eq!(space.point_at(&[0.0, 1.0]).get("guidance"), Some(10.0));
    }

    #[test]
    fn unusable_spaces_are_refused() {
        let refused = |dimensions: Vec<Dimension>| Space::new(dimensions).unwrap_err().to_string();
        assert!(refused(Vec::new()).contains("at least 1"));
        assert!(refused(vec![Dimension::linear("", 0.0, 1.0)]).contains("an empty name"));
        let twice = vec![Dimension::linear("a", 0.0, 1.0), Dimension::logarithmic("a", 1.0, 2.0)];
        assert!(refused(twice).contains("`a` twice"));
        for (low, high) in [(1.0, 0.0), (1.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (f64::MIN, f64::MAX)] {
            assert!(refused(vec![Dimension::linear("a", low, high)]).contains("range of the dimension `a`"));
        }
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1e10, 1e10_f64.next_up())] {
            assert!(refused(vec![Dimension::logarithmic("a", low, high)]).contains("above 0"));
        }
    }

    #[test]
    fn unusable_points_are_refused() {
        let space = space();
        let refused = |values: &[(&str, f64)]| space.point(values.iter().copied()).unwrap_err().to_string();
        assert!(refused(&[("weight", 0.0)]).contains("`guidance`"));
        assert!(refused(&[("weight", f64::NAN), ("guidance", 1.0)]).contains("got NaN"));
        assert!(refused(&[("weight", 3.5), ("guidance", 1.0)]).contains("from -1 to 3"));
        assert!(refused(&[("height", 0.0)]).contains("one of `weight`, `guidance`"));
        assert!(refused(&[("weight", 0.0), ("weight", 1.0), ("guidance", 1.0)]).contains("two values"));
    }

    #[test]
    fn points_of_another_space_are_not_contained() {
        let other = [Dimension::linear("weight", -1.0, 3.5), Dimension::logarithmic("guidance", 0.1, 10.0)];
        let point = Space::new(other).unwrap().point_at(&[0.5, 0.5]);
        assert!(!space().contains(&point));
    }

    #[test]
    fn a_space_is_checked_when_it_is_read() {
        let json = serde_json::to_string(&space()).unwrap();
        assert_eq!(serde_json::from_str::<Space>(&json).unwrap(), space());
        assert!(serde_json::from_str::<Space>("[]").is_err());
        assert!(serde_json::from_str::<Space>(r#"[{"name": "a", "low": 1, "high": 0}]"#).is_err());
    }
}
