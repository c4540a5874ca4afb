//! Wanted factors: those that an image shows, and those that earlier images of its session showed.

use std::collections::{BTreeMap, BTreeSet};

use fabric_world::{Attribute, Named};
use serde::{Deserialize, Serialize};

use crate::ImageRecord;
use crate::report::Table;

/// Wanted factor in one image of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedFactor {
    /// Whether the image shows the wanted value.
    pub shown: bool,
    /// Whether an image of an earlier round did. What was shown can be kept; what was not must still be found.
    pub shown_before: bool,
}

/// The wanted factors of a session, and those that its images showed so far.
#[derive(Debug)]
pub(crate) struct WantedFactors {
    wanted: Named,
    before: BTreeSet<Attribute>,
}

impl WantedFactors {
    pub(crate) fn new(wanted: Named) -> Self {
        Self { wanted, before: BTreeSet::new() }
    }

    /// Compares what a reader sees in the images of the next round with what is wanted.
    pub(crate) fn of_round(&mut self, seen: &[Named]) -> Vec<BTreeMap<Attribute, WantedFactor>> {
        let shows = |seen: &Named, factor| seen.index_of(factor) == self.wanted.index_of(factor);
        let of = |seen: &Named| {
            let one = |factor| {
                (factor, WantedFactor { shown: shows(seen, factor), shown_before: self.before.contains(&factor) })
            };
            self.wanted.attributes().map(one).collect()
        };
        let images = seen.iter().map(of).collect();
        let shown: Vec<Attribute> =
            self.wanted.attributes().filter(|&factor| seen.iter().any(|seen| shows(seen, factor))).collect();
        self.before.extend(shown);
        images
    }
}

/// Returns a table of the last round: for each factor and arm, how many percent of the images show the wanted value, where
/// an earlier image did and where none did. `None` without factors.
pub(crate) fn by_factor(records: &[ImageRecord]) -> Option<Table> {
    let last = records.iter().map(|record| record.round).max()?;
    let records: Vec<&ImageRecord> = records.iter().filter(|record| record.round == last).collect();
    let arms: BTreeSet<&str> = records.iter().map(|record| record.arm.as_str()).collect();
    let factors: BTreeSet<Attribute> = records.iter().flat_map(|record| record.wanted.keys().copied()).collect();
    let cell = |factor: Attribute, arm: &str| {
        let of_arm = records.iter().filter(|record| record.arm == arm);
        let own: Vec<WantedFactor> = of_arm.filter_map(|record| record.wanted.get(&factor).copied()).collect();
        let share = |before: bool| {
            let own: Vec<_> = own.iter().filter(|factor| factor.shown_before == before).collect();
            let shown = own.iter().filter(|factor| factor.shown).count();
            if own.is_empty() { "-".to_owned() } else { format!("{:.0}", 100.0 * shown as f64 / own.len() as f64) }
        };
        let before = own.iter().filter(|factor| factor.shown_before).count();
        format!("{} of {before}, {} of {}", share(true), share(false), own.len() - before)
    };
    let row =
        |factor: Attribute| [factor.to_string()].into_iter().chain(arms.iter().map(|arm| cell(factor, arm))).collect();
    let table = Table {
        caption: format!(
            "Images of round {} that show a wanted factor: percent of those whose session had shown it before, and of the others",
            last + 1
        ),
        head: ["factor"].into_iter().chain(arms.iter().copied()).map(str::to_owned).collect(),
        rows: factors.into_iter().map(row).collect(),
    };
    (!table.rows.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use fabric_world::parse_caption;

    use super::*;

    #[test]
    fn what_a_round_shows_was_shown_before_in_later_rounds_alone() {
        let mut wanted = WantedFactors::new(parse_caption("a large red star"));
        let factor = |shown, shown_before| WantedFactor { shown, shown_before };
        let first = wanted.of_round(&[parse_caption("a large blue star"), parse_caption("a small blue star")]);
        let expected = [(Attribute::Kind, factor(true, false)), (Attribute::Size, factor(true, false))];
        assert!(expected.iter().all(|(attribute, factor)| first[0][attribute] == *factor), "{first:?}");
        assert_eq!(first[1][&Attribute::Size], factor(false, false));
        assert_eq!(first[0][&Attribute::Colour], factor(false, false));
        let second = wanted.of_round(&[parse_caption("a small red star")]);
        assert_eq!(second[0][&Attribute::Kind], factor(true, true));
        assert_eq!(second[0][&Attribute::Size], factor(false, true));
        assert_eq!(second[0][&Attribute::Colour], factor(true, false));
    }

    #[test]
    fn factors_are_counted_by_arm_in_the_last_round() {
        const OLD: &str = concat!(
            r#"{"config":"0","arm":"liked","case":3,"prompt":"a star","round":1,"image":2,"seed":7,"score":41.5,"#,
            r#""liked_similarity":50.25,"disliked_similarity":null,"liked_kept":null,"liked_copied":12.5,"#,
            r#""disliked_repeated":null,"diversity":0.25,"vote":-1.0,"file":null}"#,
        );
        let record = |round, shown, shown_before| {
            let mut record: ImageRecord = serde_json::from_str(OLD).expect("a record");
            record.round = round;
            record.wanted.insert(Attribute::Size, WantedFactor { shown, shown_before });
            record
        };
        assert_eq!(by_factor(&[]), None);
        let records = [record(0, true, false), record(1, true, true), record(1, false, true), record(1, false, false)];
        let table = by_factor(&records).expect("a table");
        assert_eq!(
            (table.head, table.rows),
            (
                vec!["factor".to_owned(), "liked".to_owned()],
                vec![vec!["size".to_owned(), "50 of 2, 0 of 1".to_owned()]],
            )
        );
        let written = serde_json::to_string(&records[1]).expect("plain data");
        assert!(written.ends_with(r#""wanted":{"size":{"shown":true,"shown_before":true}}}"#), "{written}");
    }
}
