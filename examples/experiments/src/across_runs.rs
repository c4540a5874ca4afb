//! Comparison of one arm across runs, such as runs of two adapters.

use std::collections::{BTreeMap, BTreeSet};

use fabric::core::InvalidValue;
use fabric_world::Factor;

use crate::ImageRecord;

/// Returns the records of one arm of several runs as those of one run, in which each run is an arm of its own. Each run
/// has its name and its records. [`summary`](crate::summary) with the name of the first run as control then compares the
/// others with it, prompt by prompt.
///
/// Cases that one of the runs lacks are left out, because means over different prompts cannot be compared.
///
/// # Errors
///
/// Returns an error if two runs have the same name, a run lacks the arm, or runs have different prompts or tasks for a
/// case, so that they cannot be paired.
pub fn across_runs(runs: &[(String, Vec<ImageRecord>)], arm: &str) -> Result<Vec<ImageRecord>, InvalidValue> {
    let mut all: Vec<ImageRecord> = Vec::new();
    let mut common: Option<BTreeSet<usize>> = None;
    let mut prompts: BTreeMap<usize, String> = BTreeMap::new();
    for (at, (name, records)) in runs.iter().enumerate() {
        if runs[..at].iter().any(|(other, _)| other == name) {
            let expected = "runs with names of their own";
            return Err(InvalidValue::new("names of the runs", name, expected, "name each run once"));
        }
        let own: Vec<&ImageRecord> = records.iter().filter(|record| record.arm == arm).collect();
        if own.is_empty() {
            let arms: BTreeSet<&str> = records.iter().map(|record| record.arm.as_str()).collect();
            let known = arms.into_iter().collect::<Vec<_>>().join("; ");
            return Err(InvalidValue::new(
                format!("arm of {name}"),
                arm,
                format!("one of {known}"),
                "correct the name",
            ));
        }
        for record in &own {
            let identity = identity(record);
            let expected = prompts.entry(record.case).or_insert_with(|| identity.clone());
            if *expected != identity {
                let what = format!("{name}: prompt of case {}", record.case);
                return Err(InvalidValue::new(what, identity, &*expected, "compare runs with the same prompts"));
            }
        }
        let cases: BTreeSet<usize> = own.iter().map(|record| record.case).collect();
        common = Some(common.map_or_else(|| cases.clone(), |common| common.intersection(&cases).copied().collect()));
        all.extend(own.into_iter().map(|record| ImageRecord { arm: name.clone(), ..record.clone() }));
    }
    let common = common.unwrap_or_default();
    all.retain(|record| common.contains(&record.case));
    if all.is_empty() {
        let expected = "at least one that all runs have";
        return Err(InvalidValue::new("prompts of the runs", "none in common", expected, "compare other runs"));
    }
    Ok(all)
}

/// Returns what makes records of two runs comparable: the prompt, and the task with its wordings. The instruction may
/// differ.
fn identity(record: &ImageRecord) -> String {
    let adapter = record.adapter.as_ref();
    let task = adapter.and_then(|adapter| adapter.task).map(|task| format!(", task {task}")).unwrap_or_default();
    let wordings = adapter.and_then(|adapter| adapter.wordings);
    let wordings = wordings.map(|wordings| format!(", {} wordings", wordings.name())).unwrap_or_default();
    format!("{:?}{task}{wordings}", record.prompt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Measure, summary};

    fn record(arm: &str, case: usize, prompt: &str, score: f64) -> ImageRecord {
        let line = serde_json::json!({
            "config": "0", "arm": arm, "case": case, "prompt": prompt, "round": 0, "image": 0, "seed": 7,
            "score": score, "liked_similarity": null, "disliked_similarity": null, "liked_kept": null,
            "liked_copied": null, "disliked_repeated": null, "diversity": null, "vote": null, "file": null,
        });
        serde_json::from_value(line).expect("a record")
    }

    /// A run of `cases` prompts with two arms.
    fn run(name: &str, cases: usize, gain: f64) -> (String, Vec<ImageRecord>) {
        let of = |case: usize| {
            let prompt = format!("prompt {case}");
            [record("liked", case, &prompt, 10.0 * case as f64 + gain), record("none", case, &prompt, 99.0)]
        };
        (name.to_owned(), (0..cases).flat_map(of).collect())
    }

    #[test]
    fn one_arm_is_paired_across_runs_over_the_prompts_that_all_have() {
        let records = across_runs(&[run("a", 8, 0.0), run("b", 6, 1.5)], "liked").expect("records");
        assert_eq!(records.len(), 12, "six cases of each run");
        let rows = summary(&records, "a");
        let row = rows.iter().find(|row| row.arm == "b" && row.measure == Measure::Mean).expect("a row");
        let [low, high] = row.difference.expect("paired").interval.expect("enough prompts");
        assert!((low - 1.5).abs() < 1e-9 && (high - 1.5).abs() < 1e-9, "{row:?}");
    }

    #[test]
    fn runs_that_cannot_be_paired_are_refused() {
        let other = ("b".to_owned(), vec![record("liked", 0, "another", 1.0)]);
        let apart = ("b".to_owned(), vec![record("liked", 9, "prompt 9", 1.0)]);
        let cases = [
            (across_runs(&[run("a", 2, 0.0), run("a", 2, 0.0)], "liked"), "runs with names of their own, got a"),
            (across_runs(&[run("a", 2, 0.0)], "lost"), "expected one of liked; none, got lost"),
            (across_runs(&[run("a", 2, 0.0), other], "liked"), "b: prompt of case 0: expected \"prompt 0\""),
            (across_runs(&[run("a", 2, 0.0), apart], "liked"), "expected at least one that all runs have"),
        ];
        for (result, says) in cases {
            let error = result.expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
