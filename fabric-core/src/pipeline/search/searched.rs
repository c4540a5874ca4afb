//! Description of the searched settings and their ranges.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Candidate;
use super::numbers::Numbers;
use crate::noise::NoiseMixture;
use crate::pipeline::Request;
use crate::search::{Dimension, Point, Space};
use crate::{Error, InvalidValue};

/// Pairs of settings of which the first must not exceed the second.
const ORDERED: [[&str; 2]; 3] = [
    ["fabric.start", "fabric.end"],
    ["guidance_window[0]", "guidance_window[1]"],
    ["cads.prompt_only_below", "cads.noise_only_above"],
];
/// Largest angle between the noises of seeds, in degrees, at which no weight is negative.
const QUARTER_TURN: f64 = 90.0;

/// Description of what a [`SettingsSearch`](super::SettingsSearch) searches, as plain data.
///
/// A start and the end that belongs to it (such as `fabric.start` and `fabric.end`) can be searched together. The end
/// is then searched in the part of its range that is not before the start, so that no candidate ends before it starts.
///
/// ```
/// use fabric_core::pipeline::{Request, SearchedSettings, SettingsSearch};
/// use fabric_core::search::Dimension;
///
/// let searched = SearchedSettings::new([
///     Dimension::logarithmic("guidance_scale", 1.0, 16.0),
///     Dimension::linear("guidance_window[0]", 0.0, 0.5),
///     Dimension::linear("guidance_window[1]", 0.2, 1.0),
/// ])
/// .with_noise_of([1, 2, 3]);
/// assert!(SettingsSearch::new(&Request::new("a star"), searched, 0).is_ok());
///
/// let unknown = SearchedSettings::new([Dimension::linear("scale", 0.0, 1.0)]);
/// assert!(SettingsSearch::new(&Request::new("a star"), unknown, 0).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct SearchedSettings {
    /// Real numbers of the request with their ranges.
    ///
    /// A name is the path of the number in the JSON of [`Settings`](crate::pipeline::Settings): `guidance_scale`,
    /// `fabric.max_weight`, `guidance_window[0]`, `fabric.block_weights.down[1]`, `cads.noise_scale` (if the base
    /// request has `cads` on). `image_conditions[0].scale` and `feedback[0].strength` are those of the request's first
    /// image of that kind. Integers (such as `steps`) and the settings below `reasons`, which act before there is a
    /// request, cannot be searched.
    pub settings: Vec<Dimension>,
    /// Seeds between whose initial noises the search moves: none, or 2 to 16. The initial noise of a candidate is a
    /// [`NoiseMixture`] of them with positive weights, at one angle fewer than there are seeds
    /// ([`NoiseMixture::at_angles`]). Each angle is a dimension of the search, from 0 to 90 degrees, so four seeds are
    /// already many.
    pub noise_seeds: Vec<u64>,
}

impl SearchedSettings {
    /// Creates a description of settings with their ranges. [`SettingsSearch::new`](super::SettingsSearch::new) checks
    /// it.
    pub fn new(settings: impl IntoIterator<Item = Dimension>) -> Self {
        Self { settings: settings.into_iter().collect(), noise_seeds: Vec::new() }
    }

    /// Sets the seeds between whose initial noises the search moves.
    #[must_use]
    pub fn with_noise_of(self, seeds: impl IntoIterator<Item = u64>) -> Self {
        Self { noise_seeds: seeds.into_iter().collect(), ..self }
    }

    /// Checks all that can be checked without a request, and returns the space of the search.
    ///
    /// A point of the space has the coordinate of a setting within its range, as a value in this range. It is the value
    /// of the setting, except for an end that depends on its start: see [`Self::candidate`].
    pub(super) fn space(&self) -> Result<Space, InvalidValue> {
        if self.noise_seeds.len() == 1 {
            let help = "add a seed; for the noise of one seed, set the initial noise of the base request";
            return Err(InvalidValue::new("noise_seeds", "1 seed", "none, or 2 to 16 different seeds", help));
        }
        if !self.noise_seeds.is_empty() {
            NoiseMixture::at_angles(&self.noise_seeds, &vec![0.0; self.noise_seeds.len() - 1])?;
        }
        let angles = self.angles().map(|name| Dimension::linear(name, 0.0, QUARTER_TURN));
        let space = Space::new(self.settings.iter().cloned().chain(angles))?;
        for [first, second] in ORDERED {
            if let (Some(start), Some(end)) = (self.setting(first), self.setting(second)) {
                check_order([first, second], start.high, end.high)?;
            }
        }
        Ok(space)
    }

    /// Checks that each point of the space gives a valid request, and returns the space.
    pub(super) fn check(&self, base: &Request) -> Result<Space, Error> {
        let numbers = Numbers::of(base);
        let space = self.space()?;
        for Dimension { name, .. } in &self.settings {
            numbers.get(name)?;
        }
        for pair @ [first, second] in ORDERED {
            match (self.setting(first), self.setting(second)) {
                (Some(start), None) => check_order(pair, start.high, numbers.get(second)?)?,
                (None, Some(end)) => check_order(pair, numbers.get(first)?, end.low)?,
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        // Except for these pairs, the valid values of a setting are an interval, so its two ends are enough.
        let ends: [fn(&Dimension) -> f64; 2] = [|dimension| dimension.low, |dimension| dimension.high];
        for end in ends {
            let point = space.point(space.dimensions().iter().map(|one| (one.name.clone(), end(one))))?;
            self.candidate(&point).request(base)?;
        }
        Ok(space)
    }

    /// Returns the values of the settings at a point of the space.
    pub(super) fn candidate(&self, point: &Point) -> Candidate {
        let value = |one: &Dimension| Some((one.name.clone(), point.get(&one.name)?));
        let mut values: BTreeMap<String, f64> = self.settings.iter().filter_map(value).collect();
        for [first, second] in ORDERED {
            let (start, end) = (values.get(first).copied(), values.get(second).copied());
            if let (Some(start), Some(end), Some(range)) = (start, end, self.setting(second)) {
                let rest = Dimension { low: range.low.max(start), ..range.clone() };
                values.insert(second.to_owned(), rest.value_at(range.unit_of(end)));
            }
        }
        let angles: Vec<f64> = self.angles().filter_map(|name| point.get(&name)).collect();
        let noise = (!angles.is_empty()).then(|| {
            NoiseMixture::at_angles(&self.noise_seeds, &angles).expect("the seeds were checked with the space")
        });
        Candidate { values, noise }
    }

    fn setting(&self, name: &str) -> Option<&Dimension> {
        self.settings.iter().find(|one| one.name == name)
    }

    /// Returns the names of the dimensions of the angles between the noises of the seeds, one fewer than seeds.
    fn angles(&self) -> impl Iterator<Item = String> {
        (1..self.noise_seeds.len()).map(|seed| format!("noise_angles[{}]", seed - 1))
    }
}

/// Checks that the highest start is not after an end.
fn check_order([first, second]: [&str; 2], start: f64, end: f64) -> Result<(), InvalidValue> {
    if start <= end {
        return Ok(());
    }
    Err(InvalidValue::new(
        format!("`{first}` of some candidates"),
        start,
        format!("at most {end}, which `{second}` may be"),
        "narrow the range, or search both with ranges that end in this order",
    ))
}
