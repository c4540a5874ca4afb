//! Search for settings with a pipeline: images of candidates, resuming, and initial noise between seeds.

mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use common::{assert_again, distance};
use fabric::core::Error;
use fabric::core::image::Image;
use fabric::core::noise::NoiseMixture;
use fabric::core::pipeline::{
    CandidateSeeds, Generation, Pipeline, Request, SearchedSettings, Settings, SettingsSearch, StepEvent,
};
use fabric::core::schedule::SamplerKind;
use fabric::core::search::Dimension;
use fabric::core::session::{BestAndWorst, Round};
use fabric::models::tokenizer::ClipTokenizer;
use fabric::models::{ModelOptions, load_model};

fn pipeline() -> &'static Pipeline {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        let options = ModelOptions { tokenizer: Some(ClipTokenizer::openai()), ..ModelOptions::default() };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
        load_model(folder, &device, &options).expect("a pipeline").0
    })
}

/// Request for small images with a sampler that draws no noise of its own.
fn base() -> Request {
    let settings = Settings {
        width: Some(32),
        height: Some(32),
        steps: 3,
        sampler: Some(SamplerKind::Ddim),
        ..Settings::default()
    };
    let liked = Image::filled(32, 32, [200, 30, 60]).expect("an image");
    Request::new("a photo of a cat").with_seeds([3, 4]).with_settings(settings).with_liked(liked)
}

fn search() -> SettingsSearch {
    let searched = SearchedSettings::new([
        Dimension::linear("fabric.max_weight", 0.0, 1.0),
        Dimension::logarithmic("guidance_scale", 1.5, 12.0),
    ]);
    SettingsSearch::new(&base(), searched.with_noise_of([7, 8]), 1).expect("a search")
}

/// Mean of all bytes of an image.
fn brightness(image: &Image) -> f64 {
    image.rgb().iter().map(|byte| f64::from(*byte)).sum::<f64>() / image.rgb().len() as f64
}

fn make(request: &Request) -> Generation {
    pipeline().generate(request).expect("a generation")
}

fn latents(made: &Generation) -> Vec<f32> {
    made.latents.clone().into_data().convert::<f32>().try_to_vec().expect("f32 data")
}

/// Asserts that latents are equal but for the summation order of another batch size.
#[track_caller]
fn assert_same(got: &[f32], expected: &[f32]) {
    let scale = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    let error = distance(got, expected) / scale;
    assert!(error < 2e-5, "differ by {error:.1e}");
}

#[test]
fn each_image_of_a_round_is_that_of_its_own_request() {
    let mut search = search();
    search.propose(3).expect("candidates");
    let round = search.generate(pipeline(), &base()).expect("a round");
    assert_eq!(round.len(), 3);
    assert_eq!(round.seeds, [3; 3]);
    assert_eq!(round.settings.as_array().map(Vec::len), Some(3));
    assert_eq!(round.report.as_array().map(Vec::len), Some(3));
    for (request, image) in search.requests(&base()).expect("requests").iter().zip(&round.images) {
        assert_eq!(&make(request).images[0], image);
    }
    assert_ne!(round.images[0], round.images[1], "equal images would prove nothing");
    assert_ne!(round.images[1], round.images[2], "equal images would prove nothing");
    let search = search.with_seeds(CandidateSeeds::OnePerCandidate);
    let message = search.generate(pipeline(), &base()).expect_err("too few seeds").to_string();
    assert!(message.starts_with("seeds: expected at least 3, one per candidate, got 2"), "{message}");
}

#[test]
fn a_search_that_was_read_back_makes_the_same_images() {
    let read_back = |search: &SettingsSearch| -> SettingsSearch {
        serde_json::from_str(&serde_json::to_string(search).expect("JSON")).expect("a search")
    };
    let mut scored = search();
    let mut judged = search();
    for _ in 0..3 {
        for (search, is_scored) in [(&mut scored, true), (&mut judged, false)] {
            search.propose(2).expect("candidates");
            let mut resumed = read_back(search);
            let round = search.generate(pipeline(), &base()).expect("a round");
            assert_eq!(resumed.generate(pipeline(), &base()).expect("a round").images, round.images);
            for one in [search, &mut resumed] {
                if is_scored {
                    let scores: Vec<(usize, f64)> = round.images.iter().map(brightness).enumerate().collect();
                    one.record_scores(&scores).expect("scores");
                } else {
                    let mut source = BestAndWorst::new(|_: &Round, image: &Image| Ok(brightness(image)));
                    one.judge_with(&round, &mut source).expect("votes");
                }
            }
        }
        assert_eq!(read_back(&scored), scored);
    }
    for search in [scored, judged] {
        let best = search.best().expect("a best candidate").request(&base()).expect("a request");
        assert_eq!(make(&best).images.len(), 2);
    }
}

#[test]
fn a_cancelled_round_returns_the_images_that_were_finished() {
    let mut search = search();
    search.propose(3).expect("candidates");
    let mut left = 4;
    // The second evaluation of the second candidate cancels.
    let mut watch = |_: &StepEvent<'_>| {
        left -= 1;
        if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let Err(Error::Cancelled { finished, .. }) = search.generate_observed(pipeline(), &base(), &mut watch) else {
        panic!("expected a cancelled round");
    };
    assert_eq!(finished.iter().map(|(_, seed)| *seed).collect::<Vec<_>>(), [3]);
    assert_eq!(search.generate(pipeline(), &base()).expect("a round").images[0], finished[0].0);
}

#[test]
fn an_image_starts_from_the_noise_that_it_is_given() {
    let of = |seed: u64, noise: Option<NoiseMixture>| {
        let request = base().with_seeds([seed]).with_initial_noise(noise);
        [latents(&make(&request)), latents(&make(&request.with_init_image(base().feedback[0].image.clone(), 0.9)))]
    };
    let [own, _] = of(9, None);
    let [given, _] = of(3, Some(NoiseMixture::of_seed(9)));
    assert_again(&given, &own, "latents");
    let between = NoiseMixture::at_angles(&[3, 9], &[45.0]).expect("a mixture");
    for seed in [3, 9] {
        let [own, own_from_image] = of(seed, None);
        let [mixed, mixed_from_image] = of(seed, Some(between.clone()));
        assert!(distance(&mixed, &own) > 1e-3, "seed {seed}");
        assert!(distance(&mixed_from_image, &own_from_image) > 1e-3, "seed {seed}, from an image");
    }
}

#[test]
fn an_image_with_a_mixture_is_the_same_alone_and_in_any_batch() {
    let mixture = |angle: f64| NoiseMixture::at_angles(&[1, 2], &[angle]).expect("a mixture");
    let mixtures = [10.0, 45.0, 80.0].map(mixture);
    let mut request = base().with_seeds([5, 6, 7]).with_initial_noise(mixtures.clone());
    let together = latents(&make(&request));
    request.settings.batch = Some(2);
    assert_same(&latents(&make(&request)), &together);
    let alone = request.with_seeds([6]).with_initial_noise([mixtures[1].clone()]);
    let row = together.len() / 3;
    assert_same(&latents(&make(&alone)), &together[row..2 * row]);
    let message = pipeline().generate(&alone.with_seeds([6, 7])).expect_err("a mixture is missing").to_string();
    assert!(message.starts_with("initial_noise: expected 2, one per seed, or none, got 1"), "{message}");
}
