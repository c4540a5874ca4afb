//! Settings of votes with a reason.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::fabric::ReferenceScope;
use crate::{Aspect, AspectKind, Error};

/// Settings of votes with a reason: the scales of their image prompts, and the references that they become in addition.
///
/// A vote with a reason is an image prompt of that aspect, towards a liked image and away from a disliked one. Each image
/// prompt adds to the attention of the text, so the scales of many votes are limited: those of one direction and aspect
/// share [`Self::most_per_aspect`], and all of one direction share [`Self::most`].
///
/// ```
/// use fabric_core::fabric::{FabricSettings, ReferenceScope};
/// use fabric_core::pipeline::{ReasonSettings, Settings, Window};
/// use fabric_core::AspectKind;
///
/// // A vote on the composition is a reference of FABRIC in the first steps, too.
/// let early = ReferenceScope { window: Window::new(0.0, 0.3)?, ..ReferenceScope::default() };
/// let reasons = ReasonSettings { references: [(AspectKind::Composition, early)].into(), ..ReasonSettings::default() };
/// // Outside of FABRIC's own window, references have its `min_weight`.
/// let fabric = FabricSettings { start: 0.0, ..FabricSettings::default() };
/// assert!(Settings { reasons, fabric, ..Settings::default() }.validate().is_ok());
/// # Ok::<(), fabric_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReasonSettings {
    /// Scale of the image prompt of a vote of strength 1 towards a liked image, at most [`Self::most_per_aspect`]. At 0
    /// such votes are no image prompts.
    pub scale: f64,
    /// Scale of the image prompt of a vote of strength 1 away from a disliked image, at most [`Self::most_per_aspect`].
    /// At 0 such votes are no image prompts.
    pub away_scale: f64,
    /// Largest sum of scales of the votes of one direction with the same reason, at most [`Self::most`].
    pub most_per_aspect: f64,
    /// Largest sum of scales of all votes of one direction with a reason.
    pub most: f64,
    /// References that votes become in addition to their image prompt, by the kind of their reason. Votes with another
    /// reason are no references.
    pub references: BTreeMap<AspectKind, ReferenceScope>,
}

/// A vote of strength 1 has scale 1, as adapters are trained, and all votes of one direction sum to at most 1: adapters
/// are trained with one image beside the text, and several in full drown it. No references.
impl Default for ReasonSettings {
    fn default() -> Self {
        Self { scale: 1.0, away_scale: 1.0, most_per_aspect: 1.0, most: 1.0, references: BTreeMap::new() }
    }
}

impl ReasonSettings {
    /// Checks the ranges of all settings.
    pub(super) fn validate(&self) -> Result<(), Error> {
        for (name, value) in [
            ("reasons.scale", self.scale),
            ("reasons.away_scale", self.away_scale),
            ("reasons.most_per_aspect", self.most_per_aspect),
            ("reasons.most", self.most),
        ] {
            if !(0.0..=100.0).contains(&value) {
                return Err(Error::settings(name, value, "a number from 0 to 100", "1 is as trained, 0 has no effect"));
            }
        }
        for ((name, value), (limit, most)) in [
            (("scale", self.scale), ("most_per_aspect", self.most_per_aspect)),
            (("away_scale", self.away_scale), ("most_per_aspect", self.most_per_aspect)),
            (("most_per_aspect", self.most_per_aspect), ("most", self.most)),
        ] {
            if value > most {
                let (name, expected) = (format!("reasons.{name}"), format!("at most {most}, which is reasons.{limit}"));
                return Err(Error::settings(name, value, expected, format!("raise reasons.{limit}, or lower this")));
            }
        }
        Ok(self
            .references
            .iter()
            .try_for_each(|(kind, scope)| scope.validate(&format!("reasons.references.{kind}")))?)
    }

    /// Checks that the scopes of references have as many factors as the U-Net has blocks.
    pub(super) fn check_levels(&self, levels: usize) -> Result<(), Error> {
        let check = |(kind, scope): (&AspectKind, &ReferenceScope)| {
            scope.blocks.check_levels(&format!("reasons.references.{kind}.blocks"), levels)
        };
        Ok(self.references.iter().try_for_each(check)?)
    }

