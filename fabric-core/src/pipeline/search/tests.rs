//! Tests of searches for settings, without networks.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::*;
use crate::ImageCondition;
use crate::fabric::FabricSettings;
use crate::guidance::Apg;
use crate::image::Image;
use crate::noise::NoiseMixture;
use crate::pipeline::{Cads, Conditioning, PreparedConditioning, Report, RunContext, Settings};
use crate::search::Dimension;
use crate::session::{FeedbackSource, Round, Vote};

/// Optimum of [`value`], in coordinates from 0 to 1.
const OPTIMUM: [f64; 3] = [0.3, 0.7, 0.55];
const SEEDS: u64 = 20;

fn image() -> Image {
    Image::filled(8, 8, [200, 0, 0]).unwrap()
}

fn base() -> Request {
    let fabric = FabricSettings { start: 0.0, end: 0.8, ..FabricSettings::default() };
    let settings = Settings { fabric, apg: Some(Apg::default()), ..Settings::default() };
    let request = Request::new("a star").with_seeds([5, 6]).with_settings(settings).with_liked(image());
    request.with_image_condition(ImageCondition::new(image()))
}

fn searched() -> SearchedSettings {
    SearchedSettings::new([
        Dimension::linear("apg.momentum", -1.0, 1.0),
        Dimension::logarithmic("guidance_scale", 1.0, 20.0),
        Dimension::linear("fabric.end", 0.0, 1.0),
    ])
}

fn search(seed: u64) -> SettingsSearch {
    SettingsSearch::new(&base(), searched(), seed).unwrap()
}

fn coordinates(settings: &Settings) -> [f64; 3] {
    let momentum = settings.apg.unwrap().momentum;
    [(momentum + 1.0) / 2.0, settings.guidance_scale.ln() / 20.0_f64.ln(), settings.fabric.end]
}

/// A smooth function with one maximum, the same as in the tests of [`crate::search`].
fn value_at(coordinates: [f64; 3]) -> f64 {
    let squares = coordinates.iter().zip(OPTIMUM).map(|(at, optimum)| (at - optimum).powi(2));
    (-1.5 * squares.zip([2.0, 4.0, 3.0]).map(|(square, slope)| slope * square).sum::<f64>()).exp()
}

fn distance(coordinates: [f64; 3]) -> f64 {
    coordinates.iter().zip(OPTIMUM).map(|(at, optimum)| (at - optimum).powi(2)).sum::<f64>().sqrt()
}

/// Proposes four candidates and records a score of each.
fn scored_round(search: &mut SettingsSearch) {
    search.propose(4).unwrap();
    let requests = search.requests(&base()).unwrap();
    let scores = requests.iter().map(|request| value_at(coordinates(&request.settings)));
    search.record_scores(&scores.enumerate().collect::<Vec<_>>()).unwrap();
}

/// Likes the best image of a round and dislikes the worst one, by the settings that they were made with.
struct Person;

impl FeedbackSource for Person {
    fn judge(&mut self, round: &Round) -> Result<Vec<(usize, Vote)>, Error> {
        let settings: Vec<Settings> = serde_json::from_value(round.settings.clone()).unwrap();
        let values: Vec<f64> = settings.iter().map(|settings| value_at(coordinates(settings))).collect();
        let mut ranked: Vec<usize> = (0..values.len()).collect();
        ranked.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        Ok(vec![(ranked[0], Vote::LIKE), (ranked[ranked.len() - 1], Vote::DISLIKE)])
    }
}

/// Returns the current round as if a pipeline had made its images.
fn round_without_pipeline(search: &SettingsSearch) -> Round {
    let requests = search.requests(&base()).unwrap();
    let made = requests.iter().map(|request| (image(), request.seeds[0])).collect();
    search.round(&base(), &requests, made, &vec![Report::default(); requests.len()])
}

/// Proposes four candidates and lets a [`Person`] vote on them.
fn voted_round(search: &mut SettingsSearch) {
    search.propose(4).unwrap();
    search.judge_with(&round_without_pipeline(search), &mut Person).unwrap();
}

