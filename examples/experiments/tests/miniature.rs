//! Every experiment in miniature, on the model that ships: stopped and resumed, and in shards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fabric::DeviceKind;
use fabric::core::image::Image;
use fabric::core::pipeline::{Pipeline, Settings};
use fabric::models::load::{Dtype, HostTensor, TensorInfo, write_safetensors};
use fabric::models::{LoraChoice, demo_folder};
use fabric_experiments::{
    Arm, Case, Experiment, ExperimentError, FactorShares, Feedback, Inputs, Measure, NAMES, OWN, RunFolder, Shard,
    SmallWorld, Subject, SummaryRow, Work, configured, merge, read_run, run, summary, table, write_report,
    write_tables,
};

#[path = "common/folders.rs"]
mod folders;

use folders::{assert_same_files, files};

const SIZES: [usize; 2] = [2, 2];
/// Number of prompts whose images are kept.
const KEEP_IMAGES: usize = 1;

fn small_world() -> SmallWorld {
    let device = fabric::default_device().expect("a device");
    SmallWorld::open(&demo_folder().expect("the model ships"), None, &device).expect("a model")
}

/// Runs an experiment on two prompts, with two steps.
fn miniature(subject: &dyn Subject, name: &str, place: &Path, shard: Shard) -> Result<(), ExperimentError> {
    run_with(subject, &Experiment::named(name, &BTreeMap::new())?, None, place, shard)
}

fn run_with(
    subject: &dyn Subject,
    experiment: &Experiment,
    lora: Option<&LoraChoice>,
    place: &Path,
    shard: Shard,
) -> Result<(), ExperimentError> {
    let settings = Settings { steps: 2, ..Settings::default() };
    let model = demo_folder().expect("the model ships");
    let inputs = Inputs { model: &model, prompts: None, lora, negative_prompt: None, device: &DeviceKind::Flex };
    let (config, plan) = configured(experiment, &inputs.identify()?, &settings, SIZES, KEEP_IMAGES, 0);
    let mut folder = RunFolder::open(place, &config, SIZES.iter().product())?;
    let work = Work { arms: &experiment.arms, cases: 2, shard, keep_images: KEEP_IMAGES };
    run(subject, &plan, &work, &mut folder, &mut |_| {})
}

fn records(place: &Path) -> Vec<u8> {
    fs::read(place.join("images.jsonl")).expect("records")
}

#[test]
fn every_experiment_without_adapters_runs_and_compares_its_arms() {
    let world = small_world();
    // The others have tests of their own: they need adapters, which the model that ships may lack, a corpus, or more
    // rounds.
    for name in NAMES.into_iter().chain(OWN).filter(|name| !["reasons", "search", "corpus"].contains(name)) {
        let place = tempfile::tempdir().expect("a folder");
        miniature(&world, name, place.path(), Shard::default()).expect(name);
        let (config, records) = read_run(place.path()).expect("a run");
        let arms = config["experiment"]["arms"].as_array().expect("arms").len();
        assert_eq!(records.len(), arms * 2 * 4, "{name}");
        let rows = summary(&records, "no feedback");
        // In the first round nobody has voted, so all arms that generate as the control does make the same images.
        let experiment = Experiment::named(name, &BTreeMap::new()).expect(name);
        let like_control = |row: &&SummaryRow| {
            let arm = experiment.arms.iter().find(|arm| arm.name == row.arm);
            arm.is_some_and(|arm| arm.generation == experiment.arms[0].generation && !arm.lora)
        };
        for row in rows.iter().filter(like_control).filter(|row| row.round == 0) {
            assert!(row.difference.is_none_or(|difference| difference.mean == 0.0), "{name}: {row:?}");
        }
        let mut second = rows.iter().filter(like_control).filter(|row| row.round == 1);
        let changed = second.any(|row| row.difference.is_some_and(|gained| gained.mean != 0.0));
        assert!(changed, "{name}: feedback changes the second round");
        assert!(table(&rows, "no feedback").contains("| mean score | 2 |"));
        write_tables(place.path(), &records, &rows).expect("tables");
        let report = write_report(place.path(), &config, &records, &rows).expect("a report");
        let report = fs::read_to_string(report).expect("HTML");
        assert!(
            report.contains("% of the attention") && report.contains("mid_block.attentions.0"),
            "{name}: heat maps"
        );
        assert!(rows.iter().any(|row| row.measure == Measure::LikedCopied), "{name}: factors are counted");
        assert!(report.contains("<svg") && report.contains("data:image/png") && report.contains("--limit 2"));
        let kept = records.iter().filter_map(|record| record.file.as_ref());
        assert!(
            kept.clone().count() == records.len() / 2 && kept.clone().all(|file| place.path().join(file).is_file())
        );
    }
}

/// Subject whose scoring fails on the second prompt once a session is recorded, as if the process was stopped then.
struct Stopped<'a> {
    world: &'a SmallWorld,
    /// The file of records.
    records: PathBuf,
}

