//! Comparison of searches with the mean and with the best of the presets, on the same prompts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::estimate::caption_end;
use crate::report::{Chart, Point, Series};
use crate::summary::{Values, summary_of, values};
use crate::{Arm, Experiment, Group, ImageRecord, Measure, SummaryRow};

/// Name of the mean over the presets.
const MEAN: &str = "mean of the presets";

/// Measures that are compared.
const COMPARED: [Measure; 2] = [Measure::Mean, Measure::Best];

/// Comparison of the searches of a run with fixed settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Against {
    /// Name of the fixed settings.
    pub control: String,
    /// Title of tables and charts, which says what the fixed settings are.
    pub title: String,
    /// Mean and best score of each round, of the searches and of the fixed settings, with paired differences from the
    /// fixed settings.
    pub rows: Vec<SummaryRow>,
}

/// Compares the searches of a run with the mean of the presets, and with the preset that has the highest mean score in
/// the last round. That one is chosen on the same prompts, which favours it. Prompts that a preset lacks, as in a run
/// that is not finished, do not count for the mean and the choice. Empty for runs without searches or presets.
pub fn against_presets(config: &Value, records: &[ImageRecord]) -> Vec<Against> {
    let Ok(experiment) = serde_json::from_value::<Experiment>(config["experiment"].clone()) else { return Vec::new() };
    let names = |is_meant: fn(&Arm) -> bool| -> BTreeSet<&str> {
        experiment.arms.iter().filter(|arm| is_meant(arm)).map(|arm| arm.name.as_str()).collect()
    };
    let searches = names(|arm| arm.search.is_some());
    let presets = names(|arm| arm.search.is_none() && (arm.likes || arm.dislikes));
    if searches.is_empty() || presets.is_empty() {
        return Vec::new();
    }
    let mut all = values(records);
    all.retain(|(group, _, _, measure), _| *group == Group::default() && COMPARED.contains(measure));
    let (mut shown, mut presets) = (only(&searches, &all), only(&presets, &all));
    keep_common(&mut presets);
    let Some(best) = best_of(&presets) else { return Vec::new() };
    shown.extend(only(&BTreeSet::from([best]), &all));
    let against_best = summary_of(&shown, best);
    shown.extend(mean_of(&presets));
    vec![
        Against {
            control: MEAN.to_owned(),
            title: format!("Searches against the {MEAN}"),
            rows: summary_of(&shown, MEAN),
        },
        Against {
            control: best.to_owned(),
            title: format!("Searches against the best preset of the last round, {best} (chosen on these prompts)"),
            rows: against_best,
        },
    ]
}

impl Against {
    /// Returns the rows for a table that has other rows too: names of arms say what they are compared with.
    pub fn named_rows(&self) -> Vec<SummaryRow> {
        let named = |row: &SummaryRow| {
            let is_compared = row.difference.is_some();
            let arm = if is_compared { format!("{} (against {})", row.arm, self.control) } else { row.arm.clone() };
            SummaryRow { arm, ..row.clone() }
        };
        self.rows.iter().filter(|row| row.difference.is_some() || row.arm == MEAN).map(named).collect()
    }

    /// Returns a chart for each measure, with the difference of each arm from the fixed settings over the rounds.
    pub(crate) fn difference_charts(&self) -> Vec<Chart> {
        let arms: BTreeSet<&str> = self.rows.iter().map(|row| row.arm.as_str()).collect();
        let chart = |measure: Measure| {
            let own = || self.rows.iter().filter(move |row| row.measure == measure);
            let series = |arm: &str| {
                let points = own().filter(|row| row.arm == arm).filter_map(|row| {
                    let difference = row.difference?;
                    let [low, high] = difference.drawn_interval();
                    Some(Point { x: (row.round + 1) as f64, mean: difference.mean, low, high })
                });
                Series { name: arm.to_owned(), points: points.collect() }
            };
            let end = caption_end(own().filter_map(|row| row.difference), ", with 95 % intervals");
            Chart {
                caption: format!("{}: {} per round, difference on the same prompts{end}", self.title, measure.name()),
                x_label: "round".to_owned(),
                y_label: "difference".to_owned(),
                series: arms.iter().map(|arm| series(arm)).filter(|series| !series.points.is_empty()).collect(),
            }
        };
        COMPARED.map(chart).into_iter().filter(|chart| !chart.series.is_empty()).collect()
    }
}

