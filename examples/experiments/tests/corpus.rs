//! The experiment with first rounds from a corpus in miniature, on the model that ships: stopped and resumed, in
//! shards, and refused where it cannot run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fabric::DeviceKind;
use fabric::core::pipeline::Settings;
use fabric::models::demo_folder;
use fabric_experiments::{
    Experiment, ExperimentError, FirstRound, ImageOrigin, ImageRecord, Inputs, RunFolder, SmallWorld, Work, configured,
    merge, read_run, run, summary, write_report, write_tables,
};
use serde_json::Value;

#[path = "common/folders.rs"]
mod folders;

use folders::{assert_same_files, files};

/// Rounds of a session, and images of a round.
const SIZES: [usize; 2] = [3, 2];
/// Number of cases, of which the images of the first are kept.
const CASES: usize = 2;
/// The arm without feedback, and those with it.
const ARMS: [&str; 3] = ["no feedback", "first round generated", "first round from the corpus"];

/// Returns the experiment with this number of drawings.
fn experiment(drawings: usize) -> Experiment {
    let mut experiment = Experiment::named("corpus", &BTreeMap::new()).expect("an experiment");
    for arm in experiment.arms.iter_mut().filter(|arm| arm.drawings().is_some()) {
        arm.first_round = Some(FirstRound::Corpus { drawings });
    }
    experiment
}

fn small_world() -> SmallWorld {
    let device = fabric::default_device().expect("a device");
    SmallWorld::open(&demo_folder().expect("the model ships"), None, &device).expect("a model")
}

/// Returns the small world with the corpus of an experiment.
fn with_drawings(experiment: &Experiment) -> SmallWorld {
    small_world().with_drawings(&demo_folder().expect("the model ships"), &experiment.arms).expect("drawings")
}

/// Runs an experiment with two steps.
fn miniature(world: &SmallWorld, experiment: &Experiment, out: &Path, shard: &str) -> Result<(), ExperimentError> {
    let model = demo_folder().expect("the model ships");
    let inputs = Inputs { model: &model, prompts: None, lora: None, negative_prompt: None, device: &DeviceKind::Flex };
    let settings = Settings { steps: 2, ..Settings::default() };
    let (config, plan) = configured(experiment, &inputs.identify()?, &settings, SIZES, 1, 0);
    let mut folder = RunFolder::open(out, &config, SIZES.iter().product())?;
    let work = Work { arms: &experiment.arms, cases: CASES, shard: shard.parse()?, keep_images: 1 };
    run(world, &plan, &work, &mut folder, &mut |_| {})
}

/// Returns the records of a round.
fn round<'a>(records: &'a [ImageRecord], arm: &str, case: usize, round: usize) -> Vec<&'a ImageRecord> {
    records.iter().filter(|one| (one.arm.as_str(), one.case, one.round) == (arm, case, round)).collect()
}

/// Returns what differs if a round has other images.
fn looks(records: &[ImageRecord], arm: &str, case: usize, number: usize) -> Vec<(u64, Option<f64>, Option<f64>)> {
    round(records, arm, case, number).iter().map(|one| (one.seed, one.score, one.diversity)).collect()
}

#[test]
fn the_first_round_is_from_the_corpus_and_its_votes_act_on_generated_ones() {
    let (experiment, place) = (experiment(24), tempfile::tempdir().expect("a folder"));
    let out = place.path();
    miniature(&with_drawings(&experiment), &experiment, out, "1/1").expect("a run");
    let (config, records) = read_run(out).expect("a run");
    assert_eq!(records.len(), ARMS.len() * CASES * SIZES.iter().product::<usize>());
    let [control, generated, corpus] = ARMS;
    assert_eq!(config["experiment"]["control"], generated);
    for record in &records {
        let is_drawing = record.arm == corpus && record.round == 0;
        assert_eq!(matches!(record.origin, Some(ImageOrigin::Corpus(_))), is_drawing, "{record:?}");
        assert_eq!(record.origin.is_some(), is_drawing, "{record:?}");
    }
    for case in 0..CASES {
        let found = round(&records, corpus, case, 0);
        let [one, other] = &found[..] else { panic!("{found:?}") };
        assert_ne!(one.origin, other.origin);
        assert_eq!(looks(&records, generated, case, 0), looks(&records, control, case, 0));
        assert_ne!(looks(&records, corpus, case, 0), looks(&records, control, case, 0));
        for arm in [generated, corpus] {
            // Nobody votes where all scores are equal.
            let has_votes = round(&records, arm, case, 0).iter().any(|one| one.vote == Some(1.0));
            let has_changed = looks(&records, arm, case, 1) != looks(&records, control, case, 1);
            assert_eq!(has_changed, has_votes, "{arm}, case {case}");
        }
    }

    let rows = summary(&records, generated);
    write_tables(out, &records, &rows).expect("tables");
    let images = fs::read_to_string(out.join("images.csv")).expect("a table");
    assert!(images.lines().next().is_some_and(|head| head.ends_with(",file,origin")), "{images:.300}");
    let report = write_report(out, &config, &records, &rows).expect("a report");
    let report = fs::read_to_string(report).expect("HTML");
    for part in ["First rounds from a corpus", ": drawing 00", "-- corpus --limit 2 --rounds 3 --images 2"] {
        assert!(report.contains(part), "{part}");
    }
}

