//! The experiment with reasons in miniature, on the model that ships, with adapters of random weights: stopped and
//! resumed, and refused where it cannot run.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Place, assert_same_files, copy_folder, files, write_adapters};
use fabric::DeviceKind;
use fabric::core::AspectKind;
use fabric::core::pipeline::Settings;
use fabric::core::session::Vote;
use fabric_experiments::{
    Arm, ArmReasons, DislikedImages, Experiment, ExperimentError, GivenReasons, ImageRecord, Inputs, Measure,
    RunFolder, Shard, SmallWorld, Work, configured, read_run, run, summary, write_report, write_tables,
};
use serde_json::Value;

/// Rounds of a session, and images of a round.
const SIZES: [usize; 2] = [2, 2];
/// Number of cases, whose images are all kept.
const CASES: usize = 2;

/// Returns the experiment for the model of a place, and the names of the arms that are left out.
fn experiment(place: &Place) -> Result<(Experiment, Vec<String>), ExperimentError> {
    let (experiment, left_out) = Experiment::named("reasons", &BTreeMap::new())?.for_model(&place.model())?;
    Ok((experiment, left_out.into_iter().map(|arm| arm.name).collect()))
}

/// Runs the experiment with three steps and returns its folder.
fn miniature(place: &Place, out: &str) -> Result<PathBuf, ExperimentError> {
    let (model, out) = (place.model(), place.path(out));
    let (experiment, _) = experiment(place)?;
    let world = SmallWorld::open(&model, None, &fabric::default_device().expect("a device"))?;
    let world = world.with_adapters(&model, &experiment.arms)?;
    let inputs = Inputs { model: &model, prompts: None, lora: None, negative_prompt: None, device: &DeviceKind::Flex };
    // A composition acts in the first 40 % of the run, which has one of three steps.
    let settings = Settings { steps: 3, ..Settings::default() };
    let (config, plan) = configured(&experiment, &inputs.identify()?, &settings, SIZES, CASES, 0);
    let mut folder = RunFolder::open(&out, &config, SIZES.iter().product())?;
    let work = Work { arms: &experiment.arms, cases: CASES, shard: Shard::default(), keep_images: CASES };
    run(&world, &plan, &work, &mut folder, &mut |_| {})?;
    Ok(out)
}

/// Records of one arm.
struct Made<'a>(Vec<&'a ImageRecord>);

impl<'a> Made<'a> {
    fn of(records: &'a [ImageRecord], arm: &str) -> Self {
        Self(records.iter().filter(|record| record.arm == arm).collect())
    }

    /// Returns the records of a round of a case.
    fn round(&self, case: usize, round: usize) -> Vec<&'a ImageRecord> {
        self.0.iter().copied().filter(|record| (record.case, record.round) == (case, round)).collect()
    }

    /// Returns the votes with a reason that were cast after a round of a case.
    fn votes(&self, case: usize, round: usize) -> Vec<&'a Vote> {
        self.round(case, round).into_iter().flat_map(|record| &record.reasons).collect()
    }

    /// Returns what differs if a round of a case has other images.
    fn looks(&self, case: usize, round: usize) -> Vec<(u64, Option<f64>, Option<f64>)> {
        let looks = |record: &ImageRecord| (record.seed, record.score, record.diversity);
        self.round(case, round).into_iter().map(looks).collect()
    }
}

/// Returns the kind of the aspect that a vote is about.
fn kind(vote: &Vote) -> AspectKind {
    vote.reason().expect("a reason").kind()
}

/// Whether votes act on the next round of an arm: without an adapter, only some kinds of reasons become references.
fn acts(arm: &Arm, votes: &[&Vote]) -> bool {
    let restricted = [AspectKind::Style, AspectKind::Colour, AspectKind::Composition];
    match (&arm.reasons, arm.adapter()) {
        (None, _) => arm.likes,
        // The prompt names the kind from the beginning.
        (Some(reasons), None) if reasons.names_in_prompt => {
            votes.iter().any(|vote| vote.strength() > 0.0 && kind(vote) != AspectKind::Object)
        }
        (Some(_), None) => votes.iter().any(|vote| restricted.contains(&kind(vote))),
        (Some(reasons), Some(_)) => reasons.plain_votes || !votes.is_empty(),
    }
}