/// Mean distance to the optimum of the best candidate of searches with different seeds.
fn mean_distance(rounds: usize, round: fn(&mut SettingsSearch)) -> f64 {
    let found = (0..SEEDS).map(|seed| {
        let mut search = search(seed);
        for _ in 0..rounds {
            round(&mut search);
        }
        distance(coordinates(&search.best().unwrap().request(&base()).unwrap().settings))
    });
    found.sum::<f64>() / SEEDS as f64
}

/// Mean distance to the optimum of the best of so many random points.
fn random_distance(count: usize) -> f64 {
    let found = (0..SEEDS).map(|seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut unit = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let points = (0..count).map(|_| [unit(), unit(), unit()]);
        distance(points.max_by(|a, b| value_at(*a).total_cmp(&value_at(*b))).unwrap())
    });
    found.sum::<f64>() / SEEDS as f64
}

// The searches of the next two tests are those of the tests of `crate::search`, which reach a mean distance of 0.1
// (from votes with likes alone). The mean of 20 random searches of 32 points is 0.18, with a standard deviation of
// 0.015.

#[test]
fn scores_of_eight_rounds_of_four_find_better_settings_than_random_ones() {
    let (found, random) = (mean_distance(8, scored_round), random_distance(32));
    assert!(found < 0.1 && found < 0.75 * random, "{found}, at random {random}");
}

#[test]
fn votes_of_twelve_rounds_of_four_find_better_settings_than_random_ones() {
    let (found, random) = (mean_distance(12, voted_round), random_distance(48));
    assert!(found < 0.11 && found < 0.85 * random, "{found}, at random {random}");
}

#[test]
fn a_search_resumes_to_the_bit_also_in_the_middle_of_a_round() {
    let read_back = |search: &SettingsSearch| -> SettingsSearch {
        serde_json::from_str(&serde_json::to_string(search).unwrap()).unwrap()
    };
    let scored: fn(&mut SettingsSearch) = |search| {
        let scores = search.requests(&base()).unwrap();
        let scores = scores.iter().map(|request| value_at(coordinates(&request.settings)));
        search.record_scores(&scores.enumerate().collect::<Vec<_>>()).unwrap();
    };
    let voted: fn(&mut SettingsSearch) =
        |search| search.judge_with(&round_without_pipeline(search), &mut Person).unwrap();
    for judge in [scored, voted] {
        let searched = searched().with_noise_of([1, 2, 3]);
        let mut search = SettingsSearch::new(&base(), searched, 5).unwrap();
        for _ in 0..5 {
            let mut resumed = read_back(&search);
            assert_eq!(resumed, search);
            resumed.propose(4).unwrap();
            search.propose(4).unwrap();
            assert_eq!(resumed, search);
            let mut resumed = read_back(&search);
            assert_eq!(resumed.candidates(), search.candidates());
            judge(&mut resumed);
            judge(&mut search);
            assert_eq!(resumed, search);
            assert_eq!(resumed.best(), search.best());
        }
        assert_eq!(search.rounds(), 5);
    }
}

#[test]
fn a_stored_search_is_checked_when_it_is_read() {
    let mut search = search(2);
    scored_round(&mut search);
    search.propose(4).unwrap();
    let good = serde_json::to_value(&search).unwrap();
    let mut bad = vec![good.clone(); 5];
    bad[0]["open"][1]["guidance_scale"] = json!(50.0);
    bad[1]["searched"]["settings"][0]["high"] = json!(0.5);
    bad[2]["searched"]["noise_seeds"] = json!([4, 4]);
    bad[3]["searched"]["settings"][2] = json!({ "name": "noise_angles[0]", "low": 0.0, "high": 1.0 });
    bad[4]["unknown"] = json!(1);
    let pieces = ["value of `guidance_scale`", "search.space", "seed 4 twice", "search.space", "unknown field"];
    for (bad, piece) in bad.into_iter().zip(pieces) {
        let message = serde_json::from_value::<SettingsSearch>(bad).unwrap_err().to_string();
        assert!(message.contains(piece), "{message}, expected {piece}");
    }
    assert_eq!(serde_json::from_value::<SettingsSearch>(good).unwrap(), search);
}

