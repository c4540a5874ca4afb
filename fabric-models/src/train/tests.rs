//! Training a line.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};

use super::*;
use crate::layers::Linear;
use crate::load::{PublishedNames, TensorSource};

/// A line through the origin, and points drawn from the batch's number.
#[derive(Module, Debug)]
struct Line {
    layer: Linear,
}

impl PublishedNames for Line {
    fn published_name(path: &str) -> String {
        path.to_owned()
    }
}

#[derive(Debug)]
struct FitLine {
    spoilt_from: u64,
}

impl Task for FitLine {
    type Model = Line;
    type Batch = (u64, Vec<f32>);

    fn identity(&self) -> Value {
        json!({ "slope": 3.0 })
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> Self::Batch + Send + Sync> {
        Arc::new(|number| (number, (0..8).map(|i| ((number * 8 + i) as f32 * 0.37).sin()).collect()))
    }

    fn loss(&self, model: &Line, (number, xs): Self::Batch, device: &Device) -> Result<Tensor<1>, String> {
        let bad = if number >= self.spoilt_from { f32::NAN } else { 0.0 };
        let ys: Vec<f32> = xs.iter().map(|x| 3.0 * x + bad).collect();
        let column = |values: Vec<f32>| Tensor::<2>::from_data(TensorData::new(values, [8, 1]), device);
        Ok((model.layer.forward(column(xs)) - column(ys)).square().mean())
    }
}

fn device() -> Device {
    fabric_backends::default_device().expect("a device").autodiff()
}

fn line() -> Line {
    let device = device();
    let layer = Linear::new(1, 1, false, &device);
    let at = |value: f32| TensorData::new(vec![value], [1, 1]);
    let weight = burn::module::Param::from_tensor(Tensor::from_data(at(0.1), &device));
    Line { layer: Linear { weight, ..layer } }
}

fn settings() -> TrainSettings {
    TrainSettings { steps: 60, warm_up: 5, rate: 0.1, save_every: 20, average: 0.9, ..TrainSettings::default() }
}

fn trainer(
    folder: &std::path::Path,
    settings: &TrainSettings,
    spoilt_from: u64,
) -> Result<Trainer<FitLine>, TrainError> {
    Trainer::new(FitLine { spoilt_from }, line(), settings, folder, &device(), 3)
}

fn weights(model: &Line) -> Vec<u32> {
    let mut bits = Vec::new();
    super::optimizer::visit(model, &mut |_, values, _| {
        let values: Vec<f32> = values.into_data().try_to_vec().expect("f32");
        bits.extend(values.iter().map(|x| x.to_bits()));
    });
    bits
}

#[test]
fn the_loss_falls_and_a_resumed_run_ends_with_the_same_bits() {
    let place = tempfile::tempdir().expect("a folder");
    let (whole, cut) = (place.path().join("whole"), place.path().join("cut"));
    let mut at_once = trainer(&whole, &settings(), u64::MAX).expect("a trainer");
    let mut losses = Vec::new();
    while !at_once.is_done() {
        losses.push(at_once.step().expect("a step").loss);
    }
    assert!(losses[59] < losses[0] / 20.0, "{losses:?}");

    let mut first = trainer(&cut, &settings(), u64::MAX).expect("a trainer");
    for _ in 0..27 {
        first.step().expect("a step");
    }
    drop(first);
    let mut second = trainer(&cut, &settings(), u64::MAX).expect("a trainer");
    assert_eq!(second.steps_done(), 20, "the last checkpoint");
    while !second.is_done() {
        second.step().expect("a step");
    }
    assert_eq!(weights(&second.model().valid()), weights(&at_once.model().valid()));
    assert_eq!(weights(&second.averaged()), weights(&at_once.averaged()));
    assert_eq!(second.curve(), at_once.curve());
    assert!(cut.join("loss.svg").is_file());
    let kept = std::fs::read_dir(&cut)
        .expect("a folder")
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("step-")));
    assert_eq!(kept.count(), 2);
}

