//! The report of a run, from its records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fabric::core::image::{Image, Mark};
use serde_json::Value;

use crate::estimate::caption_end;
use crate::report::{self, Chart, HeatMap, Point, ReportInput, Series, SessionImage, SessionRows, Table};
use crate::round_attention::RoundAttention;
use crate::run_settings::{run_settings, shown};
use crate::summary::cell;
use crate::wanted_factor::by_factor;
use crate::{
    AdapterExperiment, Against, ExperimentError, FEWEST_PROMPTS, ImageRecord, Measure, SummaryRow, adapters,
    against_presets,
};

/// Folder within that of a run with the charts of the report as files of their own.
pub(crate) const CHARTS: &str = "charts";

/// Writes `report.html` into the folder of a run, with its charts as SVG files in `charts`, and returns its path.
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
    if let Some(experiment) = AdapterExperiment::in_config(config) {
        return adapters::write_report(folder, config, &experiment, records, rows);
    }
    let experiment = &config["experiment"];
    let control = experiment["control"].as_str().unwrap_or_default();
    let kept = kept_images(folder, records)?;
    let acted = acted(folder, &kept)?;
    let veiled: Vec<_> = acted.iter().map(Acted::veiled).collect();
    let has_references = acted.iter().zip(&veiled).filter(|(_, rows)| !rows.is_empty());
    let attention = has_references.map(|(acted, rows)| plain_rows(&acted.caption, rows));
    let heat_maps: Vec<HeatMap> = acted.iter().flat_map(Acted::heat_maps).collect();
    // Comparisons with presets come first: they are what their experiment asks.
    let against = against_presets(config, records);
    let own = judgement(rows, control);
    let told = against.iter().flat_map(|one| judgement(&one.rows, &one.control)).chain(own).collect();
    let titled = |one: &Against| {
        let title = |table: Table| Table { caption: format!("{}: {}", one.title, table.caption), ..table };
        tables(&one.rows).into_iter().map(title).collect::<Vec<_>>()
    };
    let scores = |chart: Chart| Chart { caption: format!("Searches and presets: {}", chart.caption), ..chart };
    let charts = against.iter().take(1).flat_map(|one| curves(&one.rows)).map(scores);
    let charts = charts.chain(against.iter().flat_map(Against::difference_charts)).chain(curves(rows));
    let input = ReportInput {
        title: experiment["title"].as_str().unwrap_or_default(),
        summary: &or_too_few(told, rows, "prompts"),
        command: &command(config, records),
        settings: &run_settings(config),
        tables: &against.iter().flat_map(titled).chain(tables(rows)).chain(by_factor(records)).collect::<Vec<_>>(),
        curves: &charts.collect::<Vec<_>>(),
        heat_maps: &heat_maps,
        attention: &attention.collect::<Vec<_>>(),
        sessions: &sessions(&kept),
        ..ReportInput::default()
    };
    let path = folder.join("report.html");
    report::write(&input, &path)?;
    report::write_charts(input.curves, folder.join(CHARTS))?;
    Ok(path)
}

/// Returns the command that makes the same run.
///
/// Paths are not part of the configuration, so files are named without their folders.
pub(crate) fn command(config: &Value, records: &[ImageRecord]) -> String {
    let experiment = &config["experiment"];
    let (settings, computation) = (&config["settings"], &config["computation"]);
    let cases: BTreeSet<usize> = records.iter().map(|record| record.case).collect();
    let multiple = AdapterExperiment::in_config(config).map_or(1, |experiment| experiment.cases.multiple());
    let limit = cases.last().map_or(0, |last| last / multiple + 1);
    let device = computation["device"].as_str().unwrap_or_default();
    let mut command = String::new();
    if let Some(format) = computation["matmul"].as_str().filter(|format| *format != "f32") {
        command.push_str(&format!("FABRIC_MATMUL={format} "));
    }
    command.push_str("cargo run --release -p fabric-experiments");
    if device == "cuda" {
        command.push_str(" --features cuda");
    }
    command.push_str(&format!(" -- {} --limit {limit}", experiment["name"].as_str().unwrap_or_default()));
    let mut options: Vec<(&str, &Value)> = vec![
        ("rounds", &config["rounds"]),
        ("images", &config["images"]),
        ("keep-images", &config["keep_images"]),
        ("seed", &config["seed"]),
        ("steps", &settings["steps"]),
        ("guidance", &settings["guidance_scale"]),
        ("sampler", &settings["sampler"]),
        ("model", &config["model"]["name"]),
        ("prompts", &config["prompts"]["name"]),
        ("prompts-format", &config["prompts"]["format"]),
        ("preference", &config["preference"]["name"]),
        ("lora", &config["lora"]["name"]),
        ("lora-scale", &config["lora"]["scale"]),
        ("negative", &config["negative_prompt"]),
    ];
    // A device of another machine is named by its address, which is not part of the configuration.
    if device != "remote" {
        options.push(("device", &computation["device"]));
    }
    for (name, value) in options.into_iter().filter(|(_, value)| !value.is_null()) {
        command.push_str(&option(name, &shown(value)));
    }
    for (name, value) in experiment["changes"].as_object().into_iter().flatten() {
        command.push_str(&option("set", &format!("{name}={value}")));
    }
    command
}

