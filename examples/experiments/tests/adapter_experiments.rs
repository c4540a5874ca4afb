//! The experiments of IP-Adapter and IPAdapter-Instruct in miniature, on the model that ships, with adapters of random
//! weights: stopped and resumed, in shards, and refused where they cannot run.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{Place, assert_same_files, copy_folder, files, write_adapters};
use fabric::DeviceKind;
use fabric::core::pipeline::Settings;
use fabric_experiments::{
    ADAPTER_NAMES, AdapterExperiment, AdapterWorld, ExperimentError, Group, ImageRecord, Inputs, Measure, RunFolder,
    Shard, SmallWorld, Work, configured_adapters, merge, read_run, run_adapters, summary, write_report, write_tables,
};
use fabric_world::{Attribute, InstructTask, Split};

/// Number of images of a case.
const IMAGES: usize = 2;

/// Runs an experiment with two steps, on one of the cases that the command line counts, and returns its folder.
fn miniature(place: &Place, name: &str, out: &str, shard: &str) -> Result<PathBuf, ExperimentError> {
    let (model, out) = (place.model(), place.path(out));
    let world = SmallWorld::open(&model, None, &fabric::default_device().expect("a device"))?;
    let experiment = AdapterExperiment::named(name)?;
    let adapters = AdapterWorld::open(&world, &model, &experiment)?;
    let inputs = Inputs { model: &model, prompts: None, lora: None, negative_prompt: None, device: &DeviceKind::Flex };
    let settings = Settings { steps: 2, ..Settings::default() };
    let (config, plan) = configured_adapters(&experiment, &inputs.identify()?, &settings, IMAGES, 1, 0);
    let mut folder = RunFolder::open(&out, &config, IMAGES)?;
    let shard: Shard = shard.parse()?;
    let work = Work { arms: &experiment.arms, cases: 1, shard, keep_images: 1 };
    run_adapters(&adapters, &plan, &work, &mut folder, &mut |_| {})?;
    Ok(out)
}

/// Returns the records of an arm, in the order of their cases and images.
fn of<'a>(records: &'a [ImageRecord], arm: &str) -> Vec<&'a ImageRecord> {
    records.iter().filter(|record| record.arm == arm).collect()
}

/// Returns the similarities of images to their condition images.
fn to_condition(records: &[&ImageRecord]) -> Vec<f64> {
    records.iter().map(|record| record.adapter.as_ref().expect("a comparison").condition_similarity).collect()
}

#[test]
fn both_experiments_run_compare_their_arms_and_are_reported() {
    let place = Place::new();
    for name in ADAPTER_NAMES {
        let out = miniature(&place, name, name, "1/1").expect(name);
        let experiment = AdapterExperiment::named(name).expect(name);
        let (config, records) = read_run(&out).expect("a run");
        assert_eq!(records.len(), experiment.arms.len() * experiment.cases.multiple() * IMAGES, "{name}");
        for record in &records {
            let adapter = record.adapter.as_ref().expect("a comparison");
            let arm = experiment.arms.iter().find(|arm| arm.name == record.arm).expect("an arm");
            assert!(record.score.is_none() && record.diversity.is_some() && record.round == 0, "{record:?}");
            assert!((-100.0..=100.0).contains(&adapter.condition_similarity), "{record:?}");
            let has_text = !record.prompt.is_empty();
            assert!(arm.uses_text || !has_text, "{record:?}");
            assert_eq!(adapter.text_similarity.is_some(), has_text, "{record:?}");
            assert!(adapter.text_shown.is_none() || has_text, "{record:?}");
            let has_both = has_text && adapter.instruction.is_some();
            assert_eq!(adapter.beyond_text_similarity.is_some(), has_both, "{record:?}");
            // Images of all cases are kept, because one of those that the command line counts is.
            for file in [&record.file, &adapter.condition] {
                assert!(out.join(file.as_ref().expect("a file")).is_file(), "{record:?}");
            }
        }
        // Arms are compared on the same noise, and the adapter changes what becomes of it.
        let control = of(&records, &experiment.control);
        for arm in experiment.arms.iter().filter(|arm| arm.scale.is_some()) {
            let own = of(&records, &arm.name);
            assert!(own.iter().zip(&control).all(|(one, other)| one.seed == other.seed), "{name}: {}", arm.name);
            assert_ne!(to_condition(&own), to_condition(&control), "{name}: {}", arm.name);
        }

        let rows = summary(&records, &experiment.control);
        write_tables(&out, &records, &rows).expect("tables");
        let images = fs::read_to_string(out.join("images.csv")).expect("a table");
        let head = images.lines().next().expect("a head");
        assert!(head.contains(",condition_similarity,") && head.ends_with(",skin,glasses"), "{head}");
        assert!(head.contains(",text_similarity,beyond_text_similarity,"), "{head}");
        assert!(images.lines().all(|line| !line.is_empty()) && images.lines().count() > records.len());
        let table = fs::read_to_string(out.join("summary.csv")).expect("a table");
        assert!(table.contains("asked factors as in the condition") && table.contains("colour as in the condition"));
        let report = write_report(&out, &config, &records, &rows).expect("a report");
        let report = fs::read_to_string(report).expect("HTML");
        for part in ["<h3>condition</h3>", "data:image/png", "similarity to the condition (CLIP-I)"] {
            assert!(report.contains(part), "{name}: {part}");
        }
        assert!(report.contains(&format!("-- {name} --limit 1 --rounds 1 --images 2")), "{name}: the command");
    }
}

