//! Checkpoints of a training run whose process is killed, and on a full disk.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fabric::ipadapter::{AdapterWeights, Features, IpAdapter};
use fabric::models::load::{LoadError, TensorSource};
use fabric::models::train::{Task, TrainError, TrainSettings, Trainer, averaged_weights};

use crate::child;
use crate::killed_writers::{LIFE, drill, write_for_ever};
use crate::models::{device, folder};

/// Makes the tokens of one image small.
struct SmallTokens(IpAdapter);

impl Task for SmallTokens {
    type Model = AdapterWeights;
    type Batch = u64;

    fn identity(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> u64 + Send + Sync> {
        Arc::new(|number| number)
    }

    fn loss(&self, model: &AdapterWeights, batch: u64, device: &Device) -> Result<Tensor<1>, String> {
        let adapter = IpAdapter::new(self.0.config().clone(), model.clone()).map_err(|error| error.to_string())?;
        let features = Tensor::<2>::full([1, 24], 1.0 + (batch % 5) as f64, device);
        let tokens = adapter.tokens(&Features::Pooled(features)).map_err(|error| error.to_string())?;
        Ok(tokens.square().mean())
    }
}

fn trainer(run: &Path) -> Trainer<SmallTokens> {
    let device = device().autodiff();
    let first = IpAdapter::open(folder().join("ip_adapter/base.safetensors"), &device).expect("an adapter");
    let weights = first.weights().clone();
    let settings = TrainSettings { steps: 100_000, warm_up: 0, save_every: 1, ..TrainSettings::default() };
    Trainer::new(SmallTokens(first), weights, &settings, run, &device, 1).expect("a trainer")
}

/// The averaged weights of the newest checkpoint of a run, as bytes by name.
fn averaged(run: &Path) -> Vec<(String, Vec<u8>)> {
    let file = averaged_weights(run).expect("a checkpoint");
    file.tensors().keys().map(|name| (name.clone(), file.read(name).expect("a tensor").bytes)).collect()
}

#[test]
fn a_training_run_goes_on_with_the_same_bits_after_its_process_was_killed() {
    const TEST: &str = "training::a_training_run_goes_on_with_the_same_bits_after_its_process_was_killed";
    // Not killed, and as many steps ahead as the killed one.
    let place_of_whole = tempfile::tempdir().expect("a folder");
    let whole = RefCell::new(trainer(place_of_whole.path()));
    let load = |place: &Path| {
        let run = place.join("run");
        let steps = trainer(&run).steps_done() as usize;
        if steps == 0 || child::place().is_some() {
            return steps.checked_sub(1);
        }
        let mut whole = whole.borrow_mut();
        while whole.steps_done() < steps as u64 {
            whole.step().expect("a step");
        }
        assert!(averaged(&run) == averaged(place_of_whole.path()), "other bits after {steps} steps");
        Some(steps - 1)
    };
    let write = |place: &Path, last: Option<usize>| {
        let mut trainer = trainer(&place.join("run"));
        write_for_ever(last, |version| {
            trainer.step().expect("a step");
            assert_eq!(trainer.steps_done() as usize, version + 1);
        });
    };
    drill(TEST, LIFE, write, load);
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_a_training_run_at_its_last_checkpoint() {
    const TEST: &str = "training::a_full_disk_ends_a_training_run_at_its_last_checkpoint";
    if let Some(place) = child::place() {
        let mut trainer = trainer(&place);
        let error = trainer.step().expect_err("no room for a checkpoint");
        assert!(matches!(error, TrainError::File(LoadError::Io { .. })), "{error:?}");
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let mut first = trainer(place.path());
    for _ in 0..2 {
        first.step().expect("a step");
    }
    let before = averaged(place.path());
    child::limited(TEST, place.path());
    assert!(averaged(place.path()) == before);
    let mut resumed = trainer(place.path());
    assert_eq!(resumed.steps_done(), 2);
    resumed.step().expect("a step");
    first.step().expect("a step");
    let unfinished =
        std::fs::read_dir(place.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let unfinished: Vec<_> = unfinished.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}
