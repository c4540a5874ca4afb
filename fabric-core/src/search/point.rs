//! Points of a search space.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Values of all dimensions of a [`Space`](super::Space), by name.
///
/// It is serialised as a map from names to values. [`Space::point`](super::Space::point) creates a point from such a
/// map and checks it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "BTreeMap<String, f64>")]
pub struct Point {
    values: BTreeMap<String, f64>,
    unit: Vec<f64>,
}

impl Point {
    pub(super) fn new(values: BTreeMap<String, f64>, unit: Vec<f64>) -> Self {
        Self { values, unit }
    }

    /// The values by name.
    pub fn values(&self) -> &BTreeMap<String, f64> {
        &self.values
    }

    /// Returns the value of the dimension with this name, if there is one.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// The coordinates in the unit cube, in the order of the dimensions of the space.
    pub fn unit(&self) -> &[f64] {
        &self.unit
    }
}

impl From<Point> for BTreeMap<String, f64> {
    fn from(point: Point) -> Self {
        point.values
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.values.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name} = {value}")?;
        }
        Ok(())
    }
}
