//! Tests of whole searches.

use super::random::RoundRandom;
use super::{Dimension, MAX_POINTS, Point, Search, Space};

/// Optimum of [`value`], in coordinates of the unit cube.
const OPTIMUM: [f64; 3] = [0.3, 0.7, 0.55];
const SEEDS: u64 = 20;

fn space() -> Space {
    Space::new([
        Dimension::linear("weight", -1.0, 1.0),
        Dimension::logarithmic("guidance", 1.0, 20.0),
        Dimension::linear("end", 0.0, 1.0),
    ])
    .unwrap()
}

/// A smooth function with one maximum.
fn value(point: &Point) -> f64 {
    let squares = point.unit().iter().zip(OPTIMUM).map(|(at, optimum)| (at - optimum).powi(2));
    (-1.5 * squares.zip([2.0, 4.0, 3.0]).map(|(square, slope)| slope * square).sum::<f64>()).exp()
}

fn distance(point: &Point) -> f64 {
    point.unit().iter().zip(OPTIMUM).map(|(at, optimum)| (at - optimum).powi(2)).sum::<f64>().sqrt()
}

/// Suggests a round and records its scores.
fn scored_round(search: &mut Search) -> Vec<Point> {
    let points = search.suggest(4);
    let scores: Vec<(Point, f64)> = points.iter().map(|point| (point.clone(), value(point))).collect();
    search.record_scores(&scores).unwrap();
    points
}

/// Suggests a round and likes the best point of it.
fn voted_round(search: &mut Search) -> Vec<Point> {
    let points = search.suggest(4);
    let mut others = points.clone();
    others.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let liked = others.pop().unwrap();
    search.record_votes(&[liked], &others).unwrap();
    points
}

/// Mean distance to the optimum of the best point of searches with different seeds.
fn mean_distance(rounds: usize, round: fn(&mut Search) -> Vec<Point>) -> f64 {
    let found = (0..SEEDS).map(|seed| {
        let mut search = Search::new(space(), seed);
        for _ in 0..rounds {
            round(&mut search);
        }
        distance(search.best().unwrap())
    });
    found.sum::<f64>() / SEEDS as f64
}

/// Mean distance to the optimum of the best of so many random points.
fn random_distance(count: usize) -> f64 {
    let found = (0..SEEDS).map(|seed| {
        let mut random = RoundRandom::new(seed, u64::MAX);
        let points = (0..count).map(|_| space().point_at(&[random.unit(), random.unit(), random.unit()]));
        distance(&points.max_by(|a, b| value(a).total_cmp(&value(b))).unwrap())
    });
    found.sum::<f64>() / SEEDS as f64
}

#[test]
fn scores_lead_to_the_optimum_faster_than_random_points() {
    let (found, random) = (mean_distance(8, scored_round), random_distance(32));
    assert!(found < 0.1 && found < 0.5 * random, "{found}, at random {random}");
}

#[test]
fn votes_lead_to_the_optimum_faster_than_random_points() {
    let (found, random) = (mean_distance(12, voted_round), random_distance(48));
    assert!(found < 0.1 && found < 0.7 * random, "{found}, at random {random}");
}

#[test]
fn a_search_resumes_to_the_bit() {
    for round in [scored_round as fn(&mut Search) -> Vec<Point>, voted_round] {
        let mut search = Search::new(space(), 5);
        for _ in 0..5 {
            let json = serde_json::to_string(&search).unwrap();
            let mut resumed: Search = serde_json::from_str(&json).unwrap();
            assert_eq!(resumed, search);
            assert_eq!(round(&mut resumed), round(&mut search));
            assert_eq!(resumed.best(), search.best());
        }
    }
}

#[test]
fn rounds_and_seeds_are_different() {
    let mut search = Search::new(space(), 5);
    let first = search.suggest(4);
    assert_ne!(search.suggest(4), first);
    assert_ne!(Search::new(space(), 6).suggest(4), first);
    assert_eq!(Search::new(space(), 5).suggest(4), first);
    assert_eq!(search.rounds(), 2);
}

#[test]
fn votes_are_on_the_best_point_and_new_ones_and_scores_on_new_ones() {
    let (mut voted, mut scored) = (Search::new(space(), 1), Search::new(space(), 1));
    for _ in 0..3 {
        voted_round(&mut voted);
        scored_round(&mut scored);
    }
    let points = voted.suggest(4);
    assert_eq!(Some(&points[0]), voted.best());
    assert!(points[1..].iter().all(|point| !voted.tried().contains(point)));
    let alone = voted.suggest(1);
    assert!(alone.len() == 1 && !voted.tried().contains(&alone[0]), "one point is a new one");
    assert!(scored.suggest(4).iter().all(|point| !scored.tried().contains(point)));
    assert!(scored.suggest(0).is_empty());
    assert_eq!(scored.suggest(80).len(), 80);
}

