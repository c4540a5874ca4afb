//! The report of a run with an adapter, from its records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fabric::core::image::{Image, Mark};
use serde_json::Value;

use super::curves::scale_curves;
use super::matrix::differences;
use super::tables::wordings_name;
use super::{AdapterExperiment, AdapterRecord, adapter_tables};
use crate::report::{self, ReportInput, SessionImage, SessionRows};
use crate::run_report::{CHARTS, command, or_too_few, sentence};
use crate::run_settings::run_settings;
use crate::{ExperimentError, ImageRecord, Measure, SummaryRow};

/// Measures on which there is a sentence for each arm.
const TOLD: [Measure; 3] = [Measure::ToCondition, Measure::AskedShown, Measure::TextShown];

/// Writes `report.html` into the folder of a run with an adapter, with its charts as SVG files, and returns its path.
pub(crate) fn write_report(
    folder: &Path,
    config: &Value,
    experiment: &AdapterExperiment,
    records: &[ImageRecord],
    rows: &[SummaryRow],
) -> Result<PathBuf, ExperimentError> {
    let kept = kept_images(folder, experiment, records)?;
    let input = ReportInput {
        title: &experiment.title,
        summary: &or_too_few(judgement(rows, &experiment.control), rows, "cases"),
        command: &command(config, records),
        settings: &run_settings(config),
        tables: &adapter_tables(rows, &experiment.control),
        matrices: &differences(rows, &experiment.control),
        curves: &scale_curves(experiment, rows),
        sessions: &kept.iter().map(Kept::rows).collect::<Vec<_>>(),
        ..ReportInput::default()
    };
    let path = folder.join("report.html");
    report::write(&input, &path)?;
    report::write_charts(input.curves, folder.join(CHARTS))?;
    Ok(path)
}

/// Returns a sentence for each arm and measure, over all cases and over those of each split of the wordings.
fn judgement(rows: &[SummaryRow], control: &str) -> Vec<String> {
    let told = rows.iter().filter(|row| row.group.task.is_none() && TOLD.contains(&row.measure));
    let sentence = |row: &SummaryRow| {
        let wordings = row.group.wordings.map(wordings_name);
        let place = wordings.map_or_else(|| "All cases".to_owned(), |wordings| format!("With {wordings}"));
        sentence(row, &format!("{place}, {}", row.measure.name()), control, "cases")
    };
    told.filter_map(sentence).collect()
}

/// Images of a case that were kept, in rows with their headings: the condition image, and those of each arm.
struct Kept {
    caption: String,
    rows: Vec<(String, Vec<(Image, String)>)>,
}

impl Kept {
    fn new(caption: String) -> Self {
        Self { caption, rows: Vec::new() }
    }

    fn rows<'a>(&'a self) -> SessionRows<'a> {
        let image =
            |(image, caption): &'a (Image, String)| SessionImage { image, mark: Mark::None, caption: caption.clone() };
        let row = |(heading, images): &'a (String, Vec<(Image, String)>)| {
            (heading.clone(), images.iter().map(image).collect())
        };
        SessionRows { caption: self.caption.clone(), rows: self.rows.iter().map(row).collect() }
    }
}

/// Reads the kept images, in the order of the cases and in each of the arms.
fn kept_images(
    folder: &Path,
    experiment: &AdapterExperiment,
    records: &[ImageRecord],
) -> Result<Vec<Kept>, ExperimentError> {
    let open = |file: &str| Image::open(folder.join(file)).map_err(fabric::core::Error::from);
    let mut cases: BTreeMap<usize, Kept> = BTreeMap::new();
    for arm in &experiment.arms {
        for record in records.iter().filter(|record| record.arm == arm.name) {
            let (Some(file), Some(adapter)) = (&record.file, &record.adapter) else { continue };
            let kept = cases.entry(record.case).or_insert_with(|| Kept::new(caption(record, adapter)));
            if let Some(condition) = adapter.condition.as_ref().filter(|_| kept.rows.is_empty()) {
                kept.rows.push(("condition".to_owned(), vec![(open(condition)?, String::new())]));
            }
            let heading =
                if record.prompt.is_empty() { arm.name.clone() } else { format!("{}: {}", arm.name, record.prompt) };
            let image = (open(file)?, shares(adapter));
            match kept.rows.last_mut().filter(|(other, _)| *other == heading) {
                Some((_, images)) => images.push(image),
                None => kept.rows.push((heading, vec![image])),
            }
        }
    }
    Ok(cases.into_values().collect())
}

/// Returns the text above the images of a case.
fn caption(record: &ImageRecord, adapter: &AdapterRecord) -> String {
    let number = record.case + 1;
    match (adapter.task, adapter.wordings, &adapter.instruction) {
        (Some(task), Some(wordings), Some(instruction)) => {
            format!("{number}: {task}, {}: {instruction}", wordings_name(wordings))
        }
        _ => format!("{number}"),
    }
}

/// Returns the text below an image.
fn shares(adapter: &AdapterRecord) -> String {
    let asked = adapter.asked_shown.map_or_else(String::new, |share| format!(", asked {share:.0} %"));
    let named = adapter.text_shown.map_or_else(String::new, |share| format!(", named {share:.0} %"));
    format!("CLIP-I {:.0}{asked}{named}", adapter.condition_similarity)
}