#[test]
fn a_checkpoint_gives_the_averaged_weights_by_its_own_folder_and_by_that_of_the_run() {
    let place = tempfile::tempdir().expect("a folder");
    let mut run = trainer(place.path(), &settings(), u64::MAX).expect("a trainer");
    let message = averaged_weights(place.path()).expect_err("no checkpoint yet").to_string();
    assert!(message.contains("no complete checkpoint") && message.contains("step-"), "{message}");
    let averaged = |folder: &std::path::Path| {
        let file = averaged_weights(folder).expect("weights");
        assert_eq!(file.tensors().keys().collect::<Vec<_>>(), ["layer.weight"]);
        let tensor = file.read("layer.weight").expect("a tensor");
        tensor.bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect::<Vec<u32>>()
    };
    for step in 1..=40 {
        run.step().expect("a step");
        if step % 20 == 0 {
            let own = place.path().join(format!("step-{step:08}"));
            assert_eq!(averaged(place.path()), weights(&run.averaged()));
            assert_eq!(averaged(&own), weights(&run.averaged()));
        }
    }
    assert!(averaged(&place.path().join("step-00000020")) != averaged(place.path()), "the newest of two");
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    let place = tempfile::tempdir().expect("a folder");
    let settings = TrainSettings { accumulate: 2, steps: 10, ..settings() };
    let mut trainer = trainer(place.path(), &settings, u64::MAX).expect("a trainer");
    let task = FitLine { spoilt_from: u64::MAX };
    let alone = |number| {
        let batch = task.batches()(number);
        task.loss(&line(), batch, &device()).expect("a loss").into_scalar::<f64>()
    };
    let loss = trainer.step().expect("a step").loss;
    assert!((loss - (alone(0) + alone(1)) / 2.0).abs() < 1e-6, "{loss}");
}

