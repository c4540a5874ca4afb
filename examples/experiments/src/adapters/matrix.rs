//! The matrix of an experiment with an adapter: how often each factor is as in the condition, by task.

use fabric_world::{Attribute, Factor, Split};

use super::tables::{find, wordings_name};
use crate::report::{HeatMap, Table};
use crate::summary::mark;
use crate::{Group, Measure, SummaryRow};

/// Fewest cases of a cell. Intervals over fewer cases are too narrow; those over at least
/// [`FEWEST_PROMPTS`](crate::FEWEST_PROMPTS) cases are in `summary.csv`.
const FEWEST: usize = 10;

/// Group and arm of a line.
type Line<'a> = (Group, &'a str);

/// Returns the matrix as a table, with a line per arm, or per task and split of the wordings; `None` if no factor was
/// counted.
pub(super) fn matrix(rows: &[SummaryRow], control: &str) -> Option<Table> {
    let (lines, factors) = (lines(rows, control), factors(rows));
    if lines.is_empty() || factors.is_empty() {
        return None;
    }
    let cells = |line: &Line<'_>| {
        let cells = factors.iter().map(|factor| cell(rows, *line, *factor, control));
        [name(*line, &lines)].into_iter().chain(cells).collect()
    };
    let names = factors.iter().map(Attribute::to_string);
    Some(Table {
        caption: format!(
            "Percent as in the condition, and in brackets that of {control} on the same cases. *: the instruction asks \
             for the factor; + and - after a number: the 95 % interval of the difference excludes 0; - alone: fewer \
             than {FEWEST} cases whose text does not determine the factor"
        ),
        head: [String::new()].into_iter().chain(names).collect(),
        rows: lines.iter().map(cells).collect(),
    })
}

/// Returns the differences from the control as heat maps: one, or one for each split of the wordings.
pub(super) fn differences(rows: &[SummaryRow], control: &str) -> Vec<HeatMap> {
    let (lines, factors) = (lines(rows, control), factors(rows));
    let mut splits: Vec<Option<Split>> = lines.iter().map(|(group, _)| group.wordings).collect();
    splits.sort();
    splits.dedup();
    let map = |wordings: Option<Split>| {
        let own: Vec<Line<'_>> = lines.iter().copied().filter(|(group, _)| group.wordings == wordings).collect();
        let value = |(group, arm): Line<'_>, factor: Attribute| {
            let row = find(rows, group, arm, Measure::Factor(factor)).filter(|row| row.cases >= FEWEST);
            row.and_then(|row| row.difference).map_or(f64::NAN, |difference| difference.mean)
        };
        let values = own.iter().map(|line| factors.iter().map(|factor| value(*line, *factor)).collect());
        let place = wordings.map_or_else(String::new, |wordings| format!(", {}", wordings_name(wordings)));
        HeatMap {
            caption: format!("As in the condition, percentage points above {control}{place}"),
            rows: own.iter().map(|line| name(*line, &own)).collect(),
            columns: factors.iter().map(Attribute::to_string).collect(),
            values: values.collect(),
        }
    };
    splits.into_iter().map(map).collect()
}

/// Returns the lines of the matrix: all groups in which single factors are counted, each with all arms but the control.
fn lines<'a>(rows: &'a [SummaryRow], control: &str) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for row in rows.iter().filter(|row| matches!(row.measure, Measure::Factor(_)) && row.arm != control) {
        let line = (row.group, row.arm.as_str());
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    // Tasks follow one another, each with both splits.
    lines.sort();
    lines
}