#[test]
fn a_run_stopped_at_any_byte_resumes_to_the_same_files_and_shards_merge_to_the_same_records() {
    let (experiment, place) = (experiment(12), tempfile::tempdir().expect("a folder"));
    let at = |name: &str| place.path().join(name);
    let records = Path::new("images.jsonl");
    miniature(&with_drawings(&experiment), &experiment, &at("whole"), "1/1").expect("a run");
    let whole = files(&at("whole"));
    let lines = &whole[records];
    // Another process has drawings of its own, which are the same.
    let world = with_drawings(&experiment);
    // Within the first line, within a line in the middle, and before the end of the last line.
    for cut in [1, lines.len() / 2, lines.len() - 1] {
        fs::write(at("whole").join(records), &lines[..cut]).expect("a cut file");
        miniature(&world, &experiment, &at("whole"), "1/1").expect("a run");
        assert_same_files(&files(&at("whole")), &whole);
    }

    let shards: Vec<PathBuf> = ["1/2", "2/2"].map(|shard| at(&shard.replace('/', "of"))).into();
    for (path, shard) in shards.iter().zip(["1/2", "2/2"]) {
        miniature(&world, &experiment, path, shard).expect("a run");
    }
    assert_eq!(merge(&at("merged"), &shards).expect("merged"), ARMS.len() * CASES);
    assert_eq!(read_run(&at("merged")).expect("a run"), read_run(&at("whole")).expect("a run"));
}

#[test]
fn a_corpus_that_is_missing_or_too_small_is_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let refused = |world: &SmallWorld, experiment: &Experiment, name: &str| {
        miniature(world, experiment, &place.path().join(name), "1/1").expect_err(name).to_string()
    };
    let error = refused(&small_world(), &experiment(12), "missing");
    let says = "arm first round from the corpus: expected the small world with a corpus of 12 drawings";
    assert!(error.starts_with(says), "{error}");
    let one = experiment(1);
    let error = refused(&with_drawings(&one), &one, "small");
    assert!(error.starts_with("drawings of the corpus: expected at least 2, the images of a round, got 1"), "{error}");
    let none = small_world().with_drawings(&demo_folder().expect("the model ships"), &experiment(0).arms);
    assert!(matches!(none, Err(ExperimentError::Corpus(_))), "{none:?}");
}

#[test]
fn the_program_draws_the_corpus_and_refuses_prompts_of_a_file() {
    let place = tempfile::tempdir().expect("a folder");
    let program = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabric-experiments"));
        command.args(["corpus", "--limit", "1", "--images", "1", "--steps", "2"]).args(more);
        let output = command.arg("--out").arg(place.path().join("out")).output().expect("the program");
        (output.status.success(), String::from_utf8(output.stderr).expect("text"))
    };
    let (is_done, error) = program(&["--prompts", "x.txt", "--preference", "clip"]);
    assert!(!is_done && error.contains("experiment corpus: expected a model of the small world"), "{error}");
    assert!(!place.path().join("out").exists(), "nothing was begun");
    let (is_done, error) = program(&[]);
    assert!(is_done, "{error}");
    let config = fs::read_to_string(place.path().join("out/corpus/config.json")).expect("a configuration");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let first_round = &config["experiment"]["arms"][1]["first_round"];
    assert_eq!((&config["rounds"], &first_round["corpus"]["drawings"]), (&3.into(), &200.into()));
    assert!(place.path().join("out/corpus/report.html").is_file());
}
