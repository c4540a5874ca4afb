//! Checkpoints of training runs.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fabric::ipadapter::{AdapterConfig, AdapterFile, AdapterWeights, Features, IpAdapter};
use fabric::models::train::{Task, TrainSettings, Trainer};

use super::*;

/// Makes the tokens of one image small.
struct SmallTokens(AdapterConfig);

impl Task for SmallTokens {
    type Model = AdapterWeights;
    type Batch = u64;

    fn identity(&self) -> serde_json::Value {
        serde_json::json!({})
    }

    fn batches(&self) -> Arc<dyn Fn(u64) -> u64 + Send + Sync> {
        Arc::new(|number| number)
    }

    fn loss(&self, model: &AdapterWeights, _batch: u64, device: &Device) -> Result<Tensor<1>, String> {
        let adapter = IpAdapter::new(self.0.clone(), model.clone()).map_err(|error| error.to_string())?;
        let tokens = adapter.tokens(&Features::Pooled(Tensor::<2>::ones([1, 24], device)));
        Ok(tokens.map_err(|error| error.to_string())?.square().mean())
    }
}

#[test]
fn the_checkpoint_of_a_training_run_becomes_the_adapter_that_training_saves() {
    let place = Place::new();
    let [run, expected] = ["run", "expected.safetensors"].map(|name| place.named(name));
    let device = fabric::default_device().expect("a device").autodiff();
    let config = AdapterFile::open(ADAPTER).expect("a file").config().expect("an adapter");
    let first = IpAdapter::open(ADAPTER, &device).expect("an adapter").weights().clone();
    let settings = TrainSettings { steps: 3, warm_up: 0, average: 0.5, save_every: 1, ..TrainSettings::default() };
    let mut trainer = Trainer::new(SmallTokens(config.clone()), first, &settings, &run, &device, 1).expect("a trainer");
    while !trainer.is_done() {
        trainer.step().expect("a step");
    }
    let learned = IpAdapter::new(config, trainer.averaged()).expect("an adapter");
    learned.save(&expected, LoadDtype::F16).expect("saved");
    let expected = tensors(&expected);

    let newest = place.named("run/step-00000003");
    for (checkpoint, name) in [(&run, "of-run.safetensors"), (&newest, "of-step.safetensors")] {
        let out = place.named(name);
        let report = call(&["adapter", checkpoint, &out]).expect("a file");
        assert!(tensors(&out) == expected, "{name}");
        let others = ["moments-1.safetensors", "moments-2.safetensors", "state.json", "weights.safetensors"];
        assert_eq!(report.unused, others);
    }
    let older = place.named("older.safetensors");
    call(&["adapter", &place.named("run/step-00000002"), &older, "--dtype", "f32"]).expect("a file");
    let older = tensors(&older);
    assert!(older.keys().eq(expected.keys()) && older.values().all(|tensor| tensor.info.dtype == Dtype::F32));
    let trained = "image_proj.norm.weight";
    assert!(older[trained] != tensors(ADAPTER)[trained], "the weights before training");
}

#[test]
fn a_folder_without_a_checkpoint_and_a_damaged_one_are_refused() {
    let place = Place::new();
    let [run, out] = ["run", "out.safetensors"].map(|name| place.named(name));
    let refused = || call(&["adapter", &run, &out]).expect_err("no checkpoint").to_string();
    fs::create_dir(&run).expect("a folder");
    assert!(refused().contains("no complete checkpoint"), "{}", refused());
    let step = Path::new(&run).join("step-00000001");
    fs::create_dir(&step).expect("a folder");
    fs::write(step.join("state.json"), "{}").expect("a file");
    fs::write(step.join("average.safetensors"), "short").expect("a file");
    assert!(refused().contains("average.safetensors"), "{}", refused());
    // The weights of another network.
    fs::copy(format!("{MODEL}/image_encoder/model.safetensors"), step.join("average.safetensors")).expect("a copy");
    assert!(refused().contains("is this an IP-Adapter?"), "{}", refused());
    assert_eq!(place.entries(), ["run"]);
}
