//! Laws of liked and disliked images that act on some images of a request.

use fabric::core::fabric::LikedPerImage;
use fabric::core::pipeline::{FeedbackImage, ReferenceAttention};

use super::*;

/// Returns a request for these seeds, made `batch` at a time, with liked images 1 and 2 and disliked image 3 for these
/// images; `None` stands for all.
fn judged(fabric: FabricSettings, seeds: &[u64], batch: Option<usize>, images: [Option<&[usize]>; 3]) -> Request {
    let mut request = request(fabric).with_seeds(seeds.iter().copied());
    request.settings.batch = batch;
    for ((seed, strength), images) in [(1, 1.0), (2, 0.6), (3, -1.0)].into_iter().zip(images) {
        let feedback = FeedbackImage::new(image(seed, 64), strength);
        request.feedback.push(match images {
            Some(images) => feedback.only_for(images.iter().copied()),
            None => feedback,
        });
    }
    request
}

/// Returns a request for one seed with those of the three judged images that act on it.
fn alone(fabric: FabricSettings, seed: u64, acting: [bool; 3]) -> Generation {
    let mut request = judged(fabric, &[seed], None, [None; 3]);
    let mut acting = acting.into_iter();
    request.feedback.retain(|_| acting.next().expect("three"));
    make(&request)
}

/// Checks that an image of a run is the one of another run with one image.
#[track_caller]
fn assert_image(run: &Generation, index: usize, one: &Generation) {
    let mut run = run.clone();
    run.latents = run.latents.slice_dim(0, index..index + 1);
    assert_same(&run, one);
}

#[test]
fn each_image_is_as_alone_with_the_references_that_act_on_it() {
    let seeds = [4, 5, 6];
    // The first one acts on images that are not neighbours, the third on all.
    let images: [Option<&[usize]>; 3] = [Some(&[0, 2]), Some(&[1, 2]), None];
    let acting = [[true, false, true], [false, true, true], [true, true, true]];
    for normalise in [false, true] {
        let fabric = FabricSettings { normalise, ..everywhere() };
        let expected: Vec<Generation> =
            seeds.iter().zip(acting).map(|(&seed, acting)| alone(fabric.clone(), seed, acting)).collect();
        assert_differ(&expected[2], &alone(fabric.clone(), seeds[2], acting[0]));
        let cached = ReferencePass::Cached { chunk: 2, budget: 1 << 30, half: false };
        for pass in [ReferencePass::Interleaved, ReferencePass::TwoPasses { chunk: 1 }, cached] {
            for batch in [None, Some(1), Some(2)] {
                let made = make(&judged(fabric.clone().with_pass(pass), &seeds, batch, images));
                assert_eq!(made.report.references, [2, 1]);
                for (index, expected) in expected.iter().enumerate() {
                    assert_image(&made, index, expected);
                }
            }
        }
    }
}

#[test]
fn references_for_all_images_named_one_by_one_are_references_for_all() {
    let every: Option<&[usize]> = Some(&[0, 1]);
    let [named, all] = [[every; 3], [None; 3]].map(|images| make(&judged(everywhere(), &[4, 5], None, images)));
    assert_again(&values(&named.latents), &values(&all.latents), "latents");
}

#[test]
fn attention_is_measured_where_a_reference_acts() {
    let mut request = judged(everywhere(), &[4, 5], None, [Some(&[1]), None, None]);
    request.settings.measure_attention = true;
    let attention = make(&request).report.attention;
    let has_any =
        |reference: usize, image: usize| attention[reference].maps[image].iter().flatten().any(|share| *share > 0.0);
    assert!(!has_any(0, 0) && has_any(0, 1) && has_any(1, 0) && has_any(1, 1));
    // In batches of one, the first of which has no attention to the first reference.
    request.settings.batch = Some(1);
    let apart = make(&request).report.attention;
    for (apart, together) in apart.iter().zip(&attention) {
        assert!((apart.mean - together.mean).abs() < 1e-6, "{} and {}", apart.mean, together.mean);
        assert_eq!(apart.layers.len(), together.layers.len());
        let shares =
            |one: &ReferenceAttention| one.layers.iter().flat_map(|one| one.shares.clone()).collect::<Vec<_>>();
        assert!(shares(apart).iter().zip(shares(together)).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn liked_images_are_distributed_over_the_images_of_a_request() {
    let distributed = |most| FabricSettings { liked_per_image: Some(LikedPerImage::new(most)), ..everywhere() };
    // The first image gets the newest, the second the older one, and the third begins again.
    let made = make(&judged(distributed(1), &[4, 5, 6], None, [None; 3]));
    for (index, acting) in [[false, true, true], [true, false, true], [false, true, true]].into_iter().enumerate() {
        assert_image(&made, index, &alone(everywhere(), [4, 5, 6][index], acting));
    }
    // As many as there are is all of them, and what one image does not use is left out.
    let all = make(&judged(everywhere(), &[4, 5], None, [None; 3]));
    let both = make(&judged(distributed(2), &[4, 5], None, [None; 3]));
    assert_again(&values(&both.latents), &values(&all.latents), "latents");
    let one = make(&judged(distributed(1), &[4], None, [None; 3]));
    assert_eq!((one.report.references, one.report.references_left_out), ([1, 1], 1));
    // Those that are meant for some images stay where they are.
    let meant = make(&judged(distributed(1), &[4, 5], None, [Some(&[0]), None, None]));
    assert_image(&meant, 0, &alone(everywhere(), 4, [true, true, true]));
    assert_image(&meant, 1, &alone(everywhere(), 5, [false, true, true]));
}

#[test]
fn an_image_is_the_same_in_a_request_for_it_alone() {
    let distributed = FabricSettings { liked_per_image: Some(LikedPerImage::new(1)), ..everywhere() };
    for (fabric, images) in [
        (distributed.clone(), [None; 3]),
        (distributed, [Some(&[1, 2][..]), None, None]),
        (everywhere(), [Some(&[0, 2][..]), Some(&[1][..]), Some(&[0][..])]),
    ] {
        let request = judged(fabric, &[4, 5, 6], None, images);
        let made = make(&request);
        for index in 0..3 {
            assert_image(&made, index, &make(&request.alone(index)));
        }
    }
}
