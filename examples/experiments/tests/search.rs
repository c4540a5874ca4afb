//! The experiment with searched settings in miniature, on the model that ships: stopped and resumed, in shards, and
//! compared with presets.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fabric::DeviceKind;
use fabric::core::pipeline::{Candidate, Settings};
use fabric::models::demo_folder;
use fabric_experiments::{
    Against, Arm, Experiment, ExperimentError, ImageOrigin, ImageRecord, Inputs, RunFolder, SmallWorld, Work,
    against_presets, configured, merge, read_run, run, summary, write_report, write_tables,
};
use serde_json::Value;

#[path = "common/folders.rs"]
mod folders;

use folders::{assert_same_files, files};

/// Number of cases, of which the images of the first are kept.
const CASES: usize = 2;
/// The arms that search.
const SEARCHES: [&str; 2] = ["search, scores", "search, likes"];

/// Returns the experiment with these presets only.
fn experiment(presets: &[&str]) -> Experiment {
    let mut experiment = Experiment::named("search", &BTreeMap::new()).expect("an experiment");
    experiment.arms.retain(|arm| arm.name.strip_prefix("preset ").is_none_or(|name| presets.contains(&name)));
    experiment
}

fn small_world() -> SmallWorld {
    let device = fabric::default_device().expect("a device");
    SmallWorld::open(&demo_folder().expect("the model ships"), None, &device).expect("a model")
}

/// Runs an experiment with two steps. `sizes` are the numbers of rounds of a session and of images of a round.
fn miniature(
    world: &SmallWorld,
    experiment: &Experiment,
    sizes: [usize; 2],
    out: &Path,
    shard: &str,
) -> Result<(), ExperimentError> {
    let model = demo_folder().expect("the model ships");
    let inputs = Inputs { model: &model, prompts: None, lora: None, negative_prompt: None, device: &DeviceKind::Flex };
    let settings = Settings { steps: 2, ..Settings::default() };
    let (config, plan) = configured(experiment, &inputs.identify()?, &settings, sizes, 1, 0);
    let mut folder = RunFolder::open(out, &config, sizes.iter().product())?;
    let work = Work { arms: &experiment.arms, cases: CASES, shard: shard.parse()?, keep_images: 1 };
    run(world, &plan, &work, &mut folder, &mut |_| {})
}

/// Returns the records of a round.
fn round<'a>(records: &'a [ImageRecord], arm: &str, case: usize, round: usize) -> Vec<&'a ImageRecord> {
    records.iter().filter(|one| (one.arm.as_str(), one.case, one.round) == (arm, case, round)).collect()
}

/// Returns the settings that were proposed for the images of a round; none if they are those of the arm.
fn candidates(records: &[ImageRecord], arm: &str, case: usize, number: usize) -> Vec<Candidate> {
    let candidate = |record: &&ImageRecord| match &record.origin {
        Some(ImageOrigin::Searched(candidate)) => Some(candidate.clone()),
        _ => None,
    };
    round(records, arm, case, number).iter().filter_map(candidate).collect()
}

/// Returns what differs if a round has other images.
fn looks(records: &[ImageRecord], arm: &str, case: usize, number: usize) -> Vec<(u64, Option<f64>, Option<f64>)> {
    round(records, arm, case, number).iter().map(|one| (one.seed, one.score, one.diversity)).collect()
}

#[test]
fn each_image_has_settings_of_its_own_until_the_last_round_has_the_best_ones() {
    let (experiment, place) = (experiment(&[]), tempfile::tempdir().expect("a folder"));
    miniature(&small_world(), &experiment, [4, 2], place.path(), "1/1").expect("a run");
    let (_, records) = read_run(place.path()).expect("a run");
    assert_eq!(records.len(), experiment.arms.len() * CASES * 4 * 2);
    assert!(records.iter().all(|one| SEARCHES.contains(&one.arm.as_str()) || one.origin.is_none()));
    for case in 0..CASES {
        for arm in SEARCHES {
            // Nobody has voted before the first round, which is that of all other arms.
            assert_eq!(looks(&records, arm, case, 0), looks(&records, "no feedback", case, 0), "{arm}");
            let of_round = |number: usize| candidates(&records, arm, case, number);
            assert!(of_round(0).is_empty(), "{arm}");
            for number in [1, 2] {
                let proposed = of_round(number);
                let [one, other] = &proposed[..] else { panic!("{arm}: {proposed:?}") };
                assert_ne!(one, other, "{arm}");
                let names: Vec<&str> = one.values.keys().map(String::as_str).collect();
                assert_eq!(names, ["fabric.end", "fabric.max_weight", "fabric.start"]);
            }
            let (tried, last) = ([of_round(1), of_round(2)].concat(), of_round(3));
            let [one, other] = &last[..] else { panic!("{arm}: {last:?}") };
            // Likes teach nothing where all images of both rounds had the same score.
            let is_told = |number: usize| round(&records, arm, case, number).iter().any(|one| one.vote == Some(1.0));
            let has_learnt = arm == "search, scores" || is_told(1) || is_told(2);
            assert_eq!((one == other, tried.contains(one)), (has_learnt, has_learnt), "{arm}, case {case}");
        }
        // Both searches propose the same settings until they have learnt something.
        let [scores, likes] = SEARCHES.map(|arm| (candidates(&records, arm, case, 1), looks(&records, arm, case, 1)));
        assert_eq!(scores, likes);
        assert_ne!(scores.1, looks(&records, "no feedback", case, 1), "references act in the second round");
    }
}

