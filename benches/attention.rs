//! One attention layer at Stable Diffusion 1.5's highest resolution: plain, weighted, and with many keys.

use std::hint::black_box;
use std::time::Duration;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use fabric::backends::ops::{KeyGroup, grouped_attention, weighted_attention};

fn random(keys: usize, device: &Device) -> Tensor<4> {
    Tensor::random([1, 8, keys, 40], Distribution::Normal(0.0, 1.0), device)
}

fn attention(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let mut group = c.benchmark_group("attention_8x4096x40");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    let query = random(4096, &device);
    for (name, keys, weights) in [
        ("plain_4096_keys", 4096, vec![]),
        ("plain_12288_keys", 12288, vec![]),
        ("weighted_12288_keys", 12288, vec![(4096, 1.0), (4096, 0.8), (4096, 0.4)]),
    ] {
        let (key, value) = (random(keys, &device), random(keys, &device));
        group.bench_function(name, |b| {
            b.iter(|| {
                let out = weighted_attention(query.clone(), key.clone(), value.clone(), &weights);
                black_box(out.into_data())
            });
        });
    }
    // As in a U-Net layer with two references: the layer's own keys and each reference's keys in separate tensors.
    let groups = [1.0, 0.8, 0.4].map(|weight| KeyGroup {
        key: random(4096, &device),
        value: random(4096, &device),
        weights: vec![(4096, weight)],
    });
    group.bench_function("weighted_groups_of_12288_keys", |b| {
        b.iter(|| black_box(grouped_attention(query.clone(), groups.to_vec()).into_data()));
    });
    group.finish();
}

criterion_group!(benches, attention);
criterion_main!(benches);
