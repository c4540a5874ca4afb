//! A run before the first one leaves no trace.

use std::path::Path;

use fabric::core::fabric::{FabricSettings, ReferencePass};
use fabric::core::picture::Picture;
use fabric::core::pipeline::{Pipeline, Request, Settings};
use fabric::default_device;
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelOptions, load_model};

fn load() -> Pipeline {
    let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    load_model(folder, &default_device().expect("a device"), &options).expect("a model").0
}

#[test]
fn warming_up_leaves_no_trace() {
    let pass = ReferencePass::Cached { chunk: 1, budget: 1 << 30, half: false };
    let fabric = FabricSettings { pass, start: 0.5, ..FabricSettings::default() };
    let settings = Settings { width: Some(64), height: Some(64), steps: 4, fabric, ..Settings::default() };
    let liked = Picture::filled(64, 64, [200, 30, 60]).expect("a picture");
    let mut request = Request::new("a cat").with_seeds([3]).with_settings(settings).with_liked(liked);
    let warm = load();
    assert!(!warm.warm_up(&request).expect("a warm-up").is_zero());
    let kept = warm.cache_stats();
    assert_eq!((kept.bytes, kept.misses), (0, 0));
    let [found, wanted] = [warm, load()].map(|pipeline| pipeline.generate(&request).expect("pictures"));
    assert_eq!(found.report.calls, wanted.report.calls);
    assert_eq!(found.pictures, wanted.pictures);
    // A request that no run can carry out warms nothing up.
    request.settings.width = Some(63);
    assert!(load().warm_up(&request).is_err());
}
