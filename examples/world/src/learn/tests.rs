//! Tests of every stage in miniature: the loss falls, and a resumed run has the same losses as an uninterrupted
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fabric::core::schedule::{SchedulerConfig, training_levels};

use super::config::StageOptions;
use super::*;
use crate::{Readers, Split, full_caption, sample};
use fabric::models::load::{ComponentFolder, PublishedNames, SaveDtype, SaveOptions, TensorSource, save_component};
use fabric::models::train::{Optimizer, Task, TrainSettings, Trainer};

fn device() -> Device {
    fabric::backends::default_device().expect("a device")
}

/// Returns networks that learn within seconds.
fn miniature() -> WorldConfig {
    let mut world = WorldConfig::small().expect("a configuration");
    (world.text.hidden_size, world.text.intermediate_size) = (32, 64);
    (world.vision.hidden_size, world.vision.intermediate_size) = (48, 96);
    (world.text.num_hidden_layers, world.vision.num_hidden_layers) = (1, 1);
    (world.text.projection_dim, world.vision.projection_dim) = (32, 32);
    world.vision.patch_size = 16;
    world.vae.block_out_channels = vec![16, 16, 32];
    world.unet.block_out_channels = vec![16, 32, 32];
    world.unet.cross_attention_dim = 32.into();
    world
}

fn settings(steps: u64, batch: usize) -> TrainSettings {
    TrainSettings {
        steps,
        batch,
        warm_up: 3,
        save_every: steps / 2,
        average: 0.9,
        rate: 4e-3,
        ..TrainSettings::default()
    }
}

/// Trains once without interruption, and once resumed with a new trainer from the first checkpoint; returns the
/// losses.
fn losses<T: Task>(settings: &TrainSettings, model: &T::Model, task: impl Fn() -> T) -> Vec<f64> {
    let place = tempfile::tempdir().expect("a folder");
    // Weights are initialised lazily; from here on every copy has the same.
    let _ = Optimizer::new(model, settings);
    let mut got = Vec::new();
    for (run, stop) in [("whole", settings.steps), ("cut", settings.steps / 2 + 1), ("cut", settings.steps)] {
        let (folder, device) = (place.path().join(run), device().autodiff());
        let mut trainer = Trainer::new(task(), model.clone(), settings, folder, &device, 2).expect("a trainer");
        while trainer.steps_done() < stop {
            trainer.step().expect("a step");
        }
        got.push(trainer.curve().points.iter().map(|(_, loss)| *loss).collect::<Vec<f64>>());
    }
    assert_eq!(got[2], got[0], "a resumed run is the same run");
    got.swap_remove(0)
}

/// Asserts that the mean loss of the last quarter is well below that of the first, by some standard errors
/// because the initial weights are random.
fn falls(losses: &[f64], to: f64) {
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let quarter = losses.len() / 4;
    let (first, last) = (mean(&losses[..quarter]), mean(&losses[losses.len() - quarter..]));
    assert!(last < first * to, "from {first} to {last}, expected less than {to} of it: {losses:?}");
}

#[test]
fn captions_find_their_images() {
    let (world, settings) = (miniature(), settings(60, 16));
    let model = WorldClip::new(&world, &device().autodiff()).expect("networks");
    let task = || ClipTask::new(&world, world_tokenizer().expect("a tokenizer"), &settings, &StageOptions::default());
    falls(&losses(&settings, &model, task), 0.95);
}

#[test]
fn factors_are_read_off_images() {
    // Long enough for every initialisation: of 40 steps, one run in some dozens fell by less.
    let settings = settings(120, 8);
    let model = Readers::new(&device().autodiff());
    let options = StageOptions { noise: 0.1, ..StageOptions::default() };
    falls(&losses(&settings, &model, || ReadersTask::new(&settings, &options)), 0.95);
}

#[test]
fn images_come_back() {
    let (world, settings) = (miniature(), settings(30, 4));
    let model = world.vae.init(&device().autodiff()).expect("a network");
    let options = StageOptions { crop: 32, ..StageOptions::default() };
    falls(&losses(&settings, &model, || VaeTask::new(&world, &settings, &options).expect("a task")), 0.92);
    let bad = StageOptions { crop: 24, ..options };
    let message = VaeTask::new(&world, &settings, &bad).expect_err("24 does not divide 64").to_string();
    assert!(message.starts_with("crop: expected a divisor of 64") && message.contains("got 24"), "{message}");
}

#[test]
fn the_tiny_autoencoder_learns_the_vaes_images_and_latents() {
    let (mut world, settings) = (miniature(), settings(30, 4));
    world.tiny_vae.encoder_block_out_channels = vec![8; 3];
    world.tiny_vae.decoder_block_out_channels = vec![8; 3];
    let vae = Arc::new(world.vae.init(&device()).expect("a network"));
    let model = world.tiny_vae.init(&device().autodiff()).expect("a network");
    let options = StageOptions::default();
    falls(&losses(&settings, &model, || TinyVaeTask::new(&world, &settings, &options, vae.clone())), 0.9);
    let changed = learned(&settings, model, TinyVaeTask::new(&world, &settings, &options, vae));
    assert_eq!(changed, ["encoder", "decoder"].map(str::to_owned).into());
}

