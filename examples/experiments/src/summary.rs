//! Means over prompts, with intervals, and paired differences from the control.

use std::collections::{BTreeMap, BTreeSet};

use fabric_world::{Attribute, InstructTask, Split};

use crate::estimate::caption_end;
use crate::{AdapterRecord, Estimate, ImageRecord};

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
    /// Share of the wanted factors that images show, of those that an image of an earlier round showed.
    WantedKept,
    /// Share of the wanted factors that images show, of those that no image of an earlier round showed.
    WantedFound,
    /// Diversity of the round.
    Diversity,
    /// Mean similarity to the condition image.
    ToCondition,
    /// Mean similarity to the caption of the condition image.
    ToCaption,
    /// Mean similarity to the text.
    ToText,
    /// Mean similarity to the condition image beyond the texts of both.
    BeyondTexts,
    /// Mean share of the asked factors that images have from the condition.
    AskedShown,
    /// Mean share of the factors that the text names that images show.
    TextShown,
    /// Share of the images that have this factor from the condition, among those whose text does not determine it.
    Factor(Attribute),
}

impl Measure {
    /// All measures, in the order of tables, but for those of single factors.
    pub const ALL: [Self; 18] = [
        Self::Mean,
        Self::Lowest,
        Self::Best,
        Self::BestSoFar,
        Self::ToLiked,
        Self::ToDisliked,
        Self::LikedKept,
        Self::LikedCopied,
        Self::DislikedRepeated,
        Self::WantedKept,
        Self::WantedFound,
        Self::Diversity,
        Self::ToCondition,
        Self::ToCaption,
        Self::ToText,
        Self::BeyondTexts,
        Self::AskedShown,
        Self::TextShown,
    ];

    /// Returns all measures, those of single factors last.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(Attribute::ALL.map(Self::Factor))
    }

    /// Name in tables.
    pub fn name(self) -> String {
        let name = match self {
            Self::Mean => "mean score",
            Self::Lowest => "lowest score",
            Self::Best => "best score",
            Self::BestSoFar => "best score so far",
            Self::ToLiked => "similarity to liked",
            Self::ToDisliked => "similarity to disliked",
            Self::LikedKept => "wanted factors of liked kept",
            Self::LikedCopied => "unwanted factors of liked copied",
            Self::DislikedRepeated => "unwanted factors of disliked repeated",
            Self::WantedKept => "wanted factors shown, of those shown before",
            Self::WantedFound => "wanted factors shown, of those never shown before",
            Self::Diversity => "diversity",
            Self::ToCondition => "similarity to the condition (CLIP-I)",
            Self::ToCaption => "similarity to the condition's caption (CLIP-T)",
            Self::ToText => "similarity to the text (CLIP-P)",
            Self::BeyondTexts => "similarity to the condition beyond the texts (CLIP-S)",
            Self::AskedShown => "asked factors as in the condition",
            Self::TextShown => "named factors as in the text",
            Self::Factor(attribute) => return format!("{attribute} as in the condition"),
        };
        name.to_owned()
    }

    /// Whether the measure has a meaning over the cases of this group. Single factors are counted for each task alone:
    /// some tasks ask for them, and others do not.
    fn is_of(self, group: Group, has_tasks: bool) -> bool {
        !matches!(self, Self::Factor(_)) || group.task.is_some() == has_tasks
    }

    /// Returns the number for the images of a round, and the best score of earlier rounds; `None` where it is not
    /// defined, such as similarities in the first round.
    fn of(self, images: &[&ImageRecord], before: f64) -> Option<f64> {
        let wanted = |image: &ImageRecord, shown_before: bool| {
            let factors = image.wanted.values().filter(|factor| factor.shown_before == shown_before);
            let shown = factors.clone().filter(|factor| factor.shown).count();
            let count = factors.count();
            (count > 0).then(|| 100.0 * shown as f64 / count as f64)
        };
        let scores = || images.iter().filter_map(|image| image.score);
        let mean = |value: &dyn Fn(&ImageRecord) -> Option<f64>| {
            let values: Vec<f64> = images.iter().filter_map(|image| value(image)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let compared = |value: &dyn Fn(&AdapterRecord) -> Option<f64>| mean(&|image| value(image.adapter.as_ref()?));
        let percent = |is_same: &bool| 100.0 * f64::from(u8::from(*is_same));
        match self {
            Self::Mean => mean(&|image| image.score),
            Self::Lowest => scores().reduce(f64::min),
            Self::Best => scores().reduce(f64::max),
            Self::BestSoFar => scores().reduce(f64::max).map(|best| best.max(before)),
            Self::ToLiked => mean(&|image| image.liked_similarity),
            Self::ToDisliked => mean(&|image| image.disliked_similarity),
            Self::LikedKept => mean(&|image| image.liked_kept),
            Self::LikedCopied => mean(&|image| image.liked_copied),
            Self::DislikedRepeated => mean(&|image| image.disliked_repeated),
            Self::WantedKept => mean(&|image| wanted(image, true)),
            Self::WantedFound => mean(&|image| wanted(image, false)),
            Self::Diversity => mean(&|image| image.diversity),
            Self::ToCondition => compared(&|adapter| Some(adapter.condition_similarity)),
            Self::ToCaption => compared(&|adapter| Some(adapter.caption_similarity)),
            Self::ToText => compared(&|adapter| adapter.text_similarity),
            Self::BeyondTexts => compared(&|adapter| adapter.beyond_text_similarity),
            Self::AskedShown => compared(&|adapter| adapter.asked_shown),
            Self::TextShown => compared(&|adapter| adapter.text_shown),
            Self::Factor(attribute) => compared(&|adapter| adapter.as_condition.get(&attribute).map(percent)),
        }
    }
}

/// Some of the cases of an experiment with instructions: those of one task and one split of the wordings, or of one
/// split. The default is all cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Group {
    /// The task; `None` for all tasks.
    pub task: Option<InstructTask>,
    /// The split of the instructions' wordings; `None` for both.
    pub wordings: Option<Split>,
}

