//! The tables of a run as CSV files.

use std::fs;
use std::path::Path;

use crate::{ExperimentError, ImageRecord, SummaryRow};

/// Writes `images.csv`, a line per image, and `summary.csv`, a line per measure, round and arm.
///
/// # Errors
///
/// Returns an error if a file cannot be written.
pub fn write_tables(folder: &Path, records: &[ImageRecord], rows: &[SummaryRow]) -> Result<(), ExperimentError> {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let mut images = csv::Writer::from_writer(Vec::new());
    let head = [
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
    let lines = records.iter().map(|record| {
        [
            record.config.clone(),
            record.arm.clone(),
            record.case.to_string(),
            record.prompt.clone(),
            record.round.to_string(),
            record.image.to_string(),
            record.seed.to_string(),
            record.score.to_string(),
            number(record.liked_similarity),
            number(record.disliked_similarity),
            number(record.liked_kept),
            number(record.liked_copied),
            number(record.disliked_repeated),
            number(record.diversity),
            number(record.vote),
            record.file.clone().unwrap_or_default(),
        ]
    });
    write_all(&mut images, &head, lines);
    save(&folder.join("images.csv"), images)?;

    let mut summary = csv::Writer::from_writer(Vec::new());
    let head =
        ["measure", "round", "arm", "cases", "mean", "low", "high", "difference", "difference_low", "difference_high"];
    let lines = rows.iter().map(|row| {
        let difference = row.difference;
        [
            row.measure.name().to_owned(),
            row.round.to_string(),
            row.arm.clone(),
            row.cases.to_string(),
            row.value.mean.to_string(),
            row.value.low.to_string(),
            row.value.high.to_string(),
            number(difference.map(|interval| interval.mean)),
            number(difference.map(|interval| interval.low)),
            number(difference.map(|interval| interval.high)),
        ]
    });
    write_all(&mut summary, &head, lines);
    save(&folder.join("summary.csv"), summary)
}

fn write_all<const N: usize>(
    writer: &mut csv::Writer<Vec<u8>>,
    head: &[&str; N],
    lines: impl Iterator<Item = [String; N]>,
) {
    writer.write_record(head).expect("writing to memory does not fail");
    for line in lines {
        writer.write_record(&line).expect("writing to memory does not fail");
    }
}

fn save(path: &Path, writer: csv::Writer<Vec<u8>>) -> Result<(), ExperimentError> {
    let bytes = writer.into_inner().expect("writing to memory does not fail");
    fs::write(path, bytes).map_err(ExperimentError::io(path, "write the table"))
}