    /// Returns the scale of the image prompt of each vote, given by its strength (below 0 a dislike) and its reason.
    ///
    /// Votes that exceed a limit together are reduced by the same factor.
    pub(super) fn scales(&self, votes: &[(f64, &Aspect)]) -> Vec<f64> {
        let is_away = |strength: f64| strength < 0.0;
        let wanted: Vec<f64> = votes
            .iter()
            .map(|(strength, _)| strength.abs() * if is_away(*strength) { self.away_scale } else { self.scale })
            .collect();
        let limited = |scales: &[f64], most: f64, per_aspect: bool| -> Vec<f64> {
            let group = |at: usize| (is_away(votes[at].0), per_aspect.then_some(votes[at].1));
            let mut sums: HashMap<(bool, Option<&Aspect>), f64> = HashMap::new();
            for (at, scale) in scales.iter().enumerate() {
                *sums.entry(group(at)).or_default() += scale;
            }
            scales.iter().enumerate().map(|(at, scale)| scale * (most / sums[&group(at)].max(most)).min(1.0)).collect()
        };
        limited(&limited(&wanted, self.most_per_aspect, true), self.most, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales(votes: &[(f64, Aspect)]) -> Vec<f64> {
        let votes: Vec<(f64, &Aspect)> = votes.iter().map(|(strength, aspect)| (*strength, aspect)).collect();
        ReasonSettings { most: 3.0, ..ReasonSettings::default() }.scales(&votes)
    }

    fn assert_near(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} {expected:?}");
    }

    #[test]
    fn few_votes_have_their_strength_as_scale() {
        let votes = [(1.0, Aspect::Style), (0.5, Aspect::Colour), (-0.3, Aspect::Style)];
        assert_near(&scales(&votes), &[1.0, 0.5, 0.3]);
        assert!(scales(&[]).is_empty());
        assert_near(&scales(&[(0.0, Aspect::Style)]), &[0.0]);
    }

    #[test]
    fn votes_with_the_same_reason_share_a_limit_and_keep_their_ratio() {
        let votes = [(1.0, Aspect::Style), (0.5, Aspect::Style), (0.5, Aspect::Style), (-1.0, Aspect::Style)];
        assert_near(&scales(&votes), &[0.5, 0.25, 0.25, 1.0]);
        let words = |text: &str| Aspect::Words(text.to_owned());
        assert_near(&scales(&[(1.0, words("its light")), (1.0, words("its mood"))]), &[1.0, 1.0]);
    }

    #[test]
    fn no_number_of_votes_exceeds_the_limits() {
        let mut votes = Vec::new();
        for at in 0..40 {
            votes.push((if at % 3 == 0 { -1.0 } else { 1.0 }, Aspect::Words(format!("{}", at % 9))));
            let scales = scales(&votes);
            for is_away in [true, false] {
                let sum: f64 =
                    votes.iter().zip(&scales).filter(|(vote, _)| (vote.0 < 0.0) == is_away).map(|(_, s)| s).sum();
                assert!(sum <= 3.0 + 1e-9, "{sum} after {at}");
            }
        }
    }

    #[test]
    fn very_many_votes_share_the_limits_too() {
        let words: Vec<Aspect> = (0..50_000).map(|at| Aspect::Words(format!("reason {at}"))).collect();
        let votes: Vec<(f64, &Aspect)> = words.iter().map(|words| (1.0, words)).collect();
        let scales = ReasonSettings::default().scales(&votes);
        assert!(scales.iter().all(|scale| (scale - 1.0 / 50_000.0).abs() < 1e-12));
    }

    #[test]
    fn limits_of_0_leave_nothing_and_settings_out_of_range_are_refused() {
        let none = ReasonSettings { most: 0.0, ..ReasonSettings::default() };
        assert_near(&none.scales(&[(1.0, &Aspect::Style)]), &[0.0]);
        for (name, bad) in [
            ("reasons.scale", ReasonSettings { scale: -1.0, ..ReasonSettings::default() }),
            ("reasons.away_scale", ReasonSettings { away_scale: f64::NAN, ..ReasonSettings::default() }),
            ("reasons.most_per_aspect", ReasonSettings { most_per_aspect: 1e9, ..ReasonSettings::default() }),
            ("reasons.most", ReasonSettings { most: f64::INFINITY, ..ReasonSettings::default() }),
            ("reasons.scale", ReasonSettings { scale: 2.0, ..ReasonSettings::default() }),
            ("reasons.away_scale", ReasonSettings { most_per_aspect: 0.5, scale: 0.5, ..ReasonSettings::default() }),
            ("reasons.most_per_aspect", ReasonSettings { most: 0.9, ..ReasonSettings::default() }),
        ] {
            assert!(bad.validate().unwrap_err().to_string().starts_with(name));
        }
        let scope = ReferenceScope { weight: f64::NAN, ..ReferenceScope::default() };
        let bad = ReasonSettings { references: [(AspectKind::Style, scope)].into(), ..ReasonSettings::default() };
        let message = bad.validate().unwrap_err().to_string();
        assert!(message.starts_with("reasons.references.style.weight: expected"), "{message}");
    }
}
