//! One U-Net evaluation without and with FABRIC or an IP-Adapter, and a VAE decode; tiny and at Stable Diffusion
//! 1.5's size.

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Distribution, Tensor};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use fabric::core::attention::AttnProcessor;
use fabric::core::fabric::{
    BlockWeights, CallWeights, InBatchReferences, RecordedReferences, ReferenceWeight, WeightedRows,
};
use fabric::core::models::{Autoencoder, LatentDecoder, Record, UNetInput, UNetModel};
use fabric::ipadapter::{AdapterConfig, ImagePromptKv, IpAdapter, ProjectionConfig, numbered_layers};
use fabric::models::tiny_vae::TinyAutoencoderConfig;
use fabric::models::unet::{UNet, UNetConfig};
use fabric::models::vae::VaeConfig;

const TIMESTEPS: [f64; 1] = [500.0];

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Casts all weights to a number type.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| x.cast(self.0))
    }
}

fn weights(unet: UNet) -> UNet {
    let dtype = match std::env::var("FABRIC_DTYPE").as_deref() {
        Err(_) | Ok("f32") => return unet,
        Ok("f16") => DType::F16,
        Ok("bf16") => DType::BF16,
        Ok(other) => panic!("FABRIC_DTYPE: expected f32, f16 or bf16, got {other}"),
    };
    unet.map(&mut Cast(dtype))
}

struct Case {
    unet: UNet,
    side: usize,
    context: usize,
    device: Device,
}

impl Case {
    fn input(&self, rows: usize) -> UNetInput<'static> {
        let latents = random([rows, 4, self.side, self.side], &self.device);
        UNetInput::new(latents, &TIMESTEPS, random([rows, 77, self.context], &self.device))
    }

    fn record(&self, references: usize) -> Vec<fabric::core::models::RecordedTokens> {
        let mut input = self.input(references);
        input.record = Record::SelfAttentionOnly;
        self.unet.forward(input).recorded
    }

    /// Returns weights for alternately liked (row 0) and disliked (row 1) references.
    fn weights(references: usize) -> Vec<ReferenceWeight> {
        let weights = CallWeights { shallow: 0.8, deep: 0.8 };
        let to = |index: usize| vec![WeightedRows { rows: index % 2..index % 2 + 1, weights }];
        (0..references)
            .map(|index| ReferenceWeight { to: to(index), blocks: BlockWeights::default(), dislike: None })
            .collect()
    }
}

fn steps(group: &mut BenchmarkGroup<'_, WallTime>, case: &Case, references: &[usize]) {
    let predict = |input: UNetInput<'_>| case.unet.forward(input).sample.expect("a prediction").into_data();
    let levels = case.unet.levels();
    let plain = case.input(2);
    group.bench_function("plain", |b| b.iter(|| black_box(predict(plain.clone()))));
    for &count in references {
        let weights = Case::weights(count);
        let processor = InBatchReferences { first: 2, references: weights.clone(), token_merge_ratio: 0.0, levels };
        let input = UNetInput { processor: &processor, reference_rows: count, ..case.input(2 + count) };
        group.bench_function(format!("interleaved_{count}"), |b| b.iter(|| black_box(predict(input.clone()))));

        let mut recording = case.input(count);
        recording.record = Record::SelfAttentionOnly;
        group.bench_function(format!("reference_pass_{count}"), |b| {
            b.iter(|| {
                let recorded = case.unet.forward(recording.clone()).recorded;
                black_box(recorded.into_iter().map(|tokens| tokens.value.into_data()).last())
            });
        });

        for (name, token_merge_ratio) in [("cached", 0.0), ("cached_half_merged", 0.5)] {
            // Recorded only if this case runs: recording takes as much time and memory as all other cases.
            let processor = LazyCell::new(|| {
                let tokens = RecordedReferences::split(case.record(count), token_merge_ratio)
                    .into_iter()
                    .map(std::sync::Arc::new);
                RecordedReferences { references: weights.iter().cloned().zip(tokens).collect(), levels }
            });
            group.bench_function(format!("{name}_{count}"), |b| {
                let input = UNetInput { processor: &*processor, ..case.input(2) };
                b.iter(|| black_box(predict(input.clone())));
            });
        }
    }
}

