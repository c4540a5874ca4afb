//! Determinism in named tiers, on the tiny networks of `tests/golden/models`; `docs/reliability.md` explains them.
//!
//! - exact: the same program on a CPU makes the same bits, whatever the number of its threads and in any process.
//! - close: other batch sizes and other backends differ by rounding.

#[path = "common/mod.rs"]
#[allow(dead_code, reason = "another of its comparisons is enough here")]
mod common;

use std::path::Path;
use std::process::Command;

use burn::tensor::Device;
use common::{distance, on_cpu};
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{Generation, Pipeline, Request, Settings};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelOptions, load_model};
use sha2::{Digest, Sha256};

/// Largest difference between batch sizes, relative to the largest latent: other orders of summation differ by 1e-6 in
/// one evaluation, and guidance increases that about tenfold.
const BATCHES: f32 = 1e-4;

fn pipeline(device: &Device) -> Pipeline {
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    load_model(folder, device, &options).expect("a pipeline").0
}

fn own_pipeline() -> Pipeline {
    pipeline(&fabric::default_device().expect("a device"))
}

fn image(red: u8) -> Image {
    let rgb = (0..64 * 64 * 3).map(|at| (at * 5 % 251) as u8 ^ red).collect();
    Image::from_rgb(64, 64, rgb).expect("an image")
}

/// A request with references, guidance and noise in every step.
fn request(pass: ReferencePass) -> Request {
    let fabric = FabricSettings { start: 0.0, end: 1.0, ..FabricSettings::default() }.with_pass(pass);
    let settings = Settings {
        width: Some(64),
        height: Some(72),
        steps: 3,
        guidance_scale: 5.0,
        sampler: Some("euler_a".parse().expect("a sampler")),
        fabric,
        ..Settings::default()
    };
    let request = Request::new("a photo of a cat").with_negative_prompt("blurry").with_seeds([1, 2, 3]);
    request.with_settings(settings).with_liked(image(1)).with_disliked(image(90))
}

fn passes() -> [ReferencePass; 3] {
    let cached = ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: false };
    [ReferencePass::Interleaved, ReferencePass::TwoPasses { chunk: 2 }, cached]
}

fn latents(made: &Generation) -> Vec<f32> {
    made.latents.clone().into_data().convert::<f32>().try_to_vec().expect("f32 data")
}

/// The digest of the latents and images of each pass.
fn digests() -> String {
    let pipeline = own_pipeline();
    let mut digest = Sha256::new();
    for pass in passes() {
        let made = pipeline.generate(&request(pass)).expect("images");
        latents(&made).iter().for_each(|value| digest.update(value.to_le_bytes()));
        made.images.iter().for_each(|image| digest.update(image.rgb()));
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn exact_runs_of_one_process_have_the_same_bits() {
    if on_cpu() {
        let first = digests();
        (0..3).for_each(|run| assert_eq!(digests(), first, "run {run}"));
    }
}

#[test]
fn exact_any_number_of_threads_has_the_same_bits() {
    if !on_cpu() {
        return;
    }
    let of_one = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(digests)
    };
    let first = of_one(1);
    for threads in [2, 3, 5, 8] {
        assert_eq!(of_one(threads), first, "{threads} threads");
    }
}

/// Prints a line for the process that waits for it.
#[allow(clippy::print_stdout, reason = "the output is how the two processes talk")]
fn say(line: &str) {
    println!("{line}");
}

#[test]
fn exact_any_process_has_the_same_bits() {
    const CHILD: &str = "FABRIC_DETERMINISM_CHILD";
    if !on_cpu() {
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        return say(&format!("digest {}", digests()));
    }
    let expected = format!("digest {}", digests());
    for threads in ["1", "2", "7"] {
        let output = Command::new(std::env::current_exe().expect("the path of this program"))
            .args(["exact_any_process_has_the_same_bits", "--exact", "--nocapture"])
            .envs([(CHILD, "1"), ("RAYON_NUM_THREADS", threads)])
            .output()
            .expect("a process");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(said.contains(&expected), "{threads} threads: expected {expected}, got {said}");
    }
}

#[test]
fn close_any_batch_size_differs_by_rounding() {
    let pipeline = own_pipeline();
    for pass in passes() {
        let mut request = request(pass);
        let whole = pipeline.generate(&request).expect("images");
        let expected = latents(&whole);
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for batch in [1, 2] {
            request.settings.batch = Some(batch);
            let made = pipeline.generate(&request).expect("images");
            let apart = distance(&latents(&made), &expected) / largest;
            assert!(apart <= BATCHES, "{pass:?}, batch {batch}: {apart:.1e}");
            let bytes = made.images.iter().zip(&whole.images).flat_map(|(a, b)| a.rgb().iter().zip(b.rgb()));
            let most = bytes.map(|(a, b)| a.abs_diff(*b)).max().expect("pixels");
            assert!(most <= 1, "{pass:?}, batch {batch}: bytes differ by {most}");
        }
    }
}

/// The two CPU backends share no kernels.
#[cfg(all(feature = "flex", feature = "ndarray"))]
#[test]
fn close_another_backend_differs_by_rounding() {
    use fabric::backends::{DeviceKind, device};

    let [flex, ndarray] =
        [DeviceKind::Flex, DeviceKind::NdArray].map(|kind| pipeline(&device(kind).expect("a device")));
    for pass in passes() {
        let expected = latents(&flex.generate(&request(pass)).expect("images"));
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let apart = distance(&latents(&ndarray.generate(&request(pass)).expect("images")), &expected) / largest;
        assert!(apart > 0.0 && apart <= BATCHES, "{pass:?}: {apart:.1e}");
    }
}
