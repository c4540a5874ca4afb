//! Settings of votes with a reason.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::fabric::ReferenceScope;
use crate::{Aspect, AspectKind, Error};

/// Settings of votes with a reason: the scales of their image prompts, and the references that they become in addition.
///
/// A vote with a reason is an image prompt of that aspect, towards a liked image and away from a disliked one. All of one
/// direction share one softmax, so their results do not add up to drown the text. Votes of one direction and aspect share
/// [`Self::most_per_aspect`], so that an aspect does not count more than others because it was named more often.
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
    /// Largest sum of scales of the votes of one direction with the same reason. Above 1, an aspect that was named more often
    /// than others counts more, but several votes have no more than scale 1 together.
    pub most_per_aspect: f64,
    /// Number of votes of one direction with the same reason that have an effect, the newest ones; `None` for all, which
    /// did better in the small world (`docs/findings.md`). Fewer image prompts take less time.
    pub newest_per_aspect: Option<usize>,
    /// References that votes become in addition to their image prompt, by the kind of their reason. Votes with another
    /// reason are no references.
    pub references: BTreeMap<AspectKind, ReferenceScope>,
}

/// A vote of strength 1 has scale 1, as adapters are trained, and so have all votes of one aspect together. No references.
impl Default for ReasonSettings {
    fn default() -> Self {
        Self { scale: 1.0, away_scale: 1.0, most_per_aspect: 1.0, newest_per_aspect: None, references: BTreeMap::new() }
    }
}