#[test]
fn the_report_compares_searches_with_presets_and_names_the_settings_of_images() {
    let (experiment, place) = (experiment(&["web_ui", "comfy_ui"]), tempfile::tempdir().expect("a folder"));
    let out = place.path();
    miniature(&small_world(), &experiment, [2, 1], out, "1/1").expect("a run");
    let (config, records) = read_run(out).expect("a run");
    let image = |arm: &str, number: usize| {
        let file = round(&records, arm, 0, number)[0].file.as_ref().expect("a kept image");
        fs::read(out.join(file)).expect("an image")
    };
    for Arm { name, likes, .. } in &experiment.arms {
        // Nobody has voted before the first round.
        let has_changed = [0, 1].map(|number| image(name, number) != image("no feedback", number));
        assert_eq!(has_changed, [false, *likes], "{name}");
    }
    let rows = summary(&records, "no feedback");
    let both = against_presets(&config, &records);
    let controls: Vec<&str> = both.iter().map(|one| one.control.as_str()).collect();
    assert_eq!(controls[0], "mean of the presets");
    assert!(["preset web_ui", "preset comfy_ui"].contains(&controls[1]), "{controls:?}");
    write_tables(out, &records, &both.iter().flat_map(Against::named_rows).collect::<Vec<_>>()).expect("tables");
    let images = fs::read_to_string(out.join("images.csv")).expect("a table");
    assert!(images.lines().next().is_some_and(|head| head.ends_with(",file,origin")), "{images:.300}");
    assert!(images.contains("fabric.end = "), "{images:.300}");
    let report = write_report(out, &config, &records, &rows).expect("a report");
    let report = fs::read_to_string(report).expect("HTML");
    for part in [
        "Searched settings against presets",
        "Searches and presets: best score per round",
        "Searches against the mean of the presets: mean score per round, difference on the same prompts",
        "Searches against the best preset of the last round",
        ": fabric.end = ",
        "-- search --limit 2 --rounds 2 --images 1",
    ] {
        assert!(report.contains(part), "{part}");
    }
}

#[test]
fn a_run_stopped_at_any_byte_resumes_to_the_same_files_and_shards_merge_to_the_same_records() {
    let (world, experiment) = (small_world(), experiment(&[]));
    let run_in = |out: &Path, shard: &str| miniature(&world, &experiment, [3, 2], out, shard).expect("a run");
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    let records = Path::new("images.jsonl");
    run_in(&at("whole"), "1/1");
    let whole = files(&at("whole"));
    let lines = &whole[records];
    // Within the first line, within a line in the middle, and before the end of the last line.
    for cut in [1, lines.len() / 2, lines.len() - 1] {
        fs::write(at("whole").join(records), &lines[..cut]).expect("a cut file");
        run_in(&at("whole"), "1/1");
        assert_same_files(&files(&at("whole")), &whole);
    }

    let shards: Vec<PathBuf> = ["1/2", "2/2"].map(|shard| at(&shard.replace('/', "of"))).into();
    for (path, shard) in shards.iter().zip(["1/2", "2/2"]) {
        run_in(path, shard);
    }
    assert_eq!(merge(&at("merged"), &shards).expect("merged"), experiment.arms.len() * CASES);
    assert_eq!(read_run(&at("merged")).expect("a run"), read_run(&at("whole")).expect("a run"));
}

#[test]
fn the_program_prints_the_comparison_and_writes_it_into_the_summary() {
    let place = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fabric-experiments"));
    command.args(["search", "--limit", "1", "--rounds", "3", "--images", "1", "--steps", "2"]);
    let output = command.arg("--out").arg(place.path()).output().expect("the program");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{error}");
    for title in ["Searches against the mean of the presets", "Searches against the best preset of the last round"] {
        assert!(out.contains(title), "{out}");
    }
    let summary = fs::read_to_string(place.path().join("search/summary.csv")).expect("a table");
    for arm in ["mean of the presets", "search, likes (against mean of the presets)", "preset official_api"] {
        assert!(summary.contains(arm), "{arm}");
    }
    let config = fs::read_to_string(place.path().join("search/config.json")).expect("a configuration");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let arms = config["experiment"]["arms"].as_array().expect("arms");
    assert_eq!((arms.len(), &arms[9]["search"]["learns_from"]), (11, &"scores".into()));
}