#[test]
fn a_request_differs_from_the_base_by_the_searched_numbers_only() {
    let searched = SearchedSettings::new([
        Dimension::linear("fabric.max_weight", 0.2, 0.4),
        Dimension::linear("image_conditions[0].scale", 0.5, 2.0),
        Dimension::linear("feedback[0].strength", 0.1, 0.9),
        Dimension::linear("guidance_window[1]", 0.5, 0.9),
    ]);
    let base = base();
    let mut search = SettingsSearch::new(&base, searched, 0).unwrap();
    search.propose(3).unwrap();
    let (candidates, requests) = (search.candidates(), search.requests(&base).unwrap());
    assert_eq!((candidates.len(), requests.len()), (3, 3));
    for (candidate, request) in candidates.iter().zip(&requests) {
        let (settings, values) = (&request.settings, &candidate.values);
        assert_eq!(settings.fabric.max_weight, values["fabric.max_weight"]);
        assert!((0.2..=0.4).contains(&settings.fabric.max_weight));
        assert_eq!(request.image_conditions[0].scale, values["image_conditions[0].scale"]);
        assert_eq!(request.feedback[0].strength, values["feedback[0].strength"]);
        assert_eq!(<(f64, f64)>::from(settings.guidance_window), (0.0, values["guidance_window[1]"]));
        let fabric = FabricSettings { max_weight: base.settings.fabric.max_weight, ..settings.fabric.clone() };
        let restored = Settings { fabric, guidance_window: base.settings.guidance_window, ..settings.clone() };
        assert_eq!(restored, base.settings);
        assert_eq!(request.prompt, base.prompt);
        assert_eq!(request.seeds, [5]);
        assert_eq!(request.image_conditions[0].image, base.image_conditions[0].image);
        assert!(request.initial_noise.is_empty());
    }
    assert_ne!(requests[0].settings, requests[1].settings);
}

#[test]
fn candidates_share_a_seed_or_have_one_each() {
    let mixtures = [NoiseMixture::of_seed(8), NoiseMixture::of_seed(9)];
    let base = base().with_initial_noise(mixtures.clone());
    let seeds = |search: &SettingsSearch| -> Vec<(Vec<u64>, Vec<NoiseMixture>)> {
        let requests = search.requests(&base).unwrap();
        requests.into_iter().map(|request| (request.seeds, request.initial_noise)).collect()
    };
    let mut search = search(0);
    search.propose(2).unwrap();
    let [first, second] = [(vec![5_u64], mixtures[..1].to_vec()), (vec![6], mixtures[1..].to_vec())];
    assert_eq!(seeds(&search), [first.clone(), first.clone()]);
    let mut search = search.with_seeds(CandidateSeeds::OnePerCandidate);
    assert_eq!(seeds(&search), [first, second]);
    search.propose(3).unwrap();
    let message = search.requests(&base).unwrap_err().to_string();
    assert!(message.starts_with("seeds: expected at least 3, one per candidate, got 2"), "{message}");
}

#[test]
fn the_initial_noise_is_searched_between_seeds() {
    let searched = SearchedSettings::default().with_noise_of([1, 2, 3, 4]);
    let mut search = SettingsSearch::new(&base(), searched, 0).unwrap();
    search.propose(16).unwrap();
    let requests = search.requests(&base()).unwrap();
    let mut most = [0.0_f64; 4];
    for request in &requests {
        let [noise] = &request.initial_noise[..] else { panic!("{:?}", request.initial_noise) };
        assert_eq!(noise.seeds(), [1, 2, 3, 4]);
        assert!(noise.weights().iter().all(|weight| (0.0..=1.0).contains(weight)), "{noise:?}");
        most.iter_mut().zip(noise.weights()).for_each(|(most, weight)| *most = most.max(*weight));
        assert_eq!(request.seeds, [5]);
        assert_eq!(request.settings, base().settings);
    }
    // The angles of 16 candidates are in all sixteenths of their ranges.
    assert!(most.iter().all(|most| *most > 0.5), "{most:?}");
}

