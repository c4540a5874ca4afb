//! Means over prompts, with intervals, and paired differences from the control.

use std::collections::{BTreeMap, BTreeSet};

use fabric::core::metrics::{Interval, bootstrap_mean};

use crate::ImageRecord;

/// One number per round of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Mean score of the round's images.
    Mean,
    /// Lowest score of the round.
    Lowest,
    /// Highest score of the round.
    Best,
    /// Highest score of this and all earlier rounds.
    BestSoFar,
    /// Mean similarity to images liked in earlier rounds.
    ToLiked,
    /// Mean similarity to images disliked in earlier rounds.
    ToDisliked,
    /// Mean share of the wanted factors of liked images that images show too.
    LikedKept,
    /// Mean share of the unwanted factors of liked images that images show too.
    LikedCopied,
    /// Mean share of the unwanted factors of disliked images that images show too.
    DislikedRepeated,
    /// Diversity of the round.
    Diversity,
}

impl Measure {
    /// All measures, in the order of tables.
    pub const ALL: [Self; 10] = [
        Self::Mean,
        Self::Lowest,
        Self::Best,
        Self::BestSoFar,
        Self::ToLiked,
        Self::ToDisliked,
        Self::LikedKept,
        Self::LikedCopied,
        Self::DislikedRepeated,
        Self::Diversity,
    ];

    /// Name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean score",
            Self::Lowest => "lowest score",
            Self::Best => "best score",
            Self::BestSoFar => "best score so far",
            Self::ToLiked => "similarity to liked",
            Self::ToDisliked => "similarity to disliked",
            Self::LikedKept => "wanted factors of liked kept",
            Self::LikedCopied => "unwanted factors of liked copied",
            Self::DislikedRepeated => "unwanted factors of disliked repeated",
            Self::Diversity => "diversity",
        }
    }

    /// Returns the number for the images of a round, and the best score of earlier rounds; `None` where it is not
    /// defined, such as similarities in the first round.
    fn of(self, images: &[&ImageRecord], before: f64) -> Option<f64> {
        let scores = || images.iter().map(|image| image.score);
        let mean = |value: fn(&ImageRecord) -> Option<f64>| {
            let values: Vec<f64> = images.iter().filter_map(|image| value(image)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        match self {
            Self::Mean => mean(|image| Some(image.score)),
            Self::Lowest => scores().reduce(f64::min),
            Self::Best => scores().reduce(f64::max),
            Self::BestSoFar => scores().reduce(f64::max).map(|best| best.max(before)),
            Self::ToLiked => mean(|image| image.liked_similarity),
            Self::ToDisliked => mean(|image| image.disliked_similarity),
            Self::LikedKept => mean(|image| image.liked_kept),
            Self::LikedCopied => mean(|image| image.liked_copied),
            Self::DislikedRepeated => mean(|image| image.disliked_repeated),
            Self::Diversity => mean(|image| image.diversity),
        }
    }
}

/// A measure of an arm in a round, over all prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct SummaryRow {
    /// The arm.
    pub arm: String,
    /// Round, from 0.
    pub round: usize,
    /// The measure.
    pub measure: Measure,
    /// Number of prompts.
    pub cases: usize,
    /// Mean over the prompts.
    pub value: Interval,
    /// Mean difference from the control on the same prompts; `None` for the control itself.
    pub difference: Option<Interval>,
}

/// Values by arm, round and measure, and in them by case.
type Values<'a> = BTreeMap<(&'a str, usize, Measure), BTreeMap<usize, f64>>;

/// Summarises the records of a run. Rows are ordered by measure, round and arm; the control comes first.
pub fn summary(records: &[ImageRecord], control: &str) -> Vec<SummaryRow> {
    let values = values(records);
    let mut keys: Vec<&(&str, usize, Measure)> = values.keys().collect();
    keys.sort_by_key(|(arm, round, measure)| (*measure, *round, *arm != control, *arm));
    let row = |key: &(&str, usize, Measure)| {
        let (arm, round, measure) = *key;
        let own = &values[key];
        let value = bootstrap_mean(&own.values().copied().collect::<Vec<_>>())?;
        let theirs = values.get(&(control, round, measure)).filter(|_| arm != control);
        let difference = theirs.and_then(|theirs| {
            let pairs = own.iter().filter_map(|(case, value)| Some(value - theirs.get(case)?));
            bootstrap_mean(&pairs.collect::<Vec<_>>())
        });
        Some(SummaryRow { arm: arm.to_owned(), round, measure, cases: own.len(), value, difference })
    };
    keys.into_iter().filter_map(row).collect()
}

