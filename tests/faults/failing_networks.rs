//! Networks that fail as on a device without memory, at each of their calls in a run.

use fabric::core::Error;

use crate::images::{assert_same, image, request};
use crate::models::{Failure, Stage, adapter, faulty, pipeline, vision};

/// The stages with what their failure is called.
const STAGES: [(Stage, &str); 6] = [
    (Stage::Text, "encoding the prompts"),
    (Stage::ImagePrompt, "the conditioning"),
    (Stage::Encoding, "encoding the init image and the references"),
    (Stage::Recording, "evaluating the U-Net"),
    (Stage::Evaluation, "evaluating the U-Net"),
    (Stage::Decoding, "decoding image"),
];

#[test]
fn a_network_that_fails_at_any_call_leaves_the_pipeline_usable_and_the_next_image_is_the_same() {
    let (faulty, faulty_adapter, fault) = faulty();
    let ask = request().with_init_image(image(4), 1.0);
    let expected = pipeline().generate(&ask.clone().with(adapter(vision()).prompt(image(3)))).expect("images");
    let mut counts = Vec::new();
    // A new image each time: its features are kept for as long as the adapter lives, also by runs that fail later.
    let mut new_images = 100..;
    for (stage, said) in STAGES {
        let mut calls = 0;
        loop {
            faulty.clear_caches();
            let prompt = faulty_adapter.prompt(image(new_images.next().expect("a number")));
            fault.set(stage, calls, Failure::Panic);
            let got = faulty.generate(&ask.clone().with(prompt));
            if fault.is_waiting() {
                // The run has no such call.
                assert!(got.is_ok(), "{stage:?}: {:?}", got.err());
                break;
            }
            let error = got.expect_err("a failure");
            let message = error.to_string();
            assert!(message.contains(said) && message.contains("out of memory"), "{stage:?}: {message}");
            match stage {
                Stage::ImagePrompt => assert!(matches!(error, Error::Conditioning { .. }), "{error:?}"),
                _ => assert!(matches!(error, Error::Backend { .. }), "{error:?}"),
            }
            assert_eq!(faulty.cache_stats().bytes, 0, "{stage:?} {calls}: nothing is kept of a run that failed");
            let again = faulty.generate(&ask.clone().with(faulty_adapter.prompt(image(3)))).expect("images");
            assert_same(&again, &expected, &format!("{stage:?}, call {calls}"));
            calls += 1;
        }
        fault.set(Stage::Text, usize::MAX, Failure::Panic);
        counts.push((stage, calls));
    }
    // Two batches with two steps each. The first batch encodes and records the two references, the second finds them.
    let expected = [
        (Stage::Text, 2),
        (Stage::ImagePrompt, 1),
        (Stage::Encoding, 4),
        (Stage::Recording, 4),
        (Stage::Evaluation, 4),
        (Stage::Decoding, 2),
    ];
    assert_eq!(counts, expected);
}