#[test]
fn no_candidate_ends_before_it_starts() {
    let pairs = SearchedSettings::new([
        Dimension::linear("fabric.start", 0.0, 0.9),
        Dimension::linear("fabric.end", 0.2, 0.9),
        Dimension::linear("guidance_window[1]", 0.0, 1.0),
        Dimension::linear("guidance_window[0]", 0.0, 1.0),
        Dimension::linear("cads.prompt_only_below", 0.1, 0.7),
        Dimension::logarithmic("cads.noise_only_above", 0.05, 1.0),
    ]);
    let mut base = base();
    base.settings.cads = Some(Cads::default());
    let mut search = SettingsSearch::new(&base, pairs, 3).unwrap();
    let (mut widest, mut narrowest) = (0.0_f64, 1.0_f64);
    for _ in 0..8 {
        search.propose(32).unwrap();
        // Requests are validated, so that a window in the wrong order would be an error.
        for request in search.requests(&base).unwrap() {
            let fabric = &request.settings.fabric;
            assert!((0.0..=0.9).contains(&fabric.start) && (0.2..=0.9).contains(&fabric.end), "{fabric:?}");
            widest = widest.max(fabric.end - fabric.start);
            narrowest = narrowest.min(fabric.end - fabric.start);
        }
        search.record_votes(&[]).unwrap();
    }
    assert!((0.0..0.1).contains(&narrowest) && widest > 0.6, "{narrowest} to {widest}");
}

#[test]
fn an_end_that_no_start_reaches_has_its_own_value() {
    let apart =
        SearchedSettings::new([Dimension::linear("fabric.start", 0.0, 0.4), Dimension::linear("fabric.end", 0.5, 1.0)]);
    let space = apart.check(&base()).unwrap();
    let point = space.point([("fabric.start", 0.3), ("fabric.end", 0.7)]).unwrap();
    assert!((apart.candidate(&point).values["fabric.end"] - 0.7).abs() < 1e-12);
    let meeting =
        SearchedSettings::new([Dimension::linear("fabric.start", 0.0, 1.0), Dimension::linear("fabric.end", 0.0, 1.0)]);
    let space = meeting.check(&base()).unwrap();
    let end = |start: f64, end: f64| {
        let point = space.point([("fabric.start", start), ("fabric.end", end)]).unwrap();
        meeting.candidate(&point).values["fabric.end"]
    };
    assert!((end(0.6, 0.0) - 0.6).abs() < 1e-12 && (end(0.6, 0.5) - 0.8).abs() < 1e-12);
    assert_eq!((end(0.6, 1.0), end(1.0, 0.3)), (1.0, 1.0));
}

/// Returns the error of a search of these settings and seeds.
fn refused(settings: impl IntoIterator<Item = Dimension>, noise_seeds: &[u64]) -> String {
    let searched = SearchedSettings::new(settings).with_noise_of(noise_seeds.iter().copied());
    SettingsSearch::new(&base(), searched, 0).unwrap_err().to_string()
}

#[test]
fn names_that_are_no_real_numbers_of_the_request_are_refused() {
    for name in [
        "fabric.weight",
        "fabric",
        "fabric/max_weight",
        "Fabric.max_weight",
        "steps",
        "sampler",
        "normalise",
        "width",
        "cads.noise_scale",
        "guidance_window",
        "guidance_window[2]",
        "guidance_window[00]",
        "image_conditions[1].scale",
        "feedback[1].strength",
        "reasons.scale",
        "noise_angles[0]",
    ] {
        let message = refused([Dimension::linear(name, 0.1, 0.2)], &[]);
        assert!(message.starts_with("name of a searched setting: expected one of"), "{message}");
        assert!(message.contains(&format!("got `{name}`")) && message.contains("`fabric.max_weight`"), "{message}");
    }
    let message = refused([Dimension::linear("x".repeat(10_000_000), 0.1, 0.2)], &[]);
    assert!(message.len() < 3000, "{}", message.len());
}