/// Returns an option of a command with its value, quoted for a shell where that is needed.
fn option(name: &str, value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/=+".contains(c);
    let quoted = if !value.is_empty() && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    };
    // After a space, a value that begins with a dash would be taken for an option.
    let between = if value.starts_with('-') { '=' } else { ' ' };
    format!(" --{name}{between}{quoted}")
}

/// Returns a sentence for each arm: how it differs from the control in the last round.
fn judgement(rows: &[SummaryRow], control: &str) -> Vec<String> {
    let last = rows.iter().map(|row| row.round).max().unwrap_or(0);
    let told = [Measure::Mean, Measure::Lowest, Measure::Best, Measure::ToLiked, Measure::Diversity];
    let sentence = |row: &SummaryRow| {
        let place = format!("Round {}, {}", last + 1, row.measure.name());
        sentence(row, &place, control, "prompts")
    };
    rows.iter().filter(|row| row.round == last && told.contains(&row.measure)).filter_map(sentence).collect()
}

/// Returns the sentences, or if there are none, one that says why. `cases` is the word for what the means are over.
pub(crate) fn or_too_few(sentences: Vec<String>, rows: &[SummaryRow], cases: &str) -> Vec<String> {
    match rows.iter().map(|row| row.cases).max() {
        Some(most) if sentences.is_empty() && most < FEWEST_PROMPTS => {
            vec![format!("No difference is judged: that takes {FEWEST_PROMPTS} {cases} or more, and there are {most}.")]
        }
        _ => sentences,
    }
}

/// Returns a sentence on how an arm differs from the control, which begins with `place`; `None` for the control itself and
/// without an interval. `cases` is the word for what the mean is over.
pub(crate) fn sentence(row: &SummaryRow, place: &str, control: &str, cases: &str) -> Option<String> {
    let difference = row.difference?;
    let (arm, count, mean) = (&row.arm, row.cases, difference.mean);
    let [low, high] = difference.interval?;
    let by = format!("95 % interval {low:+.3} to {high:+.3}, {count} {cases}");
    Some(if difference.excludes_zero() {
        let way = if mean > 0.0 { "above" } else { "below" };
        format!("{place}, {arm}: {:.3} {way} {control} ({by}).", mean.abs())
    } else {
        format!("{place}, {arm}: no measurable difference from {control} ({by}).")
    })
}

/// Returns the arms in the order of the rows: the control first.
pub(crate) fn arms(rows: &[SummaryRow]) -> Vec<&str> {
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
        let own = rows.iter().filter(|row| row.measure == measure);
        let end = caption_end(own.filter_map(|row| row.difference), "");
        let caption = format!("{}{end}", measure.name());
        Table { caption, head, rows: rounds.into_iter().map(line).collect() }
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
                let [low, high] = row.value.drawn_interval();
                Point { x: (row.round + 1) as f64, mean: row.value.mean, low, high }
            };
            Series { name: (*arm).to_owned(), points: own.map(point).collect() }
        };
        let own = rows.iter().filter(|row| row.measure == measure);
        let end = caption_end(own.map(|row| row.value), ", with 95 % intervals");
        Chart {
            caption: format!("{} per round{end}", measure.name()),
            x_label: "round".to_owned(),
            y_label: measure.name(),
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
        let score = record.score.map(|score| format!("{score:.1}"));
        let reasons = Some(record.reasons_text()).filter(|text| !text.is_empty());
        let origin = record.origin.as_ref().map(ToString::to_string);
        let caption = score.into_iter().chain(reasons).chain(origin).collect::<Vec<_>>().join(": ");
        SessionImage { image, mark, caption }
    };
    let session = |((case, arm), rounds): (&(usize, &str), &'a Rounds<'_>)| {
        let prompt = rounds.values().flatten().next().map_or("", |(record, _)| record.prompt.as_str());
        let row = |(round, images): (&usize, &'a Vec<(&ImageRecord, Image)>)| {
            (format!("Round {}", round + 1), images.iter().map(image).collect())
        };
        SessionRows { caption: format!("{}: {prompt}, {arm}", case + 1), rows: rounds.iter().map(row).collect() }
    };
    kept.iter().map(session).collect()
}

/// Attention that the references and the votes with a reason of one round of a session got, with the images of the
/// round.
struct Acted<'a> {
    caption: String,
    attention: RoundAttention,
    images: &'a [(&'a ImageRecord, Image)],
}

/// Returns where references and votes with a reason acted in the last round of each arm, on the first prompt whose
/// images were kept.
fn acted<'a>(folder: &Path, kept: &'a Kept<'_>) -> Result<Vec<Acted<'a>>, ExperimentError> {
    let first = kept.keys().next().map(|(case, _)| *case);
    let mut all = Vec::new();
    for ((case, arm), rounds) in kept.iter().filter(|((case, _), _)| Some(*case) == first) {
        let Some(attention) = RoundAttention::read(folder, arm, *case)?.pop() else { continue };
        let Some(images) = rounds.get(&attention.round) else { continue };
        let prompt = images.first().map_or("", |(record, _)| record.prompt.as_str());
        all.push(Acted { caption: format!("{prompt}, {arm}, round {}", attention.round + 1), attention, images });
    }
    Ok(all)
}

