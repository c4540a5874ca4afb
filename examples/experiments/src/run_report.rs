//! The report of a run, from its records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fabric::core::image::{Image, Mark};
use serde_json::Value;

use crate::report::{self, Chart, Point, ReportInput, Series, SessionImage, SessionRows, Table};
use crate::store::flatten;
use crate::summary::cell;
use crate::{ExperimentError, ImageRecord, Measure, SummaryRow};

/// Writes `report.html` into the folder of a run and returns its path.
///
/// # Errors
///
/// Returns an error if a kept image cannot be read, or the file cannot be written.
pub fn write_report(
    folder: &Path,
    config: &Value,
    records: &[ImageRecord],
    rows: &[SummaryRow],
) -> Result<PathBuf, ExperimentError> {
    let experiment = &config["experiment"];
    let control = experiment["control"].as_str().unwrap_or_default();
    let kept = kept_images(folder, records)?;
    let mut settings = BTreeMap::new();
    flatten("", config, &mut settings);
    let settings: Vec<(String, String)> =
        settings.into_iter().map(|(name, value)| (name, value.to_string().trim_matches('"').to_owned())).collect();
    let input = ReportInput {
        title: experiment["title"].as_str().unwrap_or_default(),
        summary: &judgement(rows, control),
        command: &command(config, records),
        settings: &settings,
        tables: &tables(rows),
        curves: &curves(rows),
        heat_maps: &[],
        sessions: &sessions(&kept),
    };
    let path = folder.join("report.html");
    report::write(&input, &path)?;
    Ok(path)
}

/// Returns the command that makes the same run.
fn command(config: &Value, records: &[ImageRecord]) -> String {
    let experiment = &config["experiment"];
    let cases: BTreeSet<usize> = records.iter().map(|record| record.case).collect();
    let limit = cases.last().map_or(0, |last| last + 1);
    let settings = &config["settings"];
    let mut command = format!(
        "cargo run --release -p fabric-experiments -- {} --limit {limit} --rounds {} --images {} --seed {} --steps {} --guidance {}",
        experiment["name"].as_str().unwrap_or_default(),
        config["rounds"],
        config["images"],
        config["seed"],
        settings["steps"],
        settings["guidance_scale"],
    );
    for (name, value) in experiment["changes"].as_object().into_iter().flatten() {
        command.push_str(&format!(" --set {name}={value}"));
    }
    command
}

/// Returns a sentence for each arm: how it differs from the control in the last round.
fn judgement(rows: &[SummaryRow], control: &str) -> Vec<String> {
    let last = rows.iter().map(|row| row.round).max().unwrap_or(0);
    let sentence = |row: &SummaryRow| {
        let difference = row.difference?;
        let name = row.measure.name();
        let (round, arm, cases) = (last + 1, &row.arm, row.cases);
        let by = format!("95 % interval {:+.3} to {:+.3}, {cases} prompts", difference.low, difference.high);
        Some(if difference.excludes_zero() {
            let way = if difference.mean > 0.0 { "above" } else { "below" };
            format!("Round {round}, {name}: {arm} is {:.3} {way} {control} ({by}).", difference.mean.abs())
        } else {
            format!("Round {round}, {name}: {arm} and {control} do not differ measurably ({by}).")
        })
    };
    let told = [Measure::Mean, Measure::Lowest, Measure::Best, Measure::ToLiked, Measure::Diversity];
    rows.iter().filter(|row| row.round == last && told.contains(&row.measure)).filter_map(sentence).collect()
}

/// Returns the arms in the order of the rows: the control first.
fn arms(rows: &[SummaryRow]) -> Vec<&str> {
    let mut arms: Vec<&str> = Vec::new();
    for row in rows {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    arms
}

/// Returns a table per measure, with a line per round and a column per arm.
fn tables(rows: &[SummaryRow]) -> Vec<Table> {
    let arms = arms(rows);
    let of = |measure: Measure| {
        let rounds: BTreeSet<usize> = rows.iter().filter(|row| row.measure == measure).map(|row| row.round).collect();
        let line = |round: usize| {
            let find = |arm: &&str| {
                let row = rows.iter().find(|row| (row.measure, row.round, row.arm.as_str()) == (measure, round, *arm));
                row.map_or_else(|| "-".to_owned(), cell)
            };
            [(round + 1).to_string()].into_iter().chain(arms.iter().map(find)).collect()
        };
        let head = ["round"].into_iter().chain(arms.iter().copied()).map(str::to_owned).collect();
        Table { caption: measure.name().to_owned(), head, rows: rounds.into_iter().map(line).collect() }
    };
    Measure::ALL.map(of).into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// Returns a chart per measure, with a curve per arm over the rounds.
fn curves(rows: &[SummaryRow]) -> Vec<Chart> {
    let arms = arms(rows);
    let of = |measure: Measure| {
        let series = |arm: &&str| {
            let own = rows.iter().filter(|row| row.measure == measure && row.arm == *arm);
            let point = |row: &SummaryRow| {
                let interval = row.value;
                Point { x: (row.round + 1) as f64, mean: interval.mean, low: interval.low, high: interval.high }
            };
            Series { name: (*arm).to_owned(), points: own.map(point).collect() }
        };
        Chart {
            caption: format!("{} per round, with 95 % intervals", measure.name()),
            x_label: "round".to_owned(),
            y_label: measure.name().to_owned(),
            series: arms.iter().map(series).collect(),
        }
    };
    let has_points = |chart: &Chart| chart.series.iter().any(|series| !series.points.is_empty());
    Measure::ALL.map(of).into_iter().filter(has_points).collect()
}

/// Rounds of a session, with their images.
type Rounds<'a> = BTreeMap<usize, Vec<(&'a ImageRecord, Image)>>;
/// Sessions whose images were kept, by case and arm.
type Kept<'a> = BTreeMap<(usize, &'a str), Rounds<'a>>;

fn kept_images<'a>(folder: &Path, records: &'a [ImageRecord]) -> Result<Kept<'a>, ExperimentError> {
    let mut kept = Kept::new();
    for record in records {
        let Some(file) = &record.file else { continue };
        let image = Image::open(folder.join(file)).map_err(fabric::core::Error::from)?;
        let session = kept.entry((record.case, record.arm.as_str())).or_default();
        session.entry(record.round).or_default().push((record, image));
    }
    Ok(kept)
}

fn sessions<'a>(kept: &'a Kept<'_>) -> Vec<SessionRows<'a>> {
    let image = |(record, image): &'a (&ImageRecord, Image)| {
        let mark = match record.vote {
            Some(vote) if vote > 0.0 => Mark::Liked,
            Some(vote) if vote < 0.0 => Mark::Disliked,
            _ => Mark::None,
        };
        SessionImage { image, mark, caption: format!("{:.1}", record.score) }
    };
    let session = |((case, arm), rounds): (&(usize, &str), &'a Rounds<'_>)| {
        let prompt = rounds.values().flatten().next().map_or("", |(record, _)| record.prompt.as_str());
        let rounds = rounds.values().map(|images| images.iter().map(image).collect()).collect();
        SessionRows { caption: format!("{}: {prompt}, {arm}", case + 1), rounds }
    };
    kept.iter().map(session).collect()
}