impl Group {
    /// Returns all groups to which an image belongs.
    fn all_of(image: &ImageRecord) -> Vec<Self> {
        let adapter = image.adapter.as_ref();
        let task = adapter.and_then(|adapter| adapter.task);
        let wordings = adapter.and_then(|adapter| adapter.wordings);
        let mut groups = vec![Self::default(), Self { task: None, wordings }, Self { task, wordings }];
        groups.dedup();
        groups
    }
}

/// A measure of an arm in a round, over all prompts or those of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct SummaryRow {
    /// The prompts.
    pub group: Group,
    /// The arm.
    pub arm: String,
    /// Round, from 0.
    pub round: usize,
    /// The measure.
    pub measure: Measure,
    /// Number of prompts.
    pub cases: usize,
    /// Mean over the prompts.
    pub value: Estimate,
    /// Mean difference from the control on the same prompts; `None` for the control itself.
    pub difference: Option<Estimate>,
}

/// Group, arm, round and measure.
pub(crate) type Key<'a> = (Group, &'a str, usize, Measure);
/// Values by group, arm, round and measure, and in them by case.
pub(crate) type Values<'a> = BTreeMap<Key<'a>, BTreeMap<usize, f64>>;

/// Summarises the records of a run. Rows are ordered by group, measure, round and arm; all prompts come first among the
/// groups, and the control among the arms.
pub fn summary(records: &[ImageRecord], control: &str) -> Vec<SummaryRow> {
    summary_of(&values(records), control)
}

/// Summarises values, as [`summary`] does those of records.
pub(crate) fn summary_of(values: &Values<'_>, control: &str) -> Vec<SummaryRow> {
    let mut keys: Vec<&Key<'_>> = values.keys().collect();
    keys.sort_by_key(|(group, arm, round, measure)| (*group, *measure, *round, *arm != control, *arm));
    let row = |key: &Key<'_>| {
        let (group, arm, round, measure) = *key;
        let own = &values[key];
        let value = Estimate::of(&own.values().copied().collect::<Vec<_>>())?;
        let theirs = values.get(&(group, control, round, measure)).filter(|_| arm != control);
        let difference = theirs.and_then(|theirs| {
            let pairs = own.iter().filter_map(|(case, value)| Some(value - theirs.get(case)?));
            Estimate::of(&pairs.collect::<Vec<_>>())
        });
        Some(SummaryRow { group, arm: arm.to_owned(), round, measure, cases: own.len(), value, difference })
    };
    keys.into_iter().filter_map(row).collect()
}

/// Returns the value of each measure for each arm, round and case of the records.
pub(crate) fn values(records: &[ImageRecord]) -> Values<'_> {
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
        let groups = images.first().map_or_else(Vec::new, |image| Group::all_of(image));
        let has_tasks = groups.iter().any(|group| group.task.is_some());
        for measure in Measure::all() {
            let Some(value) = measure.of(images, best.1) else { continue };
            for group in groups.iter().filter(|group| measure.is_of(**group, has_tasks)) {
                values.entry((*group, arm, *round, measure)).or_default().insert(*case, value);
            }
        }
        best.1 = images.iter().filter_map(|image| image.score).fold(best.1, f64::max);
    }
    values
}

