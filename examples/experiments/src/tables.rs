//! The tables of a run as CSV files.

use std::fs;
use std::path::Path;

use fabric_world::Attribute;

use crate::{AdapterRecord, ExperimentError, ImageRecord, SummaryRow};

/// Writes `images.csv`, a line per image, and `summary.csv`, a line per measure, round and arm, of experiments with
/// instructions also per task and split of the wordings. The ends of an interval are empty for fewer than
/// [`FEWEST_PROMPTS`](crate::FEWEST_PROMPTS) prompts.
///
/// The columns of reasons, of origins and of adapters are written only if a record has them. Those of adapters are what
/// an image is compared with, and a column per factor, 1 if it is as in the condition, 0 if not, and empty if the text
/// determines it.
///
/// # Errors
///
/// Returns an error if a file cannot be written.
pub fn write_tables(folder: &Path, records: &[ImageRecord], rows: &[SummaryRow]) -> Result<(), ExperimentError> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let has_reasons = records.iter().any(|record| !record.reasons.is_empty());
    let has_origins = records.iter().any(|record| record.origin.is_some());
    let has_adapters = records.iter().any(|record| record.adapter.is_some());
    let factors = Attribute::ALL.map(|attribute| attribute.to_string());
    let mut images = csv::Writer::from_writer(Vec::new());
    let mut head = vec![
        "config",
        "arm",
        "case",
        "prompt",
        "round",
        "image",
        "seed",
        "score",
        "liked_similarity",
        "disliked_similarity",
        "liked_kept",
        "liked_copied",
        "disliked_repeated",
        "diversity",
        "vote",
        "file",
    ];
    if has_reasons {
        head.push("reasons");
    }
    if has_origins {
        head.push("origin");
    }
    if has_adapters {
        head.extend(ADAPTER_COLUMNS);
        head.extend(factors.iter().map(String::as_str));
    }
    let lines = records.iter().map(|record| {
        let mut line = vec![
            record.config.clone(),
            record.arm.clone(),
            record.case.to_string(),
            record.prompt.clone(),
            record.round.to_string(),
            record.image.to_string(),
            record.seed.to_string(),
            number(record.score),
            number(record.liked_similarity),
            number(record.disliked_similarity),
            number(record.liked_kept),
            number(record.liked_copied),
            number(record.disliked_repeated),
            number(record.diversity),
            number(record.vote),
            record.file.clone().unwrap_or_default(),
        ];
        if has_reasons {
            line.push(record.reasons_text());
        }
        if has_origins {
            line.push(record.origin.as_ref().map_or_else(String::new, ToString::to_string));
        }
        if let Some(adapter) = &record.adapter {
            line.extend(adapter_cells(adapter));
        }
        line.resize(head.len(), String::new());
        line
    });
    write_all(&mut images, &head, lines);
    save(&folder.join("images.csv"), images)?;

    let mut summary = csv::Writer::from_writer(Vec::new());
    let head = [
        "measure",
        "round",
        "arm",
        "cases",
        "mean",
        "low",
        "high",
        "difference",
        "difference_low",
        "difference_high",
        "task",
        "wordings",
    ];
    let lines = rows.iter().map(|row| {
        let (difference, interval) = (row.difference, row.value.interval);
        let of_difference = difference.and_then(|difference| difference.interval);
        vec![
            row.measure.name(),
            row.round.to_string(),
            row.arm.clone(),
            row.cases.to_string(),
            row.value.mean.to_string(),
            number(interval.map(|[low, _]| low)),
            number(interval.map(|[_, high]| high)),
            number(difference.map(|difference| difference.mean)),
            number(of_difference.map(|[low, _]| low)),
            number(of_difference.map(|[_, high]| high)),
            row.group.task.map_or_else(String::new, |task| task.to_string()),
            row.group.wordings.map_or_else(String::new, |split| split.to_string()),
        ]
    });
    write_all(&mut summary, &head, lines);
    save(&folder.join("summary.csv"), summary)
}

/// Columns of adapters, without those of the factors.
const ADAPTER_COLUMNS: [&str; 10] = [
    "task",
    "wordings",
    "instruction",
    "condition_similarity",
    "caption_similarity",
    "text_similarity",
    "beyond_text_similarity",
    "asked_shown",
    "text_shown",
    "condition",
];

/// Returns the cells of an adapter's columns, and one per factor.
fn adapter_cells(adapter: &AdapterRecord) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let mut cells = vec![
        adapter.task.map_or_else(String::new, |task| task.to_string()),
        adapter.wordings.map_or_else(String::new, |split| split.to_string()),
        adapter.instruction.clone().unwrap_or_default(),
        number(Some(adapter.condition_similarity)),
        number(Some(adapter.caption_similarity)),
        number(adapter.text_similarity),
        number(adapter.beyond_text_similarity),
        number(adapter.asked_shown),
        number(adapter.text_shown),
        adapter.condition.clone().unwrap_or_default(),
    ];
    cells.extend(Attribute::ALL.map(|attribute| {
        let is_same = adapter.as_condition.get(&attribute);
        is_same.map_or_else(String::new, |is_same| u8::from(*is_same).to_string())
    }));
    cells
}

fn write_all(writer: &mut csv::Writer<Vec<u8>>, head: &[&str], lines: impl Iterator<Item = Vec<String>>) {
    writer.write_record(head).expect("writing to memory does not fail");
    for line in lines {
        writer.write_record(&line).expect("writing to memory does not fail");
    }
}

fn save(path: &Path, writer: csv::Writer<Vec<u8>>) -> Result<(), ExperimentError> {
    let bytes = writer.into_inner().expect("writing to memory does not fail");
    fs::write(path, bytes).map_err(ExperimentError::io(path, "write the table"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Estimate, Group, Measure};

    #[test]
    fn intervals_over_few_prompts_are_empty_cells() {
        let row = |arm: &str, interval: Option<[f64; 2]>| SummaryRow {
            group: Group::default(),
            arm: arm.to_owned(),
            round: 0,
            measure: Measure::Mean,
            cases: 1,
            value: Estimate { mean: 20.5, interval },
            difference: Some(Estimate { mean: 0.5, interval }),
        };
        let folder = tempfile::tempdir().expect("a folder");
        write_tables(folder.path(), &[], &[row("few", None), row("many", Some([0.25, 0.75]))]).expect("tables");
        let table = fs::read_to_string(folder.path().join("summary.csv")).expect("a table");
        let lines: Vec<&str> = table.lines().skip(1).collect();
        let expected = ["mean score,0,few,1,20.5,,,0.5,,,,", "mean score,0,many,1,20.5,0.25,0.75,0.5,0.25,0.75,,"];
        assert_eq!(lines, expected);
    }
}