#[test]
fn votes_say_why_and_act_from_the_second_round_on() {
    let place = Place::new();
    let out = miniature(&place, "out").expect("a run");
    let (experiment, left_out) = experiment(&place).expect("an experiment");
    assert!(left_out.is_empty(), "{left_out:?}");
    let (_, records) = read_run(&out).expect("a run");
    assert_eq!(records.len(), experiment.arms.len() * CASES * SIZES.iter().product::<usize>());
    let (control, reasons) = (Made::of(&records, &experiment.control), Made::of(&records, "reasons"));
    let aspects = Made::of(&records, "reasons by aspects");
    assert!((0..CASES).any(|case| !reasons.votes(case, 0).is_empty()), "reasons are given");
    for arm in &experiment.arms {
        let own = Made::of(&records, &arm.name);
        for record in &own.0 {
            let votes_on_any = arm.reasons.as_ref().is_some_and(|reasons| reasons.likes_any_image);
            assert!(record.reasons.is_empty() || record.vote.is_some() || votes_on_any, "{record:?}");
            assert_eq!(record.liked_copied.is_some() || record.liked_kept.is_some(), record.round > 0, "{record:?}");
        }
        for case in 0..CASES {
            // Nobody has voted before the first round, so all arms make and judge the same images.
            assert_eq!(own.looks(case, 0), control.looks(case, 0), "{}", arm.name);
            let votes = own.votes(case, 0);
            let given = arm.reasons.as_ref().map(|reasons| reasons.given);
            let of_same = match given {
                None => Vec::new(),
                Some(GivenReasons::Factors | GivenReasons::Words) => reasons.votes(case, 0),
                Some(GivenReasons::Aspects) => aspects.votes(case, 0),
            };
            let expected = of_same.iter().filter(|vote| arm.dislikes || vote.strength() > 0.0).count();
            let has_more = |reasons: &ArmReasons| reasons.likes_any_image || reasons.disliked != DislikedImages::Worst;
            if arm.reasons.as_ref().is_some_and(has_more) {
                assert!(votes.len() >= expected, "{}", arm.name);
                let likes: Vec<&&Vote> = votes.iter().filter(|vote| vote.strength() > 0.0).collect();
                assert!((1..likes.len()).all(|at| !likes[..at].contains(&likes[at])), "each like once: {votes:?}");
            } else {
                assert_eq!(votes.len(), expected, "{}", arm.name);
            }
            let in_words = votes.iter().filter(|vote| kind(vote) == AspectKind::Words).count();
            let may_be_in_words = match given {
                None | Some(GivenReasons::Aspects) => 0..=0,
                Some(GivenReasons::Factors) => 0..=votes.len(),
                Some(GivenReasons::Words) => votes.len()..=votes.len(),
            };
            assert!(may_be_in_words.contains(&in_words), "{}: {votes:?}", arm.name);
            let has_changed = own.looks(case, 1) != control.looks(case, 1);
            assert_eq!(has_changed, acts(arm, &votes), "{}, case {case}: {votes:?}", arm.name);
        }
    }
}

#[test]
fn the_report_shows_the_reasons_below_the_images() {
    let place = Place::new();
    let out = miniature(&place, "out").expect("a run");
    let (config, records) = read_run(&out).expect("a run");
    let rows = summary(&records, "no feedback");
    assert!(rows.iter().any(|row| row.measure == Measure::LikedCopied));
    write_tables(&out, &records, &rows).expect("tables");
    let report = write_report(&out, &config, &records, &rows).expect("a report");
    let report = fs::read_to_string(report).expect("HTML");
    let table = fs::read_to_string(out.join("images.csv")).expect("a table");
    assert!(table.lines().next().is_some_and(|head| head.ends_with(",file,reasons")), "{table:.300}");
    let has_reasons = |record: &&ImageRecord| record.arm == "reasons" && !record.reasons.is_empty();
    let explained: Vec<&ImageRecord> = records.iter().filter(has_reasons).collect();
    assert!(!explained.is_empty(), "some images have reasons");
    for record in explained {
        let sign = |vote: &Vote| if vote.strength() > 0.0 { '+' } else { '-' };
        let words = |vote: &Vote| {
            let instruction = vote.reason().expect("a reason").to_string();
            let words = instruction.strip_prefix("use ").expect("an instruction");
            words.strip_prefix("the ").unwrap_or(words).to_owned()
        };
        let texts: Vec<String> = record.reasons.iter().map(|vote| format!("{}{}", sign(vote), words(vote))).collect();
        let texts = texts.join(", ");
        let score = record.score.expect("a score");
        assert!(report.contains(&format!("{score:.1}: {texts}")), "{texts}");
        assert!(table.contains(&texts), "{texts}");
    }
    for part in
        ["Votes that say why", "-- reasons --limit 2 --rounds 2 --images 2", "generation.reasons.most_per_aspect"]
    {
        assert!(report.contains(part), "{part}");
    }
}