#[test]
fn points_of_a_very_narrow_range_are_different_and_new() {
    // Four numbers lie in this range.
    let narrow = Space::new([Dimension::linear("weight", 1.0, 1.0 + 3.0 * f64::EPSILON)]).unwrap();
    let mut search = Search::new(narrow, 3);
    let points = search.suggest(8);
    assert_eq!(points.len(), 4, "{points:?}");
    assert!(points.iter().enumerate().all(|(index, point)| !points[..index].contains(point)), "{points:?}");
    search.record_scores(&[(points[0].clone(), 1.0)]).unwrap();
    let others = search.suggest(8);
    assert!(others.len() == 3 && !others.contains(&points[0]), "{others:?}");
}

#[test]
fn a_round_of_any_size_is_limited() {
    let mut search = Search::new(space(), 3);
    assert_eq!(search.suggest(usize::MAX).len(), MAX_POINTS);
    for _ in 0..2 {
        scored_round(&mut search);
    }
    assert_eq!(search.suggest(usize::MAX).len(), MAX_POINTS);
}

#[test]
fn constant_scores_keep_the_search_exploring() {
    let mut search = Search::new(space(), 2);
    for _ in 0..4 {
        let scores: Vec<(Point, f64)> = search.suggest(4).into_iter().map(|point| (point, 3.0)).collect();
        search.record_scores(&scores).unwrap();
    }
    assert_eq!(search.tried().len(), 16);
    let spread = |dimension: usize| {
        let coordinates = search.tried().iter().map(|point| point.unit()[dimension]);
        coordinates.clone().fold(0.0, f64::max) - coordinates.fold(1.0, f64::min)
    };
    assert!((0..3).all(|dimension| spread(dimension) > 0.6));
    assert!(search.best().is_some());
}

#[test]
fn rounds_without_a_preference_are_tried_and_teach_nothing() {
    let mut search = Search::new(space(), 2);
    for liked in [true, false, true] {
        let points = search.suggest(4);
        let (likes, others) = if liked { points.split_at(4) } else { points.split_at(0) };
        search.record_votes(likes, others).unwrap();
        assert_eq!(search.best(), None);
    }
    assert_eq!(search.tried().len(), 12);
    search.record_votes(&[], &[]).unwrap();
    search.record_scores(&[]).unwrap();
    assert_eq!(search.suggest(4).len(), 4);
}

#[test]
fn unusable_observations_are_named_and_change_nothing() {
    let mut search = Search::new(space(), 2);
    let points = scored_round(&mut search);
    let before = search.clone();
    for score in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e200] {
        let new = space().point_at(&[0.5; 3]);
        let error = search.record_scores(&[(new, 1.0), (points[2].clone(), score)]).unwrap_err();
        assert!(error.to_string().contains(&points[2].to_string()), "{error}");
        assert_eq!(search, before);
    }
    let other = Space::new([Dimension::linear("weight", -1.0, 1.0)]).unwrap().point_at(&[0.5]);
    let error = search.record_scores(&[(other.clone(), 1.0)]).unwrap_err();
    assert!(error.to_string().contains("another space"), "{error}");
    let error = search.record_votes(&points[..1], &points[1..]).unwrap_err();
    assert!(error.to_string().contains("votes after scores"), "{error}");
    assert_eq!(search, before);

    let mut search = Search::new(space(), 2);
    let points = voted_round(&mut search);
    let before = search.clone();
    search.record_votes(&points[..1], &[other]).unwrap_err();
    let error = search.record_votes(&points[..2], &points[1..]).unwrap_err();
    assert!(error.to_string().contains("liked and not liked"), "{error}");
    let error = search.record_scores(&[(points[0].clone(), 1.0)]).unwrap_err();
    assert!(error.to_string().contains("scores after votes"), "{error}");
    assert_eq!(search, before);
}

#[test]
fn a_stored_search_is_checked_when_it_is_read() {
    let mut search = Search::new(space(), 2);
    voted_round(&mut search);
    let good = serde_json::to_value(&search).unwrap();
    let mut bad = vec![good.clone(); 5];
    bad[0]["observations"]["votes"][0]["other"] = serde_json::json!(9);
    bad[1]["tried"][0]["weight"] = serde_json::json!(5.0);
    bad[2]["observations"] = serde_json::json!({"scores": []});
    bad[3]["observations"] = serde_json::json!({"votes": [{"preferred": 1, "other": 1}]});
    bad[4]["tried"][1] = good["tried"][0].clone();
    let pieces = ["index of a tried point", "value of `weight`", "at least 1 score", "two different points", "twice"];
    for (bad, piece) in bad.into_iter().zip(pieces) {
        let message = serde_json::from_value::<Search>(bad).unwrap_err().to_string();
        assert!(message.contains(piece), "{message}, expected {piece}");
    }
    assert_eq!(serde_json::from_value::<Search>(good).unwrap(), search);
}
