//! NaN from each network of a run: the error names the network, and nothing of it stays in a cache.

use std::ops::ControlFlow;
use std::sync::Arc;

use fabric::core::Error;
use fabric::core::image::ImageError;
use fabric::core::pipeline::StepEvent;

use crate::images::{assert_same, image, request};
use crate::models::{Failure, Fault, FaultyUNet, FaultyVae, Stage, adapter, faulty, pipeline, vision, with_networks};

#[test]
fn values_that_are_not_finite_are_an_error_that_names_the_network_and_leave_nothing_behind() {
    let ask = request().with_init_image(image(4), 1.0);
    let expected = pipeline().generate(&ask.clone().with(adapter(vision()).prompt(image(3)))).expect("images");
    let prediction = |evaluation: usize| format!("prediction of the U-Net at evaluation {evaluation} of 2: expected");
    let cases = [
        (Stage::Text, 0, "embedding of the text encoder: expected".to_owned()),
        (Stage::ImagePrompt, 0, "features of the image encoder: expected".to_owned()),
        (Stage::Encoding, 0, "latents of the init image, by the VAE: expected".to_owned()),
        (Stage::Encoding, 1, "latents of the reference images, by the VAE: expected".to_owned()),
        // Recorded keys and values are seen in the prediction that they enter.
        (Stage::Recording, 0, prediction(1)),
        (Stage::Recording, 3, prediction(2)),
        (Stage::Evaluation, 0, prediction(1)),
        (Stage::Evaluation, 1, prediction(2)),
        (Stage::Evaluation, 2, prediction(1)),
    ];
    for (stage, call, said) in cases {
        // New caches, also of the image encoder.
        let (faulty, faulty_adapter, fault) = faulty();
        let what = format!("{stage:?}, call {call}");
        fault.set(stage, call, Failure::NotFinite);
        let prompt = faulty_adapter.prompt(image(3));
        let error = faulty.generate(&ask.clone().with(prompt.clone())).expect_err("no finite image");
        assert!(matches!(error, Error::NotFinite { .. }), "{what}: {error:?}");
        assert!(error.to_string().starts_with(&said), "{what}: {error}");
        assert!(!fault.is_waiting(), "{what}");
        let again = faulty.generate(&ask.clone().with(prompt)).expect("images");
        assert_same(&again, &expected, &what);
    }
}

#[test]
fn a_decoder_that_is_not_finite_is_named_with_the_image_and_makes_no_black_one() {
    let (faulty, _, fault) = faulty();
    let expected = pipeline().generate(&request()).expect("images");
    for index in [0, 1] {
        fault.set(Stage::Decoding, index, Failure::NotFinite);
        let error = faulty.generate(&request()).expect_err("no finite image");
        let total = 64 * 64 * 3;
        let Error::Image(ImageError::NotFinite { index: at, got, total: of }) = error else { panic!("{error:?}") };
        assert_eq!((at, got, of), (index, total, total));
        assert_same(&faulty.generate(&request()).expect("images"), &expected, "the next image");
    }
}

#[test]
fn a_preview_that_is_not_finite_names_its_image() {
    let (faulty, _, fault) = faulty();
    // Two steps of each batch have a preview, and its images are decoded after them.
    for (batch, call, index) in [(2, 0, 0), (2, 1, 1), (1, 1, 0), (1, 3, 1)] {
        fault.set(Stage::Decoding, call, Failure::NotFinite);
        let mut request = request();
        request.settings.batch = Some(batch);
        let mut errors = Vec::new();
        let mut preview = |event: &StepEvent<'_>| {
            errors.extend(event.preview().err());
            ControlFlow::Continue(())
        };
        faulty.generate_observed(&request, &mut preview).expect("images");
        let [Error::Image(ImageError::NotFinite { index: at, .. })] = &errors[..] else { panic!("{errors:?}") };
        assert_eq!(*at, index, "call {call} in batches of {batch}");
    }
}

#[test]
fn a_decoder_that_overflows_in_half_precision_decodes_again_in_f32() {
    let fault = Fault::default();
    let vae = FaultyVae { fault: fault.clone(), half: true };
    let half = with_networks(Arc::new(FaultyUNet(fault.clone())), Arc::new(vae));
    let expected = pipeline().generate(&request()).expect("images");
    fault.set(Stage::Decoding, 1, Failure::NotFinite);
    let made = half.generate(&request()).expect("images");
    assert_same(&made, &expected, "decoded again");
    let notes: Vec<&String> = made.report.notes.iter().filter(|note| note.contains("f32")).collect();
    assert_eq!(notes, ["image 1: the VAE overflowed in half precision and decoded it in f32"]);
    // Latents that are not finite are no fault of the decoder.
    fault.set(Stage::Evaluation, 1, Failure::NotFinite);
    let error = half.generate(&request()).expect_err("no finite image");
    assert!(error.to_string().starts_with("prediction of the U-Net at evaluation 2 of 2"), "{error}");
    assert!(half.generate(&request()).expect("images").report.notes.iter().all(|note| !note.contains("f32")));
}