/// Returns the name of a line: its task, its split if the other lines have another, and its arm if they have another.
fn name((group, arm): Line<'_>, lines: &[Line<'_>]) -> String {
    let has_splits = lines.iter().any(|(other, _)| other.wordings != group.wordings);
    let has_arms = group.task.is_none() || lines.iter().any(|(_, other)| *other != arm);
    let task = group.task.map(Factor::name);
    let wordings = group.wordings.filter(|_| has_splits).map(wordings_name);
    let parts = [task, wordings, Some(arm).filter(|_| has_arms)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Returns the factors that were counted.
fn factors(rows: &[SummaryRow]) -> Vec<Attribute> {
    let is_counted = |factor: &Attribute| rows.iter().any(|row| row.measure == Measure::Factor(*factor));
    Attribute::ALL.into_iter().filter(is_counted).collect()
}

/// Returns the text of a cell.
fn cell(rows: &[SummaryRow], (group, arm): Line<'_>, factor: Attribute, control: &str) -> String {
    let found = |arm: &str| find(rows, group, arm, Measure::Factor(factor)).filter(|row| row.cases >= FEWEST);
    let Some(row) = found(arm) else { return "-".to_owned() };
    let is_asked = group.task.is_some_and(|task| task.shared().contains(&factor));
    let star = if is_asked { "*" } else { "" };
    let beside = found(control).map_or_else(String::new, |row| format!(" ({:.0})", row.value.mean));
    format!("{:.0}{star}{beside}{}", row.value.mean, row.difference.map_or("", mark))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use fabric_world::InstructTask;

    use super::*;
    use crate::{AdapterRecord, ImageRecord, summary};

    /// Cases of each task and split.
    const CASES: usize = 20;

    fn record(arm: &str, case: usize, group: Group, asked: f64, factors: &[(Attribute, bool)]) -> ImageRecord {
        ImageRecord {
            config: String::new(),
            arm: arm.to_owned(),
            case,
            prompt: String::new(),
            round: 0,
            image: 0,
            seed: 0,
            score: None,
            liked_similarity: None,
            disliked_similarity: None,
            liked_kept: None,
            liked_copied: None,
            disliked_repeated: None,
            diversity: None,
            vote: None,
            file: None,
            origin: None,
            adapter: Some(AdapterRecord {
                task: group.task,
                wordings: group.wordings,
                instruction: None,
                condition_similarity: 50.0,
                caption_similarity: 20.0,
                text_similarity: None,
                beyond_text_similarity: None,
                asked_shown: Some(asked),
                text_shown: None,
                as_condition: factors.iter().copied().collect::<BTreeMap<_, _>>(),
                condition: None,
            }),
            reasons: Vec::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// Records of two tasks: with the adapter, the colour is as asked with trained wordings and in every second case
    /// with others, and the size always; without it, never. The texture is as in the condition in every image of half
    /// of the cases, and the text determines it in the others. The pattern is counted in three cases alone.
    pub(in crate::adapters) fn records() -> Vec<ImageRecord> {
        let mut records = Vec::new();
        let groups = [InstructTask::Colour, InstructTask::Composition]
            .into_iter()
            .flat_map(|task| Split::ALL.map(|split| Group { task: Some(task), wordings: Some(split) }));
        for (at, group) in groups.enumerate() {
            for number in 0..CASES {
                let case = at * CASES + number;
                for (arm, has_adapter) in [("text only", false), ("instruct", true)] {
                    let is_colour = group.task == Some(InstructTask::Colour);
                    let is_known = group.wordings == Some(Split::Train) || number % 2 == 0;
                    let is_right = has_adapter && (!is_colour || is_known);
                    let asked = if is_colour { Attribute::Colour } else { Attribute::Size };
                    let mut factors = vec![(asked, is_right)];
                    if number % 2 == 0 {
                        factors.push((Attribute::Texture, true));
                    }
                    if number < 3 {
                        factors.push((Attribute::BackgroundPattern, has_adapter));
                    }
                    records.push(record(arm, case, group, if is_right { 100.0 } else { 0.0 }, &factors));
                }
            }
        }
        records
    }

    #[test]
    fn the_matrix_has_a_line_per_task_and_split_beside_the_control() {
        let table = matrix(&summary(&records(), "text only"), "text only").expect("a matrix");
        assert_eq!(table.head, ["", "colour", "texture", "size", "background pattern"]);
        let expected = [
            ["colour, trained wordings", "100* (0) +", "100 (100)", "-", "-"],
            ["colour, held-out wordings", "50* (0) +", "100 (100)", "-", "-"],
            ["composition, trained wordings", "-", "100 (100)", "100* (0) +", "-"],
            ["composition, held-out wordings", "-", "100 (100)", "100* (0) +", "-"],
        ];
        assert_eq!(table.rows, expected);
        assert!(table.caption.contains("that of text only"), "{}", table.caption);
    }

    #[test]
    fn heat_maps_show_the_difference_for_each_split() {
        let maps = differences(&summary(&records(), "text only"), "text only");
        let captions: Vec<&str> = maps.iter().map(|map| map.caption.as_str()).collect();
        assert!(captions[0].ends_with("text only, trained wordings"), "{captions:?}");
        assert!(captions.len() == 2 && captions[1].ends_with("text only, held-out wordings"), "{captions:?}");
        let held_out = &maps[1];
        assert_eq!(held_out.rows, ["colour", "composition"]);
        assert_eq!(held_out.values[0][..2], [50.0, 0.0]);
        assert!(held_out.values[0][2].is_nan(), "the size was determined in all cases of the colour");
        assert_eq!(held_out.values[1][2], 100.0);
        assert!(held_out.values[1][3].is_nan(), "three cases are too few");
    }

    #[test]
    fn without_tasks_each_arm_has_a_line_and_missing_values_of_the_control_are_left_out() {
        let none = Group::default();
        let mut records = Vec::new();
        for case in 0..CASES {
            records.push(record("text only", case, none, 0.0, &[(Attribute::Size, case % 2 == 0)]));
            let without_text = [(Attribute::Kind, true), (Attribute::Size, true)];
            records.push(record("scale 1", case, none, 100.0, &without_text));
            records.push(record("scale 1 with text", case, none, 50.0, &[(Attribute::Size, case % 2 == 0)]));
        }
        let rows = summary(&records, "text only");
        let table = matrix(&rows, "text only").expect("a matrix");
        assert_eq!(table.head, ["", "kind", "size"]);
        assert_eq!(table.rows, [["scale 1", "100", "100 (50) +"], ["scale 1 with text", "-", "50 (50)"]]);
        let maps = differences(&rows, "text only");
        assert_eq!((maps.len(), maps[0].rows.len()), (1, 2));
        assert!(maps[0].values[0][0].is_nan() && maps[0].values[0][1] == 50.0);
    }

    #[test]
    fn records_without_factors_have_no_matrix() {
        let records = [record("text only", 0, Group::default(), 0.0, &[])];
        let rows = summary(&records, "text only");
        assert_eq!(matrix(&rows, "text only"), None);
        assert!(differences(&rows, "text only").is_empty());
    }
}
