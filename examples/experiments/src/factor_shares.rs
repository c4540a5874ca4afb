//! Counts the factors of liked and disliked images that an image repeats.

use fabric_world::Named;

/// Shares of factors that an image repeats from the references of its round, in percent. `None` where there is no
/// such factor.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FactorShares {
    /// Wanted values that the liked images show.
    pub kept: Option<f64>,
    /// Unwanted values that the liked images show.
    pub copied: Option<f64>,
    /// Unwanted values that the disliked images show.
    pub repeated: Option<f64>,
}

impl FactorShares {
    /// Compares what a reader sees in an image with what it sees in liked and disliked images.
    pub(crate) fn of(wanted: &Named, seen: &Named, liked: &[Named], disliked: &[Named]) -> Self {
        Self {
            kept: share(wanted, seen, liked, true),
            copied: share(wanted, seen, liked, false),
            repeated: share(wanted, seen, disliked, false),
        }
    }
}

/// Returns the share of the references' values that an image has too, among those that are wanted or those that are
/// not.
fn share(wanted: &Named, seen: &Named, references: &[Named], is_wanted: bool) -> Option<f64> {
    let (mut same, mut all) = (0_usize, 0_usize);
    for reference in references {
        for attribute in wanted.attributes() {
            let value = reference.index_of(attribute);
            if (value == wanted.index_of(attribute)) == is_wanted {
                all += 1;
                same += usize::from(seen.index_of(attribute) == value);
            }
        }
    }
    (all > 0).then(|| 100.0 * same as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use fabric_world::parse_caption;

    use super::*;

    #[test]
    fn wanted_and_unwanted_values_are_counted_apart() {
        let wanted = parse_caption("a large red star");
        let liked = [parse_caption("a large blue star"), parse_caption("a small red heart")];
        let seen = parse_caption("a large blue heart");
        let got = FactorShares::of(&wanted, &seen, &liked, &[]);
        // Wanted: large, star, red, of which the image has large; unwanted: blue, small, heart, of which two.
        assert!((got.kept.expect("liked") - 100.0 / 3.0).abs() < 1e-9, "{got:?}");
        assert!((got.copied.expect("liked") - 200.0 / 3.0).abs() < 1e-9, "{got:?}");
        assert_eq!(got.repeated, None);
        let got = FactorShares::of(&wanted, &wanted, &[wanted], &liked);
        assert_eq!((got.kept, got.copied, got.repeated), (Some(100.0), None, Some(0.0)));
    }
}
