//! The tables of a run as CSV files.

use std::fs;
use std::path::Path;

use fabric_world::Attribute;

use crate::{AdapterRecord, ExperimentError, ImageRecord, SummaryRow};

/// Writes `images.csv`, a line per image, and `summary.csv`, a line per measure, round and arm, of experiments with
/// instructions also per task and split of the wordings.
///
/// The column of reasons and those of adapters are written only if a record has them. Those of adapters are what an
/// image is compared with, and a column per factor, 1 if it is as in the condition, 0 if not, and empty if the text
/// determines it.
///
/// # Errors
///
/// Returns an error if a file cannot be written.
pub fn write_tables(folder: &Path, records: &[ImageRecord], rows: &[SummaryRow]) -> Result<(), ExperimentError> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let has_reasons = records.iter().any(|record| !record.reasons.is_empty());
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
        let difference = row.difference;
        vec![
            row.measure.name(),
            row.round.to_string(),
            row.arm.clone(),
            row.cases.to_string(),
            row.value.mean.to_string(),
            row.value.low.to_string(),
            row.value.high.to_string(),
            number(difference.map(|interval| interval.mean)),
            number(difference.map(|interval| interval.low)),
            number(difference.map(|interval| interval.high)),
            row.group.task.map_or_else(String::new, |task| task.to_string()),
            row.group.wordings.map_or_else(String::new, |split| split.to_string()),
        ]
    });
    write_all(&mut summary, &head, lines);
    save(&folder.join("summary.csv"), summary)
}

/// Columns of adapters, without those of the factors.
const ADAPTER_COLUMNS: [&str; 9] = [
    "task",
    "wordings",
    "instruction",
    "condition_similarity",
    "caption_similarity",
    "text_similarity",
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