#[test]
fn a_run_stopped_at_any_byte_resumes_to_the_same_files() {
    let place = Place::new();
    let records = Path::new("images.jsonl");
    let out = miniature(&place, "whole").expect("a run");
    let whole = files(&out);
    let lines = &whole[records];
    // Within the first line, within a line in the middle, and before the end of the last line.
    for cut in [1, lines.len() / 2, lines.len() - 1] {
        let name = format!("cut at {cut}");
        copy_folder(&out, &place.path(&name));
        fs::write(place.path(&name).join(records), &lines[..cut]).expect("a cut file");
        assert_same_files(&files(&miniature(&place, &name).expect("a run")), &whole);
    }
}

#[test]
fn adapters_that_are_missing_or_of_another_kind_are_named() {
    let place = Place::new();
    let adapter = |name: &str| place.model().join(format!("ip_adapter/{name}.safetensors"));
    let (plus, instruct) = (adapter("plus"), adapter("instruct"));
    let whole = experiment(&place).expect("an experiment").0;
    fs::remove_file(&plus).expect("removed");
    let (without, left_out) = experiment(&place).expect("an experiment");
    assert_eq!(left_out, ["aspects, plain adapter"]);
    assert_eq!(without.arms[..], whole.arms[..whole.arms.len() - 1]);

    let world = SmallWorld::open(&place.model(), None, &fabric::default_device().expect("a device")).expect("a model");
    let missing = world.with_adapters(&place.model(), &whole.arms).expect_err("no plain adapter").to_string();
    assert!(missing.contains("plus.safetensors"), "{missing}");

    fs::copy(&instruct, &plus).expect("a copy");
    let error = miniature(&place, "out").expect_err("an Instruct adapter in place of a plain one").to_string();
    let says = "plus.safetensors: expected an adapter that reads no instructions, got an Instruct adapter";
    assert!(error.contains(says), "{error}");
    fs::write(&instruct, "no weights").expect("a file");
    let error = miniature(&place, "out").expect_err("a damaged file");
    assert!(matches!(error, ExperimentError::Adapter(_)), "{error:?}");
    fs::remove_file(&instruct).expect("removed");
    let error = miniature(&place, "out").expect_err("no Instruct adapter");
    assert!(matches!(error, ExperimentError::NoAdapter { .. }), "{error:?}");
    assert!(!place.path("out").exists(), "nothing was begun");
}

#[test]
fn the_program_runs_reasons_on_a_model_that_can_and_says_what_it_leaves_out() {
    let place = Place::without_adapters();
    let (is_done, _, error) = place.program(&["reasons"]);
    assert!(!is_done && error.contains("experiment reasons: expected an adapter"), "{error}");
    assert!(error.contains("instruct.safetensors"), "{error}");
    let (is_done, _, error) = place.program(&["reasons", "--prompts", "x.txt", "--preference", "clip"]);
    assert!(!is_done && error.contains("experiment reasons: expected a model of the small world"), "{error}");
    assert!(!place.path("out").exists(), "nothing was begun");

    write_adapters(&place.model());
    fs::remove_file(place.model().join("ip_adapter/plus.safetensors")).expect("removed");
    let (is_done, out, error) = place.program(&["reasons", "--set", "max_weight=0.4"]);
    assert!(is_done, "{error}");
    let left_out = out.lines().find(|line| line.starts_with("reasons: without the arm `aspects, plain adapter`, "));
    assert!(left_out.is_some_and(|line| line.ends_with("has no ip_adapter/plus.safetensors")), "{out}");
    let config = fs::read_to_string(place.path("out/reasons/config.json")).expect("a configuration");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!((&config["rounds"], &config["experiment"]["arms"][2]["fabric"]["max_weight"]), (&4.into(), &0.4.into()));
    assert!(place.path("out/reasons/report.html").is_file());
}