impl Acted<'_> {
    /// Returns the references that the report shows: the newest liked and the newest disliked one.
    fn shown(&self) -> Vec<usize> {
        let (liked, all) = (self.attention.liked, self.attention.references.len());
        let newest = [(0, liked), (liked, all)].into_iter().filter(|(first, end)| first < end);
        newest.map(|(_, end)| end - 1).collect()
    }

    fn heat_maps(&self) -> Vec<HeatMap> {
        let references = self.shown().into_iter();
        let references = references.map(|reference| self.attention.heat_map(reference, &self.caption));
        references.chain(self.attention.heat_map_of_votes(&self.caption)).collect()
    }

    /// Returns the images of the round, turned grey where a reference got little attention, by reference.
    fn veiled(&self) -> Vec<(String, Vec<Image>)> {
        let of = |reference: usize| {
            let range = self.attention.range(reference);
            let images = self.images.iter().enumerate();
            let veiled = images.filter_map(|(at, (_, image))| self.attention.veil(reference, at, image, range));
            let percent = 100.0 * self.attention.references[reference].mean;
            let heading = format!("{}, {percent:.1} % of the attention", self.attention.name(reference));
            (heading, veiled.collect())
        };
        self.shown().into_iter().map(of).collect()
    }
}

/// Returns rows of images without marks and captions.
fn plain_rows<'a>(caption: &str, rows: &'a [(String, Vec<Image>)]) -> SessionRows<'a> {
    let image = |image: &'a Image| SessionImage { image, mark: Mark::None, caption: String::new() };
    let row = |(heading, images): &'a (String, Vec<Image>)| (heading.clone(), images.iter().map(image).collect());
    SessionRows { caption: caption.to_owned(), rows: rows.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Estimate, Group};

    #[test]
    fn few_prompts_have_a_figure_and_no_judgement() {
        let row = |arm: &str, mean: f64, difference: Option<f64>| SummaryRow {
            group: Group::default(),
            arm: arm.to_owned(),
            round: 0,
            measure: Measure::Mean,
            cases: 1,
            value: Estimate { mean, interval: None },
            difference: difference.map(|mean| Estimate { mean, interval: None }),
        };
        let rows = [row("no feedback", 20.0, None), row("fabric", 20.5, Some(0.5))];
        let expected = "No difference is judged: that takes 5 prompts or more, and there are 1.";
        assert_eq!(or_too_few(judgement(&rows, "no feedback"), &rows, "prompts"), [expected]);
        let tables = tables(&rows);
        assert_eq!(tables[0].caption, "mean score; too few prompts for an interval");
        assert_eq!(tables[0].rows, [["1", "20.0", "20.5 (+0.5)"]]);
        let curves = curves(&rows);
        assert_eq!(curves[0].caption, "mean score per round; too few prompts for an interval");
        assert!(curves[0].series.iter().all(|series| series.points[0].low.is_nan()), "{curves:?}");
    }

    #[test]
    fn the_command_has_all_that_the_configuration_holds_quoted_for_a_shell() {
        let config = json!({
            "experiment": { "name": "window", "changes": { "max_weight": 0.4, "noise": "fresh" } },
            "settings": { "steps": 20, "guidance_scale": -1.0, "sampler": "euler_a" },
            "computation": { "device": "cuda", "matmul": "bf16" },
            "rounds": 3, "images": 4, "keep_images": 2, "seed": 7,
            "model": { "name": "my model", "hash": "1" },
            "prompts": { "name": "a.csv", "hash": "2", "format": "lines" },
            "preference": { "name": "clip", "hash": "3" },
            "lora": { "name": "lora.safetensors", "hash": "4", "scale": "0.8" },
            "negative_prompt": "it's $HOME",
        });
        let expected = concat!(
            "FABRIC_MATMUL=bf16 cargo run --release -p fabric-experiments --features cuda -- window --limit 0",
            " --rounds 3 --images 4 --keep-images 2 --seed 7 --steps 20 --guidance=-1.0 --sampler euler_a",
            r" --model 'my model' --prompts a.csv --prompts-format lines --preference clip --lora lora.safetensors",
            r#" --lora-scale 0.8 --negative 'it'\''s $HOME' --device cuda --set max_weight=0.4 --set 'noise="fresh"'"#,
        );
        assert_eq!(command(&config, &[]), expected);
        let instruct = AdapterExperiment::named("instruct").expect("an experiment");
        let config = json!({ "experiment": instruct, "rounds": 1, "images": 1 });
        assert!(command(&config, &[]).ends_with(" -- instruct --limit 0 --rounds 1 --images 1"));
        let small = json!({ "experiment": { "name": "target" }, "model": { "name": "world" }, "keep_images": 4 });
        let small = command(&small, &[]);
        assert!(small.starts_with("cargo run") && small.ends_with("target --limit 0 --keep-images 4 --model world"));
    }
}
