//! Images and requests of the drills, and the comparison of what they make.

use burn::tensor::Tensor;
use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::image::Image;
use fabric::core::pipeline::{Generation, Request, Settings};

use crate::common::{assert_again, on_cpu};

/// References recorded one by one, so that their batches do not depend on what the cache has.
pub(crate) const CACHED: ReferencePass = ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: false };

/// Smooth image that differs for each seed.
pub(crate) fn image(seed: usize) -> Image {
    let wave = |x: usize, y: usize, c: usize| {
        let phase = (seed * 37 + c * 11) as f64;
        ((x as f64 * 0.09 + phase).sin() * (y as f64 * 0.07 + phase * 0.3).cos() * 127.0 + 128.0) as u8
    };
    let pixels = (0..64 * 64 * 3).map(|at| wave(at / 3 % 64, at / 3 / 64, at % 3)).collect();
    Image::from_rgb(64, 64, pixels).expect("an image")
}

/// FABRIC settings with a nonzero weight in every step and cached references.
pub(crate) fn fabric() -> FabricSettings {
    FabricSettings { start: 0.0, end: 1.0, max_weight: 0.7, ..FabricSettings::default() }.with_pass(CACHED)
}

/// A request for two images in two batches, with a liked and a disliked reference.
pub(crate) fn request() -> Request {
    let settings = Settings {
        width: Some(64),
        height: Some(64),
        steps: 2,
        guidance_scale: 5.0,
        batch: Some(1),
        fabric: fabric(),
        ..Settings::default()
    };
    let request = Request::new("a photo of a cat").with_negative_prompt("blurry").with_seeds([1, 2]);
    request.with_settings(settings).with_liked(image(1)).with_disliked(image(2))
}

pub(crate) fn values(x: &Tensor<4>) -> Vec<f32> {
    x.clone().into_data().convert::<f32>().try_to_vec().expect("f32 data")
}

/// Asserts that two runs made the same, bit by bit on a CPU.
#[track_caller]
pub(crate) fn assert_same(got: &Generation, expected: &Generation, what: &str) {
    assert_eq!(got.seeds, expected.seeds, "{what}");
    assert_again(&values(&got.latents), &values(&expected.latents), what);
    assert!(!on_cpu() || got.images == expected.images, "{what}: images differ");
}