/// Returns the values of these arms.
fn only<'a>(arms: &BTreeSet<&str>, all: &Values<'a>) -> Values<'a> {
    let own = all.iter().filter(|((_, arm, _, _), _)| arms.contains(arm));
    own.map(|(key, cases)| (*key, cases.clone())).collect()
}

/// Removes the prompts that some of the arms lack, so that all arms have the same ones.
fn keep_common(values: &mut Values<'_>) {
    let cases = |own: &BTreeMap<usize, f64>| own.keys().copied().collect::<BTreeSet<usize>>();
    let common = values.values().map(cases).reduce(|all, own| &all & &own).unwrap_or_default();
    values.retain(|_, own| {
        own.retain(|case, _| common.contains(case));
        !own.is_empty()
    });
}

/// Returns the preset with the highest mean score in the last round; of equal ones, the first by name.
fn best_of<'a>(presets: &Values<'a>) -> Option<&'a str> {
    let last = presets.keys().map(|(_, _, round, _)| *round).max()?;
    let mut best: Option<(&'a str, f64)> = None;
    for ((_, arm, round, measure), cases) in presets {
        let mean = cases.values().sum::<f64>() / cases.len() as f64;
        let is_told = (*round, *measure) == (last, Measure::Mean);
        if is_told && best.is_none_or(|(_, highest)| mean > highest) {
            best = Some((*arm, mean));
        }
    }
    best.map(|(arm, _)| arm)
}