/// Returns the weights of a network by their published names, as bytes.
fn weights<M: Module + PublishedNames>(model: &M) -> BTreeMap<String, Vec<u8>> {
    let place = tempfile::tempdir().expect("a folder");
    let options = SaveOptions { dtype: SaveDtype::F32, max_shard_bytes: None };
    save_component(model, place.path(), &serde_json::json!({}), &options).expect("saves");
    let file = ComponentFolder::open(place.path(), None).and_then(|folder| folder.weights()).expect("opens");
    let read = |name: &String| (name.clone(), file.read(name).expect("a tensor").bytes);
    file.tensors().keys().map(read).collect()
}

/// Returns the first part of the names of all weights that a few steps change.
fn learned<T: Task>(settings: &TrainSettings, model: T::Model, task: T) -> BTreeSet<String> {
    let place = tempfile::tempdir().expect("a folder");
    let before = weights(&model);
    let mut trainer = Trainer::new(task, model, settings, place.path(), &device().autodiff(), 1).expect("a trainer");
    while !trainer.is_done() {
        trainer.step().expect("a step");
    }
    let after = weights(trainer.model());
    let changed = before.iter().filter(|(name, values)| after[*name] != **values);
    changed.map(|(name, _)| name.split('.').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_a_network_learns_from_can_be_left_as_it_is() {
    let (world, settings) = (miniature(), TrainSettings { warm_up: 1, ..settings(4, 4) });
    let options = StageOptions { fixed: true, ..StageOptions::default() };
    let vae = world.vae.init(&device().autodiff()).expect("a network");
    let task = VaeTask::new(&world, &settings, &options).expect("a task");
    assert_eq!(learned(&settings, vae, task), ["decoder", "post_quant_conv"].map(str::to_owned).into());
    let clip = WorldClip::new(&world, &device().autodiff()).expect("networks");
    let task = ClipTask::new(&world, world_tokenizer().expect("a tokenizer"), &settings, &options);
    let changed = learned(&settings, clip, task);
    assert!(changed.contains("vision_model") && !changed.iter().any(|name| name.starts_with("text")), "{changed:?}");
}

#[test]
fn cut_outs_show_the_things() {
    let samples: Vec<_> = (0..50).map(|index| sample(1, index, Split::Train)).collect();
    // Repeats the sketch as three colour planes; one patch is a whole image.
    let planes: Vec<f32> = sketches(&samples, 64).chunks_exact(64 * 64).flat_map(|one| [one; 3].concat()).collect();
    let cut = vae::cut_out(&planes, &samples, 32, 8, 1);
    assert_eq!(cut.len(), 50 * 3 * 32 * 32);
    for (cut, whole) in cut.chunks_exact(3 * 32 * 32).zip(planes.chunks_exact(3 * 64 * 64)) {
        // Black is 0.08.
        let thing = |pixels: &[f32]| pixels.iter().filter(|pixel| **pixel > 0.2).count();
        assert!(5 * thing(cut) > 2 * thing(whole) && thing(whole) > 0);
    }
}

#[test]
fn noise_is_told_from_latents() {
    let (world, settings) = (miniature(), settings(60, 8));
    let clip = WorldClip::new(&world, &device()).expect("networks");
    let pool: Vec<f32> = (0..16 * 4 * 256).map(|at| ((at / 256) as f32 * 0.7).sin()).collect();
    let scheduler =
        r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}"#;
    let levels = training_levels(&SchedulerConfig::from_json(scheduler).expect("a scheduler")).expect("levels");
    // All noise levels have the same weight, so that a few steps show in the mean.
    let options = StageOptions { min_snr: 0.0, ..StageOptions::default() };
    let task = || {
        let text = (world_tokenizer().expect("a tokenizer"), clip.text.clone());
        UNetTask::new(&world, &settings, &options, text, (pool.clone(), [4, 16, 16]), levels.clone()).expect("a task")
    };
    let model = world.unet.init(&device().autodiff()).expect("a network");
    let bad = StageOptions { focus: f64::NAN, ..options.clone() };
    let text = (world_tokenizer().expect("a tokenizer"), clip.text.clone());
    let refused = UNetTask::new(&world, &settings, &bad, text, (pool.clone(), [4, 16, 16]), levels.clone());
    assert!(refused.expect_err("NaN").to_string().contains("got NaN"));
    falls(&losses(&settings, &model, task), 0.92);
}

#[test]
fn every_caption_fits_the_window_in_known_words() {
    let tokenizer = world_tokenizer().expect("a tokenizer");
    for index in 0..5000 {
        let sample = sample(3, index, Split::Train);
        for text in [&sample.caption.text, &full_caption(&sample.scene)] {
            let ids = tokenizer.encode(text).expect("ids");
            let words = text.replace(',', " ,");
            assert_eq!(ids.len(), words.split_whitespace().count(), "{text}");
            assert!(ids.len() + 2 <= tokenizer.window(), "{text}: {} tokens", ids.len());
        }
    }
}

#[test]
fn pixels_are_those_of_the_image() {
    let samples = [sample(1, 0, Split::Train), sample(1, 1, Split::Train)];
    let rgb = samples[1].scene.render(&samples[1].variation, crate::SIDE).expect("an image");
    let tensor: Tensor<4> = upload(pixels(&samples), 64, &device());
    assert_eq!(tensor.dims(), [2, 3, 64, 64]);
    let got = tensor.slice([1..2, 2..3, 10..11, 20..21]).into_scalar::<f64>();
    let expected = f64::from(rgb[(10 * 64 + 20) * 3 + 2]) / 127.5 - 1.0;
    assert!((got - expected).abs() < 1e-6);
}