#[test]
fn batches_beside_each_other_are_batches_one_after_the_other() {
    let settings = TrainSettings { accumulate: 3, steps: 10, ..settings() };
    let [one, two, many] = [1, 2, usize::MAX].map(|replicas| {
        let place = tempfile::tempdir().expect("a folder");
        let trainer = trainer(place.path(), &settings, u64::MAX).expect("a trainer");
        let mut trainer = trainer.with_replicas(replicas).expect("threads");
        while !trainer.is_done() {
            trainer.step().expect("a step");
        }
        weights(&trainer.averaged())
    });
    assert_eq!(one, two);
    assert_eq!(one, many);
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_saved() {
    let place = tempfile::tempdir().expect("a folder");
    let mut run = trainer(place.path(), &settings(), 23).expect("a trainer");
    let error = loop {
        if let Err(error) = run.step() {
            break error;
        }
    };
    assert!(matches!(error, TrainError::Diverged { step: 24, batch: 23, .. }), "{error}");
    assert!(error.to_string().contains("step-00000020"), "{error}");
    assert_eq!(trainer(place.path(), &settings(), u64::MAX).expect("a trainer").steps_done(), 20);
}

/// Has batches, and can use none.
#[derive(Debug)]
struct Refuses(FitLine);

impl Task for Refuses {
    type Model = Line;
    type Batch = (u64, Vec<f32>);

    fn identity(&self) -> Value {
        self.0.identity()
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> Self::Batch + Send + Sync> {
        self.0.batches()
    }

    fn loss(&self, _model: &Line, _batch: Self::Batch, _device: &Device) -> Result<Tensor<1>, String> {
        Err("nothing to learn".to_owned())
    }
}

#[test]
fn a_batch_that_cannot_be_used_is_named_and_the_network_stays() {
    let place = tempfile::tempdir().expect("a folder");
    let task = Refuses(FitLine { spoilt_from: u64::MAX });
    let mut run = Trainer::new(task, line(), &settings(), place.path(), &device(), 1).expect("a trainer");
    for number in 0..2 {
        let message = run.step().expect_err("an error").to_string();
        assert!(message.contains(&format!("batch {number}")) && message.contains("nothing to learn"), "{message}");
    }
    assert_eq!(weights(run.model()), weights(&line()));
    run.save().expect("a checkpoint");
}

#[test]
fn checkpoints_of_another_run_and_half_written_ones_are_not_taken() {
    let place = tempfile::tempdir().expect("a folder");
    let mut run = trainer(place.path(), &settings(), u64::MAX).expect("a trainer");
    for _ in 0..20 {
        run.step().expect("a step");
    }
    let other = TrainSettings { rate: 0.2, ..settings() };
    let message = trainer(place.path(), &other, u64::MAX).expect_err("an error").to_string();
    assert!(message.contains("rate") && message.contains("0.1") && message.contains("0.2"), "{message}");
    // How often it is saved may change.
    assert!(trainer(place.path(), &TrainSettings { save_every: 7, ..settings() }, u64::MAX).is_ok());
    // What a kill leaves behind has another name, or no state.
    std::fs::create_dir(place.path().join("step-00000040")).expect("a folder");
    std::fs::create_dir(place.path().join(".step-00000060.partial-1")).expect("a folder");
    assert_eq!(trainer(place.path(), &settings(), u64::MAX).expect("a trainer").steps_done(), 20);
    std::fs::write(place.path().join("step-00000020/average.safetensors"), b"short").expect("a file");
    let message = trainer(place.path(), &settings(), u64::MAX).expect_err("an error").to_string();
    assert!(message.contains("average.safetensors"), "{message}");
}

/// A run of 40 steps with the checkpoints of steps 20 and 40.
fn trained(place: &std::path::Path) {
    let mut run = trainer(place, &settings(), u64::MAX).expect("a trainer");
    for _ in 0..40 {
        run.step().expect("a step");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_damage_is_named() {
    use crate::load::{Dtype, SafetensorsFile, write_safetensors};

    let place = tempfile::tempdir().expect("a folder");
    trained(place.path());
    let newest = place.path().join("step-00000040");
    let refused = |parts: &[&str]| {
        let message = trainer(place.path(), &settings(), u64::MAX).expect_err("a damaged checkpoint").to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    for name in ["moments-1.safetensors", "moments-2.safetensors", "average.safetensors"] {
        let path = newest.join(name);
        let whole = std::fs::read(&path).expect("a file");
        let file = SafetensorsFile::open(&path).expect("opens");
        let stored = file.read("layer.weight").expect("a tensor");
        let replace = |dtype, bytes: [u8; 4]| {
            let mut tensor = stored.clone();
            tensor.info.dtype = dtype;
            tensor.bytes = bytes.to_vec();
            let infos = [("layer.weight".to_owned(), tensor.info.clone())];
            write_safetensors(&path, &Default::default(), &infos, |_| Ok(tensor.clone())).expect("written");
        };
        replace(Dtype::I32, 7_i32.to_le_bytes());
        refused(&[name, "`layer.weight`", "F32 [1, 1]", "I32 [1, 1]"]);
        replace(Dtype::F32, f32::NAN.to_le_bytes());
        refused(&[name, "`layer.weight`", "NaN"]);
        if name == "moments-2.safetensors" {
            replace(Dtype::F32, (-1.0_f32).to_le_bytes());
            refused(&[name, "`layer.weight`", "negative number at index 0"]);
        }
        std::fs::write(&path, whole).expect("written");
    }
    let state = newest.join("state.json");
    let whole = std::fs::read_to_string(&state).expect("a file");
    for step in ["20", "61", "1000000000000"] {
        std::fs::write(&state, whole.replace("\"step\": 40", &format!("\"step\": {step}"))).expect("written");
        refused(&["state.json", "the number of the folder, and at most 60", step]);
    }
    std::fs::File::create(&state).and_then(|file| file.set_len(1 << 30)).expect("a long file");
    refused(&["state.json", "at most 4194304 bytes"]);
    std::fs::write(&state, whole).expect("written");
    let curve = place.path().join("loss.csv");
    std::fs::File::options().append(true).open(&curve).and_then(|file| file.set_len(1 << 30)).expect("a long file");
    refused(&["loss.csv", "at most 2440 bytes for 60 steps"]);
    std::fs::remove_file(&curve).expect("removed");
    assert_eq!(trainer(place.path(), &settings(), u64::MAX).expect("a trainer").steps_done(), 40);
}

#[test]
fn checkpoints_are_in_the_order_of_their_numbers() {
    let place = tempfile::tempdir().expect("a folder");
    for step in ["99999999", "100000000", "of-a-dance"] {
        let folder = place.path().join(format!("step-{step}"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("state.json"), "{}").expect("written");
    }
    let newest = super::checkpoint::newest(place.path()).expect("a list").expect("a checkpoint");
    assert!(newest.ends_with("step-100000000"), "{newest:?}");
}

#[cfg(unix)]
#[test]
fn what_a_kill_left_more_than_a_day_ago_is_removed_by_the_next_run() {
    use std::fs;
    use std::time::{Duration, SystemTime};

    let place = tempfile::tempdir().expect("a folder");
    trained(place.path());
    let left = |name: &str, file: &str, hours: u64| {
        let folder = place.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join(file), b"half").expect("written");
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        fs::File::open(&folder).and_then(|folder| folder.set_modified(time)).expect("an older time");
        folder
    };
    let gone = [
        left(".step-00000060.partial-0123456789abcdef", "weights.safetensors", 25),
        left("step-00000010", "weights.safetensors", 25),
    ];
    let kept = [
        left(".step-00000060.partial-00000000000000ff", "weights.safetensors", 1),
        left("step-00000030", "average.safetensors", 1),
        left("step-00000011", "notes.txt", 25),
        left("step-by-step", "weights.safetensors", 1000),
    ];
    assert_eq!(trainer(place.path(), &settings(), u64::MAX).expect("a trainer").steps_done(), 40);
    assert!(gone.iter().all(|folder| !folder.exists()));
    assert!(kept.iter().all(|folder| folder.is_dir()));
}

#[test]
fn absurd_numbers_are_refused_before_anything_is_made() {
    let most = TrainSettings { steps: 1_000_000_000, batch: 65_536, accumulate: 65_536, ..settings() };
    most.validate().expect("the largest numbers");
    TrainSettings { save_every: u64::MAX, ..settings() }.validate().expect("a checkpoint at the end alone");
    for (name, bad) in [
        ("steps", TrainSettings { steps: 1_000_000_001, ..most.clone() }),
        ("batch", TrainSettings { batch: 65_537, ..most.clone() }),
        ("accumulate", TrainSettings { accumulate: u64::MAX, ..most.clone() }),
    ] {
        let message = bad.validate().expect_err(name).to_string();
        assert!(message.starts_with(name) && message.contains("expected 1 to "), "{message}");
    }
    let place = tempfile::tempdir().expect("a folder");
    let task = FitLine { spoilt_from: u64::MAX };
    let run = Trainer::new(task, line(), &settings(), place.path().join("run"), &device(), 1_000_000);
    let message = run.expect_err("too many threads").to_string();
    assert!(message.starts_with("workers: expected at most 1024, got 1000000"), "{message}");
    assert!(!place.path().join("run").exists());
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    for (name, bad) in [
        ("steps", TrainSettings { steps: 0, ..settings() }),
        ("warm_up", TrainSettings { warm_up: 60, ..settings() }),
        ("rate", TrainSettings { rate: f64::NAN, ..settings() }),
        ("average", TrainSettings { average: 1.0, ..settings() }),
        ("batch", TrainSettings { batch: 0, ..settings() }),
    ] {
        let message = bad.validate().expect_err(name).to_string();
        assert!(message.starts_with(name) && message.contains("expected"), "{message}");
    }
}

#[test]
fn the_rate_rises_and_falls_to_its_share() {
    let settings = TrainSettings { rate: 1.0, warm_up: 10, steps: 110, final_share: 0.1, ..settings() };
    assert!((learning_rate(&settings, 0) - 0.1).abs() < 1e-12);
    assert!((learning_rate(&settings, 10) - 1.0).abs() < 1e-12);
    assert!((learning_rate(&settings, 60) - 0.55).abs() < 1e-12);
    assert!((learning_rate(&settings, 110) - 0.1).abs() < 1e-12);
}

#[test]
fn batches_come_in_order_whatever_the_threads_do() {
    let slow = Arc::new(|n: u64| {
        std::thread::sleep(std::time::Duration::from_millis(n * 7 % 5));
        n
    });
    let mut feed = Feed::new(slow, 4, 3);
    let got: Vec<u64> = (0..12).map(|_| feed.take().expect("a batch").1).collect();
    assert_eq!(got, (4..16).collect::<Vec<_>>());
    let mut feed = Feed::new(Arc::new(|n: u64| assert!(n < 2, "no batch {n}")), 0, 2);
    let failed = (0..3).map(|_| feed.take()).find_map(Result::err).expect("an error").to_string();
    assert!(failed.contains("batch 2"), "{failed}");
}

#[test]
fn a_curve_survives_its_table() {
    let curve = LossCurve { points: vec![(1, 0.5), (2, 0.25), (3, 1e-3)] };
    assert_eq!(LossCurve::from_csv(&curve.csv()), curve);
    assert!(curve.svg("loss").starts_with("<svg"));
    assert!(LossCurve::default().svg("loss").ends_with("</svg>\n"));
}

#[test]
fn a_gradient_that_is_not_finite_leaves_network_and_average_as_they_were() {
    let mut optimizer = Optimizer::new(&line(), &settings());
    let step = |optimizer: &mut Optimizer, model: Line, factor: f32| {
        let x = Tensor::<2>::ones([1, 1], &device());
        let loss = (model.layer.forward(x) * factor).sum();
        let gradients = burn::optim::GradientsParams::from_grads(loss.backward(), &model);
        optimizer.step(model, gradients, 0.1, 0)
    };
    for factor in [f32::INFINITY, f32::NAN] {
        let (model, length) = step(&mut optimizer, line(), factor);
        assert!(!length.is_finite(), "{length}");
        assert_eq!(weights(&model), weights(&line()));
        assert_eq!(weights(&optimizer.averaged(line())), weights(&line()));
    }
    let (model, length) = step(&mut optimizer, line(), 1.0);
    assert_eq!(length, 1.0);
    assert!(
        weights(&model) != weights(&line()) && weights(&model).iter().all(|bits| f32::from_bits(*bits).is_finite())
    );
}
