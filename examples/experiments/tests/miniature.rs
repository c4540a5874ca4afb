//! Every experiment in miniature, on the model that ships: stopped and resumed, and in shards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Settings};
use fabric::models::demo_folder;
use fabric_experiments::{
    Case, Experiment, ExperimentError, Feedback, NAMES, RunFolder, Shard, SmallWorld, Subject, Work, configured, merge,
    read_run, run, summary, table, write_report, write_tables,
};

const SIZES: [usize; 2] = [2, 2];

fn small_world() -> SmallWorld {
    let device = fabric::default_device().expect("a device");
    SmallWorld::open(&demo_folder().expect("the model ships"), &device).expect("a model")
}

/// Runs an experiment on two prompts, with two steps.
fn miniature(subject: &dyn Subject, name: &str, place: &Path, shard: Shard) -> Result<(), ExperimentError> {
    let experiment = Experiment::named(name, &BTreeMap::new())?;
    let settings = Settings { steps: 2, ..Settings::default() };
    let model = demo_folder().expect("the model ships");
    let (config, plan) = configured(&experiment, &model, &settings, SIZES, 0)?;
    let mut folder = RunFolder::open(place, &config, SIZES.iter().product())?;
    let work = Work { arms: &experiment.arms, cases: 2, shard, keep_images: 1 };
    run(subject, &plan, &work, &mut folder, &mut |_| {})
}

fn records(place: &Path) -> Vec<u8> {
    fs::read(place.join("images.jsonl")).expect("records")
}

#[test]
fn every_experiment_runs_and_compares_its_arms() {
    let world = small_world();
    for name in NAMES {
        let place = tempfile::tempdir().expect("a folder");
        miniature(&world, name, place.path(), Shard::default()).expect(name);
        let (config, records) = read_run(place.path()).expect("a run");
        let arms = config["experiment"]["arms"].as_array().expect("arms").len();
        assert_eq!(records.len(), arms * 2 * 4, "{name}");
        let rows = summary(&records, "no feedback");
        // In the first round nobody has voted, so all arms with the same prompt make the same images.
        let first = rows.iter().filter(|row| row.round == 0 && row.arm != "dropout 0.3");
        for row in first {
            assert!(row.difference.is_none_or(|difference| difference.mean == 0.0), "{name}: {row:?}");
        }
        let changed = rows.iter().any(|row| row.round == 1 && row.difference.is_some_and(|gained| gained.mean != 0.0));
        assert!(changed, "{name}: feedback changes the second round");
        assert!(table(&rows, "no feedback").contains("| mean score | 2 |"));
        write_tables(place.path(), &records, &rows).expect("tables");
        let report = write_report(place.path(), &config, &records, &rows).expect("a report");
        let report = fs::read_to_string(report).expect("HTML");
        assert!(report.contains("<svg") && report.contains("data:image/png") && report.contains("--limit 2"));
        let kept = records.iter().filter_map(|record| record.file.as_ref());
        assert!(
            kept.clone().count() == records.len() / 2 && kept.clone().all(|file| place.path().join(file).is_file())
        );
    }
}

/// Subject whose scoring fails after a number of calls, as if the process was stopped.
struct Stopped<'a> {
    world: &'a SmallWorld,
    left: std::sync::atomic::AtomicUsize,
}

impl Subject for Stopped<'_> {
    fn pipeline(&self) -> &Pipeline {
        self.world.pipeline()
    }

    fn case(&self, index: usize, feedback: Feedback) -> Result<Case, ExperimentError> {
        self.world.case(index, feedback)
    }

    fn score(&self, case: &Case, images: &[Image]) -> Result<Vec<f64>, ExperimentError> {
        use std::sync::atomic::Ordering;
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => self.world.score(case, images),
            Err(_) => Ok(vec![f64::NAN; images.len()]),
        }
    }

    fn embed(&self, images: &[Image]) -> Result<burn::tensor::Tensor<2>, ExperimentError> {
        self.world.embed(images)
    }
}

#[test]
fn a_stopped_run_resumes_to_the_byte_and_shards_merge_to_the_same_records() {
    let world = small_world();
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    miniature(&world, "preference", &at("whole"), Shard::default()).expect("a run");

    let stopped = Stopped { world: &world, left: 5.into() };
    let error = miniature(&stopped, "preference", &at("resumed"), Shard::default()).expect_err("it was stopped");
    assert!(error.to_string().contains("got NaN"), "{error}");
    let partly = records(&at("resumed"));
    assert!(partly.len() < records(&at("whole")).len());
    miniature(&world, "preference", &at("resumed"), Shard::default()).expect("a run");
    assert_eq!(records(&at("resumed")), records(&at("whole")));

    for shard in ["1/2", "2/2"] {
        let name = shard.replace('/', "of");
        miniature(&world, "preference", &at(&name), shard.parse().expect("a shard")).expect("a run");
    }
    let shards = [at("1of2"), at("2of2")];
    assert_eq!(merge(&at("merged"), &shards).expect("merged"), 6);
    assert_eq!(read_run(&at("merged")).expect("a run"), read_run(&at("whole")).expect("a run"));
    let (config, all) = read_run(&at("merged")).expect("a run");
    let rows = summary(&all, "no feedback");
    write_report(&at("merged"), &config, &all, &rows).expect("a report with the shards' images");
    let again = merge(&at("twice"), &[at("1of2"), at("1of2"), at("whole")]).expect_err("they overlap").to_string();
    assert!(again.contains("which is in"), "{again}");
    miniature(&world, "target", &at("other"), Shard::default()).expect("a run");
    let other = merge(&at("mixed"), &[at("1of2"), at("other")]).expect_err("other settings").to_string();
    assert!(other.contains("expected the settings of"), "{other}");
}