#[test]
fn ranges_that_are_empty_or_beyond_what_a_setting_takes_are_refused_by_name() {
    let weight = "fabric.max_weight";
    for (low, high) in [(1.0, 0.0), (0.5, 0.5), (f64::NAN, 1.0), (0.0, f64::NAN), (0.0, f64::INFINITY)] {
        let message = refused([Dimension::linear(weight, low, high)], &[]);
        assert!(message.starts_with("range of the dimension `fabric.max_weight`: expected"), "{message}");
    }
    assert!(refused([Dimension::logarithmic(weight, 0.0, 1.0)], &[]).contains("above 0"));
    assert!(refused([], &[]).starts_with("dimensions of a search space: expected at least 1"));
    assert!(refused([Dimension::linear(weight, 0.0, 1.0), Dimension::linear(weight, 0.0, 2.0)], &[]).contains("twice"));
    for (name, low, high, piece) in [
        (weight, -0.1, 1.0, "fabric.max_weight: expected a number from 0 to 1000, got -0.1"),
        (weight, 0.0, 2000.0, "fabric.max_weight: expected a number from 0 to 1000, got 2000"),
        ("guidance_scale", 1.0, 1e9, "guidance_scale: expected a number from -10000 to 10000"),
        ("prompt_dropout", 0.0, 1.5, "prompt_dropout: expected a number from 0 to 1, got 1.5"),
        ("apg.momentum", -2.0, 0.0, "apg.momentum: expected"),
        ("fabric.execution.token_merge_ratio", 0.0, 0.9, "fabric.execution.token_merge_ratio: expected"),
        ("image_conditions[0].scale", -1.0, 1.0, "scale of an image condition: expected"),
        ("feedback[0].strength", 0.0, 1.5, "feedback[0].strength: expected"),
        (
            "feedback[0].strength",
            -1.0,
            1.0,
            "feedback[0].strength of a candidate: expected a strength of the direction",
        ),
    ] {
        let message = refused([Dimension::linear(name, low, high)], &[]);
        assert!(message.starts_with(piece), "{message}");
    }
}

#[test]
fn ranges_with_a_start_after_each_end_are_refused() {
    let start = |low, high| Dimension::linear("fabric.start", low, high);
    let end = |low, high| Dimension::linear("fabric.end", low, high);
    let message = refused([start(0.0, 0.9)], &[]);
    let expected = "`fabric.start` of some candidates: expected at most 0.8, which `fabric.end` may be, got 0.9";
    assert!(message.starts_with(expected), "{message}");
    let message = refused([start(0.0, 0.9), end(0.0, 0.5)], &[]);
    assert!(message.contains("expected at most 0.5, which `fabric.end` may be, got 0.9"), "{message}");
    assert!(SettingsSearch::new(&base(), SearchedSettings::new([start(0.0, 0.8)]), 0).is_ok());

    let mut late = base();
    late.settings.fabric.start = 0.3;
    let searched = SearchedSettings::new([end(0.2, 1.0)]);
    let message = SettingsSearch::new(&late, searched, 0).unwrap_err().to_string();
    assert!(message.contains("expected at most 0.2, which `fabric.end` may be, got 0.3"), "{message}");
}

#[test]
fn seeds_that_cannot_be_mixed_are_refused() {
    let weight = || [Dimension::linear("fabric.max_weight", 0.0, 1.0)];
    assert!(refused(weight(), &[7]).starts_with("noise_seeds: expected none, or 2 to 16 different seeds, got 1 seed"));
    assert!(refused(weight(), &[7, 8, 7]).contains("got seed 7 twice"));
    assert!(refused(weight(), &(0..17).collect::<Vec<u64>>()).contains("got 17 seeds"));
}

/// Conditioning that is never prepared.
#[derive(Debug)]
struct Unused;