impl Stopped<'_> {
    /// Waits until a session is recorded: sessions run side by side, and an error ends them all.
    fn wait_for_records(&self) {
        let begin = Instant::now();
        while fs::metadata(&self.records).map_or(0, |file| file.len()) == 0 && begin.elapsed().as_secs() < 300 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Subject for Stopped<'_> {
    fn pipeline(&self, arm: &Arm) -> Result<&Pipeline, ExperimentError> {
        self.world.pipeline(arm)
    }

    fn cases(&self) -> Option<usize> {
        self.world.cases()
    }

    fn is_small(&self) -> bool {
        self.world.is_small()
    }

    fn case(&self, index: usize, feedback: Feedback) -> Result<Case, ExperimentError> {
        self.world.case(index, feedback)
    }

    fn score(&self, case: &Case, images: &[Image]) -> Result<Vec<f64>, ExperimentError> {
        if case.index == 0 {
            return self.world.score(case, images);
        }
        self.wait_for_records();
        Ok(vec![f64::NAN; images.len()])
    }

    fn factor_shares(
        &self,
        case: &Case,
        images: &[Image],
        liked: &[Image],
        disliked: &[Image],
    ) -> Result<Option<Vec<FactorShares>>, ExperimentError> {
        self.world.factor_shares(case, images, liked, disliked)
    }

    fn small_world(&self) -> Option<&SmallWorld> {
        self.world.small_world()
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

    let whole = files(&at("whole"));
    let has = |start: &str, extension: &str| {
        let is = |path: &&PathBuf| path.starts_with(start) && path.extension().is_some_and(|got| got == extension);
        whole.keys().filter(is).count()
    };
    // Of the first prompt, each arm keeps its images, and those with references their attention.
    assert_eq!((has("images", "png"), has("attention", "json")), (3 * 4, 2));

    let stopped = Stopped { world: &world, records: at("resumed").join("images.jsonl") };
    let error = miniature(&stopped, "preference", &at("resumed"), Shard::default()).expect_err("it was stopped");
    assert!(error.to_string().contains("got NaN"), "{error}");
    let partly = records(&at("resumed"));
    assert!(!partly.is_empty(), "a session was recorded before the stop");
    assert!(partly.len() < records(&at("whole")).len());
    miniature(&world, "preference", &at("resumed"), Shard::default()).expect("a run");
    assert_same_files(&files(&at("resumed")), &whole);

    for shard in ["1/2", "2/2"] {
        let name = shard.replace('/', "of");
        miniature(&world, "preference", &at(&name), shard.parse().expect("a shard")).expect("a run");
    }
    let shards = [at("1of2"), at("2of2")];
    assert_eq!(merge(&at("merged"), &shards).expect("merged"), 6);
    assert_eq!(read_run(&at("merged")).expect("a run"), read_run(&at("whole")).expect("a run"));
    // The records are in another order than those of one process.
    let without_records = |mut files: BTreeMap<PathBuf, Vec<u8>>| {
        files.remove(Path::new("images.jsonl")).expect("records");
        files
    };
    assert_same_files(&without_records(files(&at("merged"))), &without_records(whole.clone()));
    let (config, all) = read_run(&at("merged")).expect("a run");
    let rows = summary(&all, "no feedback");
    let report = write_report(&at("merged"), &config, &all, &rows).expect("a report with the shards' images");
    let report = fs::read_to_string(report).expect("HTML");
    assert!(report.contains("% of the attention"), "the shards' attention");
    let again = merge(&at("twice"), &[at("1of2"), at("1of2"), at("whole")]).expect_err("they overlap").to_string();
    assert!(again.contains("which is in"), "{again}");
    miniature(&world, "target", &at("other"), Shard::default()).expect("a run");
    let other = merge(&at("mixed"), &[at("1of2"), at("other")]).expect_err("other settings").to_string();
    assert!(other.contains("expected the settings of"), "{other}");
}

/// Writes a LoRA of one layer of the model that ships.
fn write_lora(path: &Path) {
    const TEXT: usize = 128;
    const WIDTH: usize = 192;
    let layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v";
    let info = |shape: [usize; 2]| TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() };
    let tensors =
        [(format!("{layer}.lora_down.weight"), info([1, TEXT])), (format!("{layer}.lora_up.weight"), info([WIDTH, 1]))];
    let read = |name: &str| {
        let (_, info) = tensors.iter().find(|(other, _)| other == name).expect("a tensor");
        let values =
            (0..info.shape.iter().product()).map(|at: usize| if at.is_multiple_of(3) { 0.5_f32 } else { -0.4 });
        Ok(HostTensor { info: info.clone(), bytes: values.flat_map(f32::to_le_bytes).collect() })
    };
    write_safetensors(path, &BTreeMap::new(), &tensors, read).expect("a written file");
}

#[test]
fn arms_with_a_lora_make_other_images_than_those_without() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("lora.safetensors");
    write_lora(&path);
    let lora = LoraChoice { path, scale: 1.0 };
    let (device, model) = (fabric::default_device().expect("a device"), demo_folder().expect("the model ships"));
    let world = SmallWorld::open(&model, Some(&lora), &device).expect("a model");
    let experiment = Experiment::named("preference", &BTreeMap::new()).expect("an experiment").with_lora();
    let out = place.path().join("run");
    run_with(&world, &experiment, Some(&lora), &out, Shard::default()).expect("a run");
    let (config, records) = read_run(&out).expect("a run");
    assert_eq!(config["lora"]["scale"], "1");
    // In the first round, only the LoRA makes a difference.
    let first = |arm: &str| -> Vec<Option<f64>> {
        let own = records.iter().filter(|record| record.arm == arm && record.round == 0);
        own.map(|record| record.diversity).collect()
    };
    assert_eq!(first("LoRA").len(), 4);
    assert_ne!(first("LoRA"), first("no feedback"));
    assert_eq!(first("LoRA"), first("LoRA, liked and disliked"));
    let report = write_report(&out, &config, &records, &summary(&records, "no feedback")).expect("a report");
    let report = fs::read_to_string(report).expect("HTML");
    assert!(report.contains("--lora-scale 1"));
    assert!(report.contains("<dt>LoRA: lora</dt>") && report.contains("<dt>all arms: fabric.max_weight</dt>"));

    let without = run_with(&small_world(), &experiment, None, &place.path().join("without"), Shard::default());
    let message = without.expect_err("the model has no LoRA").to_string();
    assert!(message.contains("arm LoRA") && message.contains("expected a model with a LoRA"), "{message}");
}
