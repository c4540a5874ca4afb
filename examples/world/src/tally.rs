//! Accuracy of generated images, factor by factor.

use std::fmt;

use super::{Attribute, Named};

/// Counts over many images how often each expected factor was predicted by the readers.
///
/// ```
/// use fabric_world::{Attribute, Kind, Colour, Named, Tally};
///
/// let wanted = Named { kind: Some(Kind::Star), colour: Some(Colour::Red), ..Named::default() };
/// let mut tally = Tally::default();
/// tally.add(&wanted, &wanted);
/// tally.add(&wanted, &Named { colour: Some(Colour::Blue), ..wanted });
/// assert_eq!(tally.share(Attribute::Kind), Some(1.0));
/// assert_eq!(tally.share(Attribute::Colour), Some(0.5));
/// assert_eq!(tally.share(Attribute::Size), None);
/// assert_eq!(tally.all(), Some(0.5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// For each of [`Attribute::ALL`], how often it was correct, and how often it was expected.
    counts: [(u64, u64); Attribute::ALL.len()],
    /// Number of images with all expected factors correct, and of all images.
    whole: (u64, u64),
}

impl Tally {
    /// Adds an image: `expected` are the factors it should show, `seen` those predicted by the readers.
    pub fn add(&mut self, expected: &Named, seen: &Named) {
        let mut all = true;
        for attribute in expected.attributes() {
            let right = expected.index_of(attribute) == seen.index_of(attribute);
            let (good, asked) = &mut self.counts[attribute as usize];
            *good += u64::from(right);
            *asked += 1;
            all &= right;
        }
        self.whole.0 += u64::from(all);
        self.whole.1 += 1;
    }

    /// Returns the share of correct values of this factor; `None` if it was never expected.
    pub fn share(&self, attribute: Attribute) -> Option<f64> {
        ratio(self.counts[attribute as usize])
    }

    /// Returns the share of images with all expected factors correct; `None` without images.
    pub fn all(&self) -> Option<f64> {
        ratio(self.whole)
    }

    /// Returns the number of images.
    pub fn images(&self) -> u64 {
        self.whole.1
    }
}

fn ratio((good, asked): (u64, u64)) -> Option<f64> {
    (asked > 0).then(|| good as f64 / asked as f64)
}

/// Formats percentages, factor by factor: `kind 97.0, colour 99.0, .., all 91.0`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for attribute in Attribute::ALL {
            if let Some(share) = self.share(attribute) {
                write!(f, "{attribute} {:.1}, ", 100.0 * share)?;
            }
        }
        match self.all() {
            Some(share) => write!(f, "all {:.1}", 100.0 * share),
            None => f.write_str("no images"),
        }
    }
}