impl Conditioning for Unused {
    fn prepare(&self, _: &RunContext<'_>) -> Result<Box<dyn PreparedConditioning>, Error> {
        unreachable!("nothing is generated")
    }
}

#[test]
fn base_requests_that_cannot_be_searched_are_refused_before_and_during_a_search() {
    let mut invalid = base();
    invalid.settings.guidance_rescale = f64::NAN;
    let mut for_one_image = base();
    for_one_image.feedback[0].images = Some(vec![0]);
    let cases = [
        ("guidance_rescale: expected", invalid),
        ("seeds: expected", base().with_seeds([])),
        ("conditioning[0].images: expected all images", base().with_for(0..1, Unused)),
        ("feedback[0].images: expected all images", for_one_image),
        ("initial_noise: expected 2, one per seed, or none", base().with_initial_noise([NoiseMixture::of_seed(1)])),
    ];
    let mut search = search(0);
    search.propose(2).unwrap();
    for (beginning, base) in cases {
        for message in [
            SettingsSearch::new(&base, searched(), 0).unwrap_err().to_string(),
            search.requests(&base).unwrap_err().to_string(),
        ] {
            assert!(message.starts_with(beginning), "{message}");
        }
    }
    let mut without_apg = base();
    without_apg.settings.apg = None;
    let message = search.requests(&without_apg).unwrap_err().to_string();
    assert!(message.contains("got `apg.momentum`") && message.contains("is off"), "{message}");
    assert!(search.requests(&base().with(Unused)).is_ok());
}