fn values(records: &[ImageRecord]) -> Values<'_> {
    let mut rounds: BTreeMap<(&str, usize, usize), Vec<&ImageRecord>> = BTreeMap::new();
    for record in records {
        rounds.entry((&record.arm, record.case, record.round)).or_default().push(record);
    }
    let mut values = Values::new();
    // Rounds of a session follow one another in the map, so the best score so far can be carried along.
    let mut best: (Option<(&str, usize)>, f64) = (None, f64::NEG_INFINITY);
    for ((arm, case, round), images) in &rounds {
        if best.0 != Some((arm, *case)) {
            best = (Some((arm, *case)), f64::NEG_INFINITY);
        }
        for measure in Measure::ALL {
            if let Some(value) = measure.of(images, best.1) {
                values.entry((arm, *round, measure)).or_default().insert(*case, value);
            }
        }
        best.1 = images.iter().map(|image| image.score).fold(best.1, f64::max);
    }
    values
}

/// Formats a summary as a text table: one line per measure and round, one column per arm.
///
/// A difference from the control whose interval excludes 0 is marked with `+` or `-`.
pub fn table(rows: &[SummaryRow], control: &str) -> String {
    let mut arms: Vec<&str> = Vec::new();
    for row in rows {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    arms.sort_by_key(|arm| *arm != control);
    let mut text = format!("| measure | round | {} |\n|{}\n", arms.join(" | "), "---|".repeat(arms.len() + 2));
    let lines: BTreeSet<(Measure, usize)> = rows.iter().map(|row| (row.measure, row.round)).collect();
    for (measure, round) in lines {
        let cell = |arm: &&str| {
            let row = rows.iter().find(|row| row.arm == *arm && row.measure == measure && row.round == round);
            row.map_or_else(|| "-".to_owned(), cell)
        };
        let cells: Vec<String> = arms.iter().map(cell).collect();
        text.push_str(&format!("| {} | {} | {} |\n", measure.name(), round + 1, cells.join(" | ")));
    }
    text
}

/// Formats a mean with its difference from the control.
pub(crate) fn cell(row: &SummaryRow) -> String {
    let digits = if row.measure == Measure::Diversity { 3 } else { 1 };
    let value = format!("{:.digits$}", row.value.mean);
    match row.difference {
        None => value,
        Some(difference) => {
            let mark = match difference {
                _ if !difference.excludes_zero() => "",
                Interval { mean, .. } if mean > 0.0 => " +",
                _ => " -",
            };
            format!(
                "{value} ({:+.digits$}, {:+.digits$} to {:+.digits$}){mark}",
                difference.mean, difference.low, difference.high
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(arm: &str, case: usize, round: usize, image: usize, score: f64) -> ImageRecord {
        ImageRecord {
            config: String::new(),
            arm: arm.to_owned(),
            case,
            prompt: String::new(),
            round,
            image,
            seed: 0,
            score,
            liked_similarity: (round > 0).then_some(50.0),
            disliked_similarity: None,
            liked_kept: None,
            liked_copied: None,
            disliked_repeated: None,
            diversity: Some(0.25),
            vote: None,
            file: None,
        }
    }

    #[test]
    fn differences_are_paired_by_prompt() {
        // Prompts differ by far more than the arms do; paired, the difference is plain.
        let mut records = Vec::new();
        for case in 0..20 {
            for image in 0..2 {
                let hard = 10.0 * case as f64;
                records.push(record("no feedback", case, 0, image, hard));
                records.push(record("fabric", case, 0, image, hard + 1.0 + image as f64));
            }
        }
        let rows = summary(&records, "no feedback");
        let find = |arm: &str, measure| {
            rows.iter().find(|row| row.arm == arm && row.measure == measure).expect("a row").clone()
        };
        let difference = find("fabric", Measure::Mean).difference.expect("paired");
        assert!((difference.mean - 1.5).abs() < 1e-9 && difference.high - difference.low < 1e-9, "{difference:?}");
        assert_eq!(find("fabric", Measure::Lowest).difference.expect("paired").mean, 1.0);
        assert_eq!(find("fabric", Measure::Best).difference.expect("paired").mean, 2.0);
        assert_eq!(find("no feedback", Measure::Mean).difference, None);
        assert_eq!(rows[0].arm, "no feedback", "the control comes first");
        assert!(table(&rows, "no feedback").contains("(+1.5, +1.5 to +1.5) +"));
    }

    #[test]
    fn the_best_so_far_never_falls_and_the_first_round_has_no_similarity() {
        let records = [
            record("a", 0, 0, 0, 5.0),
            record("a", 0, 1, 0, 3.0),
            record("a", 1, 0, 0, 1.0),
            record("a", 1, 1, 0, 2.0),
        ];
        let rows = summary(&records, "a");
        let of = |measure, round| {
            rows.iter().find(|row| (row.measure, row.round) == (measure, round)).map(|row| row.value.mean)
        };
        assert_eq!((of(Measure::BestSoFar, 0), of(Measure::BestSoFar, 1)), (Some(3.0), Some(3.5)));
        assert_eq!((of(Measure::ToLiked, 0), of(Measure::ToLiked, 1)), (None, Some(50.0)));
    }
}