/// Returns the mean over the presets, which have the same prompts.
fn mean_of<'a>(presets: &Values<'a>) -> Values<'a> {
    let arms: BTreeSet<&str> = presets.keys().map(|(_, arm, _, _)| *arm).collect();
    let share = 1.0 / arms.len() as f64;
    let mut mean = Values::new();
    for ((group, _, round, measure), cases) in presets {
        let of_all = mean.entry((*group, MEAN, *round, *measure)).or_default();
        for (case, value) in cases {
            *of_all.entry(*case).or_insert(0.0) += share * value;
        }
    }
    mean
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::search::arms;
    use crate::{Estimate, summary};

    /// Rounds of a session.
    const ROUNDS: usize = 2;
    /// Number of prompts.
    const CASES: usize = 6;

    /// Returns the configuration of the experiment, and records whose scores are `score(arm, case, round)`, and two
    /// points more for the second image of a round.
    fn run(score: impl Fn(&str, usize, usize) -> f64) -> (Value, Vec<ImageRecord>) {
        let experiment = Experiment::named("search", &BTreeMap::new()).expect("an experiment");
        let mut records = Vec::new();
        for arm in &experiment.arms {
            for (case, round, image) in
                (0..CASES).flat_map(|case| (0..ROUNDS).flat_map(move |round| [(case, round, 0), (case, round, 1)]))
            {
                let line = json!({
                    "config": "0", "arm": arm.name, "case": case, "prompt": "a star", "round": round, "image": image,
                    "seed": 1, "score": score(&arm.name, case, round) + 2.0 * image as f64,
                });
                records.push(serde_json::from_value(line).expect("a record"));
            }
        }
        (json!({ "experiment": experiment }), records)
    }

    /// Prompts differ by far more than the arms do. One preset is 7 points better in the last round, and the search
    /// that sees scores 5 points; without feedback nothing is gained.
    fn gained(arm: &str, case: usize, round: usize) -> f64 {
        let gain = match arm {
            "preset web_ui" => 7.0,
            "search, scores" => 5.0,
            "search, likes" => 3.0,
            _ => 0.0,
        };
        40.0 * case as f64 + gain * round as f64
    }

    #[track_caller]
    fn assert_difference(against: &Against, arm: &str, measure: Measure, expected: f64) {
        let is_meant = |row: &&SummaryRow| (row.arm.as_str(), row.round, row.measure) == (arm, 1, measure);
        let row = against.rows.iter().find(is_meant).expect("a row");
        let Some(Estimate { mean, interval: Some([low, high]) }) = row.difference else { panic!("{row:?}") };
        assert!((mean - expected).abs() < 1e-9 && high - low < 1e-9, "{arm}: {row:?}");
    }

    #[test]
    fn searches_are_compared_with_the_mean_and_the_best_of_the_presets_by_prompt() {
        let (config, records) = run(gained);
        let both = against_presets(&config, &records);
        let [mean, best] = &both[..] else { panic!("{both:?}") };
        assert_eq!((mean.control.as_str(), best.control.as_str()), (MEAN, "preset web_ui"));
        // One of eight presets gains 7 points.
        for measure in COMPARED {
            assert_difference(mean, "search, scores", measure, 5.0 - 7.0 / 8.0);
            assert_difference(mean, "preset web_ui", measure, 7.0 - 7.0 / 8.0);
            assert_difference(best, "search, scores", measure, -2.0);
            assert_difference(best, "search, likes", measure, -4.0);
        }
        let arms = |one: &Against| one.rows.iter().map(|row| row.arm.clone()).collect::<BTreeSet<_>>().len();
        assert_eq!((arms(mean), arms(best)), (4, 3));
        for (one, lines) in [(mean, 3), (best, 2)] {
            let charts = one.difference_charts();
            assert_eq!(charts.len(), COMPARED.len());
            assert!(charts.iter().all(|chart| chart.series.len() == lines), "{charts:?}");
            assert!(charts.iter().all(|chart| chart.caption.contains(&one.control)), "{charts:?}");
            assert_eq!(charts[0].series[0].points.len(), ROUNDS);
        }
        let named: BTreeSet<String> = both.iter().flat_map(Against::named_rows).map(|row| row.arm).collect();
        let expected = [
            "mean of the presets",
            "preset web_ui (against mean of the presets)",
            "search, likes (against mean of the presets)",
            "search, likes (against preset web_ui)",
            "search, scores (against mean of the presets)",
            "search, scores (against preset web_ui)",
        ];
        assert!(named.iter().eq(expected), "{named:?}");
        let plain: BTreeSet<String> = summary(&records, "no feedback").into_iter().map(|row| row.arm).collect();
        assert!(named.is_disjoint(&plain));
    }

    #[test]
    fn prompts_that_a_preset_lacks_are_left_out_of_the_mean_and_of_the_choice() {
        let (config, mut records) = run(gained);
        records.retain(|record| record.arm != "preset diffusers" || record.case > 0);
        let both = against_presets(&config, &records);
        // Over the prompts that it has, which have higher scores, the unfinished preset would be the best one.
        assert_eq!(both[1].control, "preset web_ui");
        let is_mean = |row: &&SummaryRow| row.arm == MEAN && row.round == 0;
        assert!(both[0].rows.iter().filter(is_mean).all(|row| row.cases == CASES - 1), "{:?}", both[0].rows);
        assert_difference(&both[0], "search, scores", Measure::Mean, 5.0 - 7.0 / 8.0);
    }

    #[test]
    fn runs_without_searches_or_without_records_have_no_comparison() {
        let (config, records) = run(gained);
        assert!(against_presets(&config, &[]).is_empty());
        let other = Experiment::named("sweep", &BTreeMap::new()).expect("an experiment");
        assert!(against_presets(&json!({ "experiment": other }), &records).is_empty());
        assert!(against_presets(&json!({}), &records).is_empty());
        let control = config["experiment"]["arms"][0].clone();
        let only: Vec<Arm> = arms(&serde_json::from_value(control).expect("an arm")).drain(9..).collect();
        let mut without_presets = config;
        without_presets["experiment"]["arms"] = json!(only);
        assert!(against_presets(&without_presets, &records).is_empty());
    }
}
