//! Times that a user notices: encoding a prompt, loading a network, and generating images with the demo model.

use std::cell::OnceCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fabric::core::fabric::ReferencePass;
use fabric::models::clip::ClipTextConfig;
use fabric::models::demo_folder;
use fabric::models::load::{LoadDtype, LoadOptions, SafetensorsFile, load_into, save_weights};
use fabric::models::unet::UNetConfig;
use fabric::prelude::*;

/// Encodes a prompt and an empty prompt with a text encoder of Stable Diffusion 1.5's size.
fn text(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let encoder = ClipTextConfig::vit_l().init(&device).expect("a text encoder");
    let ids: Vec<Vec<u32>> = vec![(0..77).map(|at| at * 600).collect(), vec![49_407; 77]];
    let mut group = c.benchmark_group("text_sd15");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("two_prompts", |b| {
        b.iter(|| black_box(encoder.forward(&ids).expect("an embedding").last_hidden_state.into_data()));
    });
    group.finish();
}

/// Loads Stable Diffusion 1.5's U-Net from an f16 file of 1.7 GB that is in the page cache.
fn load(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("unet.safetensors");
    let config = UNetConfig::sd15();
    // Written by the first case that runs, so that no time is lost if a filter excludes this group.
    let written = OnceCell::new();
    let write = || save_weights(&config.init(&device).expect("a U-Net"), &path, LoadDtype::F16).expect("a file");
    let mut group = c.benchmark_group("load_sd15_unet");
    group.sample_size(10).measurement_time(Duration::from_secs(30));
    for (name, dtype) in [("f16_as_f32", LoadDtype::F32), ("f16", LoadDtype::Keep)] {
        let options = LoadOptions::default().with_dtype(dtype);
        group.bench_function(name, |b| {
            written.get_or_init(write);
            b.iter(|| {
                let file = SafetensorsFile::open(&path).expect("the file");
                black_box(load_into(config.init(&device).expect("a U-Net"), &file, &options).expect("the weights"))
            });
        });
    }
    group.finish();
}

/// Generates 64x64 images in 20 steps with guidance: plain, and with FABRIC and equal numbers of liked and disliked
/// images.
fn world(c: &mut Criterion) {
    let device = fabric::default_device().expect("a device");
    let pipeline = Pipeline::demo(&device).expect("the model that ships");
    let mut settings = Settings { guidance_scale: 3.0, ..Settings::default() };
    // FABRIC is active in all steps.
    settings.fabric.end = 1.0;
    let request = |references: u8| {
        let image = |value: u8| Image::from_rgb(64, 64, vec![value; 64 * 64 * 3]).expect("an image");
        let mut request = Request::new("a small red star on blue").with_seeds([0]).with_settings(settings.clone());
        for number in 0..references {
            request = request.with_liked(image(number)).with_disliked(image(255 - number));
        }
        request
    };
    let mut group = c.benchmark_group("world_20_steps");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    let generate = |request: &Request| pipeline.generate(request).expect("an image");
    group.bench_function("plain", |b| b.iter(|| black_box(generate(&request(0)))));
    for count in [1, 2, 4, 8] {
        for (name, pass) in [
            ("interleaved", ReferencePass::Interleaved),
            ("two_passes", ReferencePass::TwoPasses { chunk: 4 }),
            ("cached", ReferencePass::Cached { chunk: 4, budget: 1 << 30, half: false }),
        ] {
            let mut request = request(count);
            request.settings.fabric.execution.pass = pass;
            // This run fills the caches of encoded references and recorded keys and values.
            generate(&request);
            group.bench_function(format!("{name}_{count}_and_{count}"), |b| b.iter(|| black_box(generate(&request))));
        }
    }
    group.finish();
}

/// Generates the second round of a session, four images in 20 steps with guidance: without votes, and after two votes on
/// images of the first round, plain or with a reason each.
fn world_round(c: &mut Criterion) {
    const IMAGES: usize = 4;
    let device = fabric::default_device().expect("a device");
    let model = demo_folder().expect("the model that ships");
    let encoder = ClipVision::open(model.join("image_encoder"), &device).expect("its image encoder");
    let adapter = IpAdapter::open(model.join("ip_adapter/instruct.safetensors"), &device).expect("its adapter");
    let pipeline = Pipeline::demo(&device).expect("the model").with_adapter(adapter.with_encoder(encoder));
    let mut session = FeedbackSession::new("a star").with_seed(0);
    let first = session.generate(&pipeline, IMAGES).expect("the first round");
    let mut group = c.benchmark_group("world_round_of_4");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    let plain = [Vote::LIKE, Vote::DISLIKE];
    let reasoned = [Vote::LIKE.because(Aspect::Colour), Vote::DISLIKE.because("the size")];
    let liked = [Vote::LIKE.because(Aspect::Colour), Vote::LIKE.because("the size")];
    let cases: [(&str, &[Vote]); 4] =
        [("plain", &[]), ("two_plain_votes", &plain), ("two_reasons", &reasoned), ("two_likes_with_reasons", &liked)];
    for (name, votes) in cases {
        let mut session = session.clone();
        for (image, vote) in first.images.iter().zip(votes) {
            session.vote(image, vote.clone()).expect("a vote");
        }
        let request = session.next_request(&pipeline, IMAGES).expect("a request");
        // This run fills the caches, which later rounds of a session find filled.
        pipeline.generate(&request).expect("a round");
        group.bench_function(name, |b| b.iter(|| black_box(pipeline.generate(&request).expect("a round"))));
    }
    group.finish();
}

criterion_group!(benches, text, world, world_round, load);
criterion_main!(benches);
