//! A training step of the small world's U-Net on 64 images: as one batch, and as two half batches in parallel.
//!
//! `training.py` in this folder is the same step in PyTorch.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fabric::core::noise::normal;
use fabric::core::schedule::{SchedulerConfig, training_levels};
use fabric::models::train::{TrainSettings, Trainer};
use fabric_world::SIDE;
use fabric_world::learn::{StageOptions, UNetTask, WorldConfig, world_tokenizer};

const IMAGES: usize = 64;
const POOL: usize = 256;

fn unet_step(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let world = WorldConfig::small().expect("a world");
    let side = SIDE as usize / world.vae.scale_factor();
    let shape = [world.vae.latent_channels, side, side];
    let mut group = c.benchmark_group("train_world_unet");
    group.sample_size(10).warm_up_time(Duration::from_secs(3)).measurement_time(Duration::from_secs(20));
    group.throughput(Throughput::Elements(IMAGES as u64));
    for parts in [1, 2] {
        let settings = TrainSettings {
            steps: u64::MAX,
            batch: IMAGES / parts,
            accumulate: parts as u64,
            save_every: u64::MAX,
            ..TrainSettings::default()
        };
        let text = world.text.init(&device).expect("a text encoder");
        let latents = normal(1, 0, POOL * shape.iter().product::<usize>());
        let task = UNetTask::new(
            &world,
            &settings,
            &StageOptions::default(),
            (world_tokenizer().expect("a tokenizer"), text),
            (latents, shape),
            training_levels(&SchedulerConfig::default()).expect("levels"),
        )
        .expect("a task");
        let place = tempfile::tempdir().expect("a folder");
        let model = world.unet.init(&device.clone().autodiff()).expect("a U-Net");
        let trainer = Trainer::new(task, model, &settings, place.path(), &device.clone().autodiff(), 1);
        let mut trainer = trainer.and_then(|trainer| trainer.with_replicas(parts)).expect("a trainer");
        group
            .bench_function(format!("{parts}x{}", settings.batch), |b| b.iter(|| trainer.step().expect("a step").loss));
    }
    group.finish();
}

criterion_group!(benches, unet_step);
criterion_main!(benches);
