//! Points that are spread over the unit cube.

use super::cholesky::dot;
use super::random::RoundRandom;

/// Number of Latin hypercubes of which the most spread one is taken.
const DRAWS: usize = 32;
/// Number of candidates spread uniformly over the cube.
const GLOBAL: usize = 256;
/// Number of candidates around the best point.
const LOCAL: usize = 128;
/// Standard deviations of the candidates around the best point.
const LOCAL_DEVIATIONS: [f64; 4] = [0.2, 0.1, 0.05, 0.025];

/// Returns a Latin hypercube design of `count` points: each of `count` equal intervals of each dimension has one point.
/// Of a few such designs, it is the one with the greatest smallest distance between two of its points, or one of them
/// and one of the points `tried` before.
pub(super) fn latin_hypercube(
    random: &mut RoundRandom,
    count: usize,
    dims: usize,
    tried: &[Vec<f64>],
) -> Vec<Vec<f64>> {
    let draws: Vec<Vec<Vec<f64>>> = (0..DRAWS).map(|_| draw(random, count, dims)).collect();
    let most_spread = draws.into_iter().max_by(|a, b| spacing(a, tried).total_cmp(&spacing(b, tried)));
    most_spread.expect("designs were drawn")
}

fn draw(random: &mut RoundRandom, count: usize, dims: usize) -> Vec<Vec<f64>> {
    let mut points = vec![Vec::new(); count];
    for _ in 0..dims {
        let mut intervals: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            intervals.swap(last, random.below(last + 1));
        }
        for (point, interval) in points.iter_mut().zip(intervals) {
            point.push((interval as f64 + random.unit()) / count as f64);
        }
    }
    points
}

/// Returns the smallest squared distance of two of the points, or of one of them and one of the points tried before.
fn spacing(points: &[Vec<f64>], tried: &[Vec<f64>]) -> f64 {
    let distances = points.iter().enumerate().flat_map(|(index, point)| {
        points[..index].iter().chain(tried).map(move |other| squared_distance(point, other))
    });
    distances.fold(f64::INFINITY, f64::min)
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    dot(&difference, &difference)
}

/// Returns points among which the next suggestions are chosen: some uniform in the cube, and some at a few distances
/// from the best point, without which a search would not get close to an optimum in many dimensions.
pub(super) fn candidates(random: &mut RoundRandom, count: usize, best: &[f64]) -> Vec<Vec<f64>> {
    let mut points: Vec<Vec<f64>> = Vec::new();
    // More than a round needs, also if it is large.
    for _ in 0..GLOBAL.max(4 * count) {
        points.push(best.iter().map(|_| random.unit()).collect());
    }
    for deviation in LOCAL_DEVIATIONS.into_iter().cycle().take(LOCAL) {
        points.push(best.iter().map(|value| (value + deviation * random.normal()).clamp(0.0, 1.0)).collect());
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interval_of_each_dimension_holds_one_point() {
        let points = latin_hypercube(&mut RoundRandom::new(3, 0), 5, 4, &[]);
        for dimension in 0..4 {
            let mut intervals: Vec<usize> = points.iter().map(|point| (point[dimension] * 5.0) as usize).collect();
            intervals.sort_unstable();
            assert_eq!(intervals, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn the_design_keeps_away_from_tried_points() {
        let tried = vec![vec![0.5, 0.5]];
        for round in 0..10 {
            let points = latin_hypercube(&mut RoundRandom::new(3, round), 2, 2, &tried);
            assert!(spacing(&points, &tried) > 0.04, "{points:?}");
        }
    }

    #[test]
    fn candidates_are_in_the_cube_and_some_are_near_the_best_point() {
        let best = [0.0, 1.0, 0.5];
        let points = candidates(&mut RoundRandom::new(0, 0), 4, &best);
        assert!(points.iter().flatten().all(|value| (0.0..=1.0).contains(value)));
        assert!(points.iter().filter(|point| squared_distance(point, &best) < 0.01).count() > LOCAL / 4);
    }
}