/// Formats a summary over all prompts as a text table: one line per measure and round, one column per arm. Below it, a
/// line explains the cells.
///
/// A difference from the control whose interval excludes 0 is marked with `+` or `-`. Differences over fewer than
/// [`FEWEST_PROMPTS`](crate::FEWEST_PROMPTS) prompts have no interval.
pub fn table(rows: &[SummaryRow], control: &str) -> String {
    let rows: Vec<&SummaryRow> = rows.iter().filter(|row| row.group == Group::default()).collect();
    let mut arms: Vec<&str> = Vec::new();
    for row in &rows {
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
            row.map_or_else(|| "-".to_owned(), |row| cell(row))
        };
        let cells: Vec<String> = arms.iter().map(cell).collect();
        text.push_str(&format!("| {} | {} | {} |\n", measure.name(), round + 1, cells.join(" | ")));
    }
    text.push_str(&format!("\n{}\n", legend(rows.iter().copied(), control, "prompts")));
    text
}

/// Explains the cells of a table of these rows. `cases` is the word for what the means are over.
pub(crate) fn legend<'a>(rows: impl IntoIterator<Item = &'a SummaryRow>, control: &str, cases: &str) -> String {
    let differences = rows.into_iter().filter_map(|row| row.difference);
    let end = caption_end(differences, ", with its 95 % interval; + and - where that excludes 0");
    format!("In brackets: difference from {control} on the same {cases}{end}")
}

/// Formats a mean with its difference from the control.
pub(crate) fn cell(row: &SummaryRow) -> String {
    let digits = if row.measure == Measure::Diversity { 3 } else { 1 };
    let value = format!("{:.digits$}", row.value.mean);
    match row.difference {
        None => value,
        Some(Estimate { mean, interval: None }) => format!("{value} ({mean:+.digits$})"),
        Some(difference @ Estimate { mean, interval: Some([low, high]) }) => {
            format!("{value} ({mean:+.digits$}, {low:+.digits$} to {high:+.digits$}){}", mark(difference))
        }
    }
}

/// Returns the mark of a difference whose interval excludes 0, which tells its sign.
pub(crate) fn mark(difference: Estimate) -> &'static str {
    match difference {
        _ if !difference.excludes_zero() => "",
        Estimate { mean, .. } if mean > 0.0 => " +",
        _ => " -",
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
            score: Some(score),
            liked_similarity: (round > 0).then_some(50.0),
            disliked_similarity: None,
            liked_kept: None,
            liked_copied: None,
            disliked_repeated: None,
            diversity: Some(0.25),
            vote: None,
            file: None,
            origin: None,
            adapter: None,
            reasons: Vec::new(),
            wanted: BTreeMap::new(),
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
        let [low, high] = difference.interval.expect("enough prompts");
        assert!((difference.mean - 1.5).abs() < 1e-9 && high - low < 1e-9, "{difference:?}");
        assert_eq!(find("fabric", Measure::Lowest).difference.expect("paired").mean, 1.0);
        assert_eq!(find("fabric", Measure::Best).difference.expect("paired").mean, 2.0);
        assert_eq!(find("no feedback", Measure::Mean).difference, None);
        assert_eq!(rows[0].arm, "no feedback", "the control comes first");
        let table = table(&rows, "no feedback");
        assert!(table.contains("(+1.5, +1.5 to +1.5) +") && !table.contains("too few prompts"), "{table}");
    }

    #[test]
    fn a_table_of_few_prompts_has_figures_without_intervals_and_marks_and_says_so_once() {
        // Every prompt gains, so an interval over any number of them would exclude 0.
        let of_prompts = |count: usize| {
            let records = (0..count).flat_map(|case| {
                let score = 1.0 + case as f64 / 100.0;
                [record("no feedback", case, 0, 0, 0.0), record("fabric", case, 0, 0, score)]
            });
            table(&summary(&records.collect::<Vec<_>>(), "no feedback"), "no feedback")
        };
        for count in [1, 2, 4] {
            let table = of_prompts(count);
            assert!(table.contains("| 1.0 (+1.0) |"), "{table}");
            assert!(!table.contains(" to ") && !table.contains(") +"), "{table}");
            assert_eq!(table.matches("too few prompts for an interval").count(), 1, "{table}");
        }
        let table = of_prompts(5);
        assert!(table.contains("| 1.0 (+1.0, +1.0 to +1.0) + |"), "{table}");
        assert!(table.contains("with its 95 % interval") && !table.contains("too few prompts"), "{table}");
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
