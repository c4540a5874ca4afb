//! The tables of a run with an adapter.

use fabric_world::{InstructTask, Split};

use super::matrix::matrix;
use crate::estimate::caption_end;
use crate::report::Table;
use crate::run_report::arms;
use crate::summary::{cell, legend};
use crate::{Group, Measure, SummaryRow};

/// Measures that are shown for each task.
const BY_TASK: [Measure; 4] = [Measure::AskedShown, Measure::TextShown, Measure::ToCondition, Measure::BeyondTexts];

/// Returns the tables of a run with an adapter: all measures over all cases; with instructions also the measures of
/// each task, for wordings of training and others; and the matrix of factors.
pub fn adapter_tables(rows: &[SummaryRow], control: &str) -> Vec<Table> {
    let by_task = BY_TASK.into_iter().filter_map(|measure| by_task(rows, measure));
    std::iter::once(overview(rows, control)).chain(by_task).chain(matrix(rows, control)).collect()
}

/// Returns the name of a split of the instructions' wordings.
pub(super) fn wordings_name(wordings: Split) -> &'static str {
    match wordings {
        Split::Train => "trained wordings",
        Split::HeldOut => "held-out wordings",
    }
}

/// Returns the table of all measures, with a line per measure and a column per arm.
fn overview(rows: &[SummaryRow], control: &str) -> Table {
    let arms = arms(rows);
    let line = |measure: Measure| {
        let find = |arm: &&str| find(rows, Group::default(), arm, measure).map_or_else(|| "-".to_owned(), cell);
        [measure.name()].into_iter().chain(arms.iter().map(find)).collect()
    };
    let is_measured = |measure: &Measure| rows.iter().any(|row| row.measure == *measure);
    let is_shown = |row: &&SummaryRow| row.group == Group::default() && Measure::ALL.contains(&row.measure);
    let shown = rows.iter().filter(is_shown);
    Table {
        caption: format!("All cases; similarities and shares in percent. {}", legend(shown, control, "cases")),
        head: ["measure"].into_iter().chain(arms.iter().copied()).map(str::to_owned).collect(),
        rows: Measure::ALL.into_iter().filter(is_measured).map(line).collect(),
    }
}

/// Returns the table of a measure with a line per task, and a column for each arm with each split of the wordings;
/// `None` if the experiment has no instructions.
fn by_task(rows: &[SummaryRow], measure: Measure) -> Option<Table> {
    if !rows.iter().any(|row| row.measure == measure && row.group.task.is_some()) {
        return None;
    }
    let arms = arms(rows);
    let columns: Vec<(Split, &str)> =
        Split::ALL.into_iter().flat_map(|wordings| arms.iter().map(move |arm| (wordings, *arm))).collect();
    let line = |task: Option<InstructTask>| {
        let name = task.map_or_else(|| "all tasks".to_owned(), |task| task.to_string());
        let find = |(wordings, arm): &(Split, &str)| {
            let group = Group { task, wordings: Some(*wordings) };
            find(rows, group, arm, measure).map_or_else(|| "-".to_owned(), cell)
        };
        [name].into_iter().chain(columns.iter().map(find)).collect()
    };
    let names = columns.iter().map(|(wordings, arm)| format!("{}: {arm}", wordings_name(*wordings)));
    let shown = rows.iter().filter(|row| row.measure == measure && row.group.wordings.is_some());
    let end = caption_end(shown.filter_map(|row| row.difference), "");
    Some(Table {
        caption: format!("{}, in percent, by task{end}", measure.name()),
        head: ["task".to_owned()].into_iter().chain(names).collect(),
        rows: InstructTask::ALL.into_iter().map(Some).chain([None]).map(line).collect(),
    })
}

/// Returns the row of a measure, if there is one.
pub(super) fn find<'a>(rows: &'a [SummaryRow], group: Group, arm: &str, measure: Measure) -> Option<&'a SummaryRow> {
    rows.iter().find(|row| (row.group, row.arm.as_str(), row.measure) == (group, arm, measure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::matrix::tests::records;
    use crate::summary;

    #[test]
    fn held_out_wordings_stand_beside_trained_ones_and_all_tasks_come_last() {
        let rows = summary(&records(), "text only");
        let tables = adapter_tables(&rows, "text only");
        let asked = tables.iter().find(|table| table.caption.starts_with("asked factors")).expect("a table");
        let head = [
            "task",
            "trained wordings: text only",
            "trained wordings: instruct",
            "held-out wordings: text only",
            "held-out wordings: instruct",
        ];
        assert_eq!(asked.head, head);
        let line = |task: &str| asked.rows.iter().find(|row| row[0] == task).expect("a line").clone();
        // The colour is as asked with trained wordings, and half of the time with others; the size is always.
        assert_eq!(line("colour")[1..4], ["0.0", "100.0 (+100.0, +100.0 to +100.0) +", "0.0"]);
        assert!(line("colour")[4].starts_with("50.0 (+50.0"), "{:?}", line("colour"));
        assert_eq!(line("background")[1..], ["-", "-", "-", "-"]);
        let last = asked.rows.last().expect("lines");
        assert!(last[0] == "all tasks" && last[4].starts_with("75.0"), "{last:?}");
    }
}