#[test]
fn candidates_by_hand_are_checked_when_they_are_used() {
    let message = |name: &str, value: f64| {
        let candidate = Candidate { values: [(name.to_owned(), value)].into(), noise: None };
        candidate.request(&base()).unwrap_err().to_string()
    };
    assert!(message("fabric.weight", 0.5).starts_with("name of a searched setting"));
    assert!(message("fabric.end", f64::NAN).starts_with("value of `fabric.end`: expected a finite number, got NaN"));
    assert!(message("fabric.start", 0.9).starts_with("fabric.start: expected at most fabric.end"));
    assert!(message("guidance_window[0]", 2.0).starts_with("settings of a candidate: expected valid settings"));
    let candidate: Candidate = serde_json::from_str(r#"{"values": {"fabric.end": 0.5}}"#).unwrap();
    assert_eq!(candidate.request(&base()).unwrap().settings.fabric.end, 0.5);
    assert_eq!(candidate.to_string(), "fabric.end = 0.5000");
    let noise = Some(NoiseMixture::new([7, 9], [0.6, 0.8]).unwrap());
    let candidate = Candidate { noise, ..candidate };
    let expected = "fabric.end = 0.5000, noise of seed 7 = 0.6000, noise of seed 9 = 0.8000";
    assert_eq!(candidate.to_string(), expected);
    assert_eq!(candidate.request(&base()).unwrap().initial_noise.len(), 2);
}

#[test]
fn rounds_without_a_preference_teach_nothing_and_the_next_ones_are_new() {
    let like_all: Vec<(usize, Vote)> = (0..4).map(|index| (index, Vote::LIKE)).collect();
    for votes in [Vec::new(), like_all, vec![(1, Vote::new(0.0).unwrap())]] {
        let mut search = search(2);
        let mut seen: Vec<Candidate> = Vec::new();
        for _ in 0..3 {
            search.propose(4).unwrap();
            let candidates = search.candidates();
            assert!(candidates.iter().all(|candidate| !seen.contains(candidate)));
            seen.extend(candidates);
            search.record_votes(&votes).unwrap();
            assert_eq!(search.best(), None);
        }
    }
}

#[test]
fn constant_scores_keep_the_search_exploring() {
    let mut search = search(2);
    let mut seen: Vec<f64> = Vec::new();
    for _ in 0..4 {
        search.propose(4).unwrap();
        seen.extend(search.candidates().iter().map(|candidate| candidate.values["fabric.end"]));
        search.record_scores(&[(0, 3.0), (1, 3.0), (2, 3.0), (3, 3.0)]).unwrap();
    }
    let (lowest, highest) = (seen.iter().copied().fold(1.0, f64::min), seen.iter().copied().fold(0.0, f64::max));
    assert!(highest - lowest > 0.6, "{seen:?}");
    assert!(search.best().is_some());
}

#[test]
fn votes_prefer_each_candidate_to_those_of_less_strength() {
    let mut search = search(2);
    search.propose(4).unwrap();
    let half = |sign: f64| Vote::new(0.5 * sign).unwrap();
    // Strengths 0.5 (the later vote counts), 1.5 (reasons add up), 0 and -0.5.
    let votes = [
        (0, Vote::DISLIKE),
        (0, half(1.0)),
        (1, Vote::LIKE.because("the style")),
        (1, half(1.0).because("the colour")),
        (3, half(-1.0)),
    ];
    search.record_votes(&votes).unwrap();
    let stored = serde_json::to_value(&search).unwrap();
    let tried = stored["search"]["tried"].as_array().unwrap();
    assert_eq!(tried.len(), 4);
    // In the order in which they were recorded: the best one first, then the others of its comparisons.
    let pair = |preferred: usize, other: usize| json!({ "preferred": preferred, "other": other });
    let expected = [pair(0, 1), pair(0, 2), pair(0, 3), pair(1, 2), pair(1, 3), pair(2, 3)];
    assert_eq!(stored["search"]["observations"]["votes"], json!(expected));
    assert!(search.candidates().is_empty());
}

#[test]
fn unusable_votes_and_scores_are_named_and_leave_the_round_open() {
    let mut search = search(2);
    for message in [
        search.record_votes(&[]).unwrap_err().to_string(),
        search.record_scores(&[]).unwrap_err().to_string(),
        search.requests(&base()).unwrap_err().to_string(),
    ] {
        assert!(message.starts_with("round of a search: expected a round that was not judged yet"), "{message}");
    }
    assert!(search.propose(0).unwrap_err().to_string().contains("at least 1"));
    search.propose(4).unwrap();
    let before = search.clone();
    for score in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let message = search.record_scores(&[(0, 1.0), (2, score)]).unwrap_err().to_string();
        assert!(message.starts_with("score of candidate 2: expected a finite number"), "{message}");
    }
    search.record_scores(&[(0, 1e200)]).unwrap_err();
    let message = search.record_scores(&[(4, 1.0)]).unwrap_err().to_string();
    assert!(message.starts_with("candidate of a score: expected a candidate from 0 to 3, got 4"), "{message}");
    let message = search.record_votes(&[(9, Vote::LIKE)]).unwrap_err().to_string();
    assert!(message.starts_with("candidate of a vote: expected a candidate from 0 to 3, got 9"), "{message}");
    let mut other = round_without_pipeline(&search);
    other.images.pop();
    let message = search.judge_with(&other, &mut Person).unwrap_err().to_string();
    assert!(message.starts_with("images of a round of a search: expected 4, one per candidate, got 3"), "{message}");
    assert_eq!(search, before);

    search.record_scores(&[(0, 1.0), (2, 2.0)]).unwrap();
    search.propose(4).unwrap();
    let message = search.record_votes(&[(0, Vote::LIKE)]).unwrap_err().to_string();
    assert!(message.contains("votes after scores"), "{message}");
    assert_eq!(search.candidates().len(), 4);
}

#[test]
fn strengths_of_votes_are_scores_if_asked_for() {
    let mut search = search(2);
    search.propose(4).unwrap();
    let best = round_without_pipeline(&search);
    let liked = Person.judge(&best).unwrap()[0].0;
    let expected = search.candidates().swap_remove(liked);
    search.score_with(&best, &mut Person).unwrap();
    assert_eq!(search.best(), Some(expected));
    let stored = serde_json::to_value(&search).unwrap();
    assert_eq!(stored["search"]["observations"]["scores"].as_array().unwrap().len(), 2);
}
