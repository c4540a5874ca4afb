//! How often what was asked for is there, factor by factor.

use std::fmt;

use super::{Attribute, Named};

/// Counts, over many images, how often each factor that was asked for was seen.
///
/// ```
/// use fabric_models::world::{Attribute, Kind, Colour, Named, Tally};
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
    /// For each of [`Attribute::ALL`], how often it was right, and how often it was asked for.
    counts: [(u64, u64); Attribute::ALL.len()],
    /// Images in which all was right, and all images.
    whole: (u64, u64),
}

impl Tally {
    /// Counts an image in which `seen` was seen where `wanted` was asked for.
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

    /// How often this factor was right; `None` if it was never asked for.
    pub fn share(&self, attribute: Attribute) -> Option<f64> {
        ratio(self.counts[attribute as usize])
    }

    /// How often everything that was asked for was right; `None` without an image.
    pub fn all(&self) -> Option<f64> {
        ratio(self.whole)
    }

    /// Images counted.
    pub fn images(&self) -> u64 {
        self.whole.1
    }
}

fn ratio((good, asked): (u64, u64)) -> Option<f64> {
    (asked > 0).then(|| good as f64 / asked as f64)
}

/// In percent, factor by factor: `kind 97.0, colour 99.0, .., all 91.0`.
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