fn tiny_unet() -> UNetConfig {
    UNetConfig { block_out_channels: vec![64, 128, 128, 128], cross_attention_dim: 128.into(), ..UNetConfig::sd15() }
}

fn unet_tiny(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let case = Case { unet: tiny_unet().init(&device).expect("a U-Net"), side: 16, context: 128, device };
    let mut group = c.benchmark_group("unet_step_tiny");
    group.sample_size(10);
    steps(&mut group, &case, &[2, 4, 8, 16]);
    group.finish();
}

fn unet_sd15(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let case =
        Case { unet: weights(UNetConfig::sd15().init(&device).expect("a U-Net")), side: 64, context: 768, device };
    let mut group = c.benchmark_group("unet_step_sd15_512");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(60));
    steps(&mut group, &case, &[2, 4, 8, 16]);
    group.finish();
}

/// One U-Net evaluation with image prompts on the conditional and the unconditional branch.
fn adapter(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let case = Case { unet: UNetConfig::sd15().init(&device).expect("a U-Net"), side: 32, context: 768, device };
    let layers = case.unet.cross_attentions();
    let widths = numbered_layers(&layers).iter().map(|layer| layer.channels).collect();
    let projection = ProjectionConfig::Pooled { features: 1024, tokens: 4 };
    let config = AdapterConfig { projection, widths, context: 768, lora_rank: None };
    let adapter = IpAdapter::new(config.clone(), config.init(&case.device)).expect("an adapter");
    let mut group = c.benchmark_group("unet_step_sd15_256_adapter");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(30));
    let input = case.input(2);
    let predict = |input: UNetInput<'_>| case.unet.forward(input).sample.expect("a prediction").into_data();
    group.bench_function("off", |b| b.iter(|| black_box(predict(input.clone()))));
    for tokens in [4, 16] {
        let images = || random([1, tokens, 768], &case.device);
        let prompts = [(); 2].map(|()| ImagePromptKv::new(&adapter, images(), &layers).expect("a prompt"));
        let rows = [prompts[0].on(0..1), prompts[1].on(1..2)];
        let processors: [&dyn AttnProcessor; 2] = [&rows[0], &rows[1]];
        let processor = processors.as_slice();
        let input = UNetInput { processor: &processor, ..input.clone() };
        group.bench_function(format!("on_{tokens}_tokens"), |b| b.iter(|| black_box(predict(input.clone()))));
    }
    group.finish();
}

fn vae_decode(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let vae = VaeConfig::sd15().init(&device).expect("a VAE");
    let mut group = c.benchmark_group("vae_decode_sd15");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(30));
    for side in [16, 64] {
        let latents = random([1, 4, side, side], &device);
        let pixels = side * 8;
        group.bench_function(format!("{pixels}x{pixels}"), |b| {
            b.iter(|| black_box(vae.decode(latents.clone()).into_data()));
        });
    }
    group.finish();
}

/// Previews of one image of 512x512 pixels, by TAESD's decoder and by the VAE, beside a guided step of that image.
fn preview(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let mut group = c.benchmark_group("preview_sd15_512");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(20));
    let latents = random([1, 4, 64, 64], &device);
    let tiny = TinyAutoencoderConfig::taesd().init_decoder(&device).expect("a decoder");
    group.bench_function("tiny_decoder", |b| b.iter(|| black_box(tiny.decode(latents.clone()).into_data())));
    let vae = VaeConfig::sd15().init(&device).expect("a VAE");
    group.bench_function("vae", |b| b.iter(|| black_box(vae.decode(latents.clone()).into_data())));
    let case = LazyCell::new(|| {
        let unet = UNetConfig::sd15().init(&device).expect("a U-Net");
        Case { unet, side: 64, context: 768, device: device.clone() }
    });
    group.bench_function("step", |b| {
        let input = case.input(2);
        b.iter(|| black_box(case.unet.forward(input.clone()).sample.expect("a prediction").into_data()));
    });
    group.finish();
}

criterion_group!(benches, unet_tiny, adapter, vae_decode, preview, unet_sd15);
criterion_main!(benches);