#[test]
fn scales_act_and_a_text_determines_the_kind() {
    let place = Place::new();
    let out = miniature(&place, "image-prompt", "out", "1/1").expect("a run");
    let (config, records) = read_run(&out).expect("a run");
    let [half, whole] = ["scale 0.5", "scale 1"].map(|arm| to_condition(&of(&records, arm)));
    assert_ne!(half, whole);
    for record in &records {
        let adapter = record.adapter.as_ref().expect("a comparison");
        let has_text = !record.prompt.is_empty();
        assert_eq!(adapter.as_condition.contains_key(&Attribute::Kind), !has_text, "{record:?}");
        assert_eq!(adapter.text_shown.is_some(), has_text, "the text names the kind: {record:?}");
        assert!(adapter.asked_shown.is_some() && adapter.task.is_none(), "{record:?}");
    }
    let rows = summary(&records, "text only");
    assert!(rows.iter().all(|row| row.group == Group::default()));
    let report = write_report(&out, &config, &records, &rows).expect("a report");
    let report = fs::read_to_string(report).expect("HTML");
    assert!(report.contains("asked factors as in the condition by scale") && report.contains("<svg"));
}

#[test]
fn instructions_are_measured_by_task_and_wordings() {
    let place = Place::new();
    let out = miniature(&place, "instruct", "out", "1/1").expect("a run");
    let (config, records) = read_run(&out).expect("a run");
    let mut kinds = BTreeSet::new();
    for (one, other) in of(&records, "instruct").into_iter().zip(of(&records, "text only")) {
        let [one, other] = [one, other].map(|record| record.adapter.as_ref().expect("a comparison"));
        kinds.insert((one.task, one.wordings));
        assert_eq!((one.task, one.wordings, &one.instruction), (other.task, other.wordings, &other.instruction));
        // The same factors are counted with and without the adapter.
        assert!(one.as_condition.keys().eq(other.as_condition.keys()));
        assert_eq!(one.asked_shown.is_some(), other.asked_shown.is_some());
        let changes = one.condition_similarity != other.condition_similarity;
        let has_text = one.text_similarity.is_some();
        assert_eq!(one.beyond_text_similarity != other.beyond_text_similarity, changes && has_text, "{one:?}");
    }
    assert_eq!(kinds.len(), InstructTask::ALL.len() * Split::ALL.len());
    let rows = summary(&records, "text only");
    let style = Group { task: Some(InstructTask::Style), wordings: Some(Split::HeldOut) };
    let is_style = |measure| rows.iter().any(|row| row.group == style && row.measure == measure);
    assert!(is_style(Measure::AskedShown) && is_style(Measure::Factor(Attribute::Texture)));
    let is_of_all = |measure| rows.iter().any(|row| row.group == Group::default() && row.measure == measure);
    assert!(is_of_all(Measure::AskedShown) && !is_of_all(Measure::Factor(Attribute::Texture)));
    assert!(is_style(Measure::BeyondTexts) && is_of_all(Measure::BeyondTexts));
    let report = write_report(&out, &config, &records, &rows).expect("a report");
    let report = fs::read_to_string(report).expect("HTML");
    for part in [
        "style, held-out wordings",
        "trained wordings: instruct",
        "percentage points above text only, held-out wordings",
        "similarity to the condition beyond the texts (CLIP-S), in percent, by task",
    ] {
        assert!(report.contains(part), "{part}");
    }
}