impl ReasonSettings {
    /// Checks the ranges of all settings.
    pub(super) fn validate(&self) -> Result<(), Error> {
        for (name, value) in [
            ("reasons.scale", self.scale),
            ("reasons.away_scale", self.away_scale),
            ("reasons.most_per_aspect", self.most_per_aspect),
        ] {
            if !(0.0..=100.0).contains(&value) {
                return Err(Error::settings(name, value, "a number from 0 to 100", "1 is as trained, 0 has no effect"));
            }
        }
        if self.newest_per_aspect == Some(0) {
            let help = "leave it out for all votes, or set reasons.scale and reasons.away_scale to 0 for none";
            return Err(Error::settings("reasons.newest_per_aspect", 0, "a number of votes, 1 or more", help));
        }
        let most = self.most_per_aspect;
        for (name, value) in [("reasons.scale", self.scale), ("reasons.away_scale", self.away_scale)] {
            if value > most {
                let expected = format!("at most {most}, which is reasons.most_per_aspect");
                return Err(Error::settings(name, value, expected, "raise reasons.most_per_aspect, or lower this"));
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

    /// Returns the indices of the votes that have an effect by [`Self::newest_per_aspect`]. The votes are given from the
    /// oldest to the newest, by their strength (below 0 a dislike) and their reason.
    pub(super) fn newest(&self, votes: &[(f64, &Aspect)]) -> Vec<usize> {
        let Some(most) = self.newest_per_aspect else { return (0..votes.len()).collect() };
        let mut counts: HashMap<(bool, &Aspect), usize> = HashMap::new();
        let mut newest: Vec<usize> = (votes.iter().enumerate().rev())
            .filter(|(_, (strength, aspect))| {
                let count = counts.entry((*strength < 0.0, aspect)).or_default();
                *count += 1;
                *count <= most
            })
            .map(|(index, _)| index)
            .collect();
        newest.reverse();
        newest
    }

    /// Returns the scale of the image prompt of each vote, given by its strength (below 0 a dislike) and its reason.
    ///
    /// Votes that exceed the limit together are reduced by the same factor.
    pub(super) fn scales(&self, votes: &[(f64, &Aspect)]) -> Vec<f64> {
        let is_away = |strength: f64| strength < 0.0;
        let wanted = |strength: f64| strength.abs() * if is_away(strength) { self.away_scale } else { self.scale };
        let mut sums: HashMap<(bool, &Aspect), f64> = HashMap::new();
        for (strength, aspect) in votes {
            *sums.entry((is_away(*strength), aspect)).or_default() += wanted(*strength);
        }
        let most = self.most_per_aspect;
        let share = |(strength, aspect): &(f64, &Aspect)| {
            wanted(*strength) * (most / sums[&(is_away(*strength), *aspect)].max(most)).min(1.0)
        };
        votes.iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales(votes: &[(f64, Aspect)]) -> Vec<f64> {
        let votes: Vec<(f64, &Aspect)> = votes.iter().map(|(strength, aspect)| (*strength, aspect)).collect();
        ReasonSettings::default().scales(&votes)
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
    fn no_number_of_votes_exceeds_the_limit_of_its_aspect() {
        let mut votes = Vec::new();
        for at in 0..40 {
            votes.push((if at % 3 == 0 { -1.0 } else { 1.0 }, Aspect::Words(format!("{}", at % 4))));
            let mut sums: HashMap<(bool, &Aspect), f64> = HashMap::new();
            for ((strength, aspect), scale) in votes.iter().zip(scales(&votes)) {
                *sums.entry((*strength < 0.0, aspect)).or_default() += scale;
            }
            assert!(sums.values().all(|sum| (sum - 1.0).abs() < 1e-9), "{sums:?} after {at}");
        }
    }

    #[test]
    fn very_many_votes_share_the_limit_too() {
        let votes = vec![(1.0, &Aspect::Style); 50_000];
        let scales = ReasonSettings::default().scales(&votes);
        assert!(scales.iter().all(|scale| (scale - 1.0 / 50_000.0).abs() < 1e-12));
    }

    #[test]
    fn of_votes_with_the_same_reason_and_direction_the_newest_have_an_effect() {
        let votes = [
            (1.0, &Aspect::Style),
            (1.0, &Aspect::Colour),
            (-1.0, &Aspect::Style),
            (0.5, &Aspect::Style),
            (1.0, &Aspect::Style),
        ];
        let newest = |count| ReasonSettings { newest_per_aspect: count, ..ReasonSettings::default() }.newest(&votes);
        assert_eq!(newest(None), [0, 1, 2, 3, 4]);
        assert_eq!(newest(Some(1)), [1, 2, 4]);
        assert_eq!(newest(Some(2)), [1, 2, 3, 4]);
        assert_eq!(newest(Some(3)), newest(None));
    }

    #[test]
    fn limits_of_0_leave_nothing_and_settings_out_of_range_are_refused() {
        let none = ReasonSettings { most_per_aspect: 0.0, ..ReasonSettings::default() };
        assert_near(&none.scales(&[(1.0, &Aspect::Style)]), &[0.0]);
        for (name, bad) in [
            ("reasons.scale", ReasonSettings { scale: -1.0, ..ReasonSettings::default() }),
            ("reasons.away_scale", ReasonSettings { away_scale: f64::NAN, ..ReasonSettings::default() }),
            ("reasons.most_per_aspect", ReasonSettings { most_per_aspect: 1e9, ..ReasonSettings::default() }),
            ("reasons.newest_per_aspect", ReasonSettings { newest_per_aspect: Some(0), ..ReasonSettings::default() }),
            ("reasons.scale", ReasonSettings { scale: 2.0, ..ReasonSettings::default() }),
            ("reasons.away_scale", ReasonSettings { most_per_aspect: 0.5, scale: 0.5, ..ReasonSettings::default() }),
        ] {
            assert!(bad.validate().unwrap_err().to_string().starts_with(name));
        }
        let scope = ReferenceScope { weight: f64::NAN, ..ReferenceScope::default() };
        let bad = ReasonSettings { references: [(AspectKind::Style, scope)].into(), ..ReasonSettings::default() };
        let message = bad.validate().unwrap_err().to_string();
        assert!(message.starts_with("reasons.references.style.weight: expected"), "{message}");
    }
}