#[test]
fn a_run_stopped_at_any_byte_resumes_to_the_same_files_and_shards_merge_to_the_same_records() {
    let place = Place::new();
    let records = Path::new("images.jsonl");
    let out = miniature(&place, "instruct", "whole", "1/1").expect("a run");
    let whole = files(&out);
    let lines = &whole[records];
    let experiment = AdapterExperiment::named("instruct").expect("an experiment");
    let (arms, cases) = (experiment.arms.len(), experiment.cases.multiple());
    assert_eq!(whole.keys().filter(|path| path.starts_with("images/condition")).count(), cases);

    // Within the first line, within a line in the middle, and before the end of the last line.
    for cut in [1, lines.len() / 2, lines.len() - 1] {
        let name = format!("cut at {cut}");
        copy_folder(&out, &place.path(&name));
        fs::write(place.path(&name).join(records), &lines[..cut]).expect("a cut file");
        assert_same_files(&files(&miniature(&place, "instruct", &name, "1/1").expect("a run")), &whole);
    }

    let shard = |shard: &str| miniature(&place, "instruct", &shard.replace('/', "of"), shard).expect(shard);
    let shards = ["1/2", "2/2"].map(shard);
    let merged = place.path("merged");
    assert_eq!(merge(&merged, &shards).expect("merged"), arms * cases);
    assert_eq!(read_run(&merged).expect("a run"), read_run(&out).expect("a run"));
    // The records are in another order than those of one process.
    let without_records = |mut files: BTreeMap<PathBuf, Vec<u8>>| {
        files.remove(records).expect("records");
        files
    };
    assert_same_files(&without_records(files(&merged)), &without_records(whole.clone()));
}

#[test]
fn an_adapter_of_another_kind_is_refused() {
    let place = Place::new();
    let adapter = |name: &str| place.model().join(format!("ip_adapter/{name}.safetensors"));
    let (plus, instruct) = (adapter("plus"), adapter("instruct"));
    fs::copy(&instruct, &plus).expect("a copy");
    let error = miniature(&place, "image-prompt", "out", "1/1").expect_err("an Instruct adapter").to_string();
    let says = "plus.safetensors: expected an adapter that reads no instructions, got an Instruct adapter";
    assert!(error.contains(says), "{error}");
    fs::write(&instruct, "no weights").expect("a file");
    let error = miniature(&place, "instruct", "out", "1/1").expect_err("a damaged file");
    assert!(matches!(error, ExperimentError::Adapter(_)), "{error:?}");
    assert!(!place.path("out").exists(), "nothing was begun");
}

#[test]
fn the_program_runs_what_the_model_can_do_and_says_what_it_leaves_out() {
    let place = Place::without_adapters();
    let (is_done, out, error) = place.program(&["all", "--rounds", "1"]);
    assert!(is_done, "{error}");
    let left_out = out.lines().find(|line| line.starts_with("left out: ")).expect("a line");
    for (name, file) in [("image-prompt", "plus.safetensors"), ("instruct", "instruct.safetensors")] {
        assert!(left_out.contains(&format!("{name}, because ")) && left_out.contains(file), "{left_out}");
    }
    assert!(!place.path("out/instruct").exists() && place.path("out/dropout/report.html").is_file());
    for (name, file) in [("image-prompt", "plus.safetensors"), ("instruct", "instruct.safetensors")] {
        let (is_done, _, error) = place.program(&[name]);
        assert!(!is_done && error.contains(&format!("experiment {name}: expected an adapter")), "{error}");
        assert!(error.contains(file), "{error}");
    }

    write_adapters(&place.model());
    fs::remove_dir_all(place.path("out")).expect("removed");
    let (is_done, out, error) = place.program(&["all", "--rounds", "1"]);
    assert!(is_done && !out.contains("left out: "), "{out} {error}");
    assert!(out.contains("| colour | "), "the tables by task: {out}");
    for name in ["target", "image-prompt", "instruct"] {
        assert!(place.path("out").join(name).join("report.html").is_file(), "{name}");
    }
    // Started again, it has nothing left to do.
    let (is_done, _, error) = place.program(&["instruct"]);
    assert!(is_done, "{error}");

    let refused: [(&[&str], &str); 3] = [
        (&["image-prompt", "--prompts", "x.txt", "--preference", "clip"], "experiment image-prompt: expected a model"),
        (&["instruct", "--rounds", "2"], "--rounds: instruct: expected 1 round, got 2"),
        (&["image-prompt", "--set", "max_weight=0.4"], "expected no setting of FABRIC, got max_weight"),
    ];
    for (arguments, says) in refused {
        let (is_done, _, error) = place.program(arguments);
        assert!(!is_done && error.contains(says), "{error}");
    }
}
