//! The choice of the next points by expected improvement.

use super::cholesky::dot;
use super::normal::{density, distribution};
use super::{Point, Surrogate};

/// Point that may be suggested, with the distribution of its value.
struct Candidate {
    point: Point,
    mean: f64,
    variance: f64,
    /// Covariances with the points chosen before, divided by their standard deviations: the row of this candidate in
    /// the Cholesky factor of the posterior covariance.
    explained: Vec<f64>,
}

/// Chooses up to `count` different points with the greatest expected improvement over the value `best` (Jones et al.
/// 1998).
///
/// After each choice, the model is conditioned on its mean at the chosen point (the kriging believer of Ginsbourger et
/// al. 2010). This leaves all means as they are and lowers the variances near the chosen point, so that the points of a
/// round are spread out.
pub(super) fn by_expected_improvement(
    model: &dyn Surrogate,
    points: Vec<Point>,
    count: usize,
    best: f64,
) -> Vec<Point> {
    let candidate = |point: Point| {
        let (mean, variance) = (model.mean(point.unit()), model.variance(point.unit()));
        Candidate { point, mean, variance, explained: Vec::new() }
    };
    let mut candidates: Vec<Candidate> = points.into_iter().map(candidate).collect();
    let mut best = best;
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count && !candidates.is_empty() {
        let next = candidates.swap_remove(most_promising(&candidates, best));
        candidates.retain(|other| other.point != next.point);
        let deviation = next.variance.sqrt();
        for other in &mut candidates {
            let covariance = model.covariance(other.point.unit(), next.point.unit());
            let limit = other.variance.sqrt();
            let open = covariance - dot(&other.explained, &next.explained);
            // A correlation is at most 1; rounding may exceed it where the values are almost known.
            let share = if deviation > 0.0 { (open / deviation).clamp(-limit, limit) } else { 0.0 };
            other.explained.push(share);
            other.variance = (other.variance - share * share).max(0.0);
        }
        best = best.max(next.mean);
        chosen.push(next.point);
    }
    chosen
}

/// Returns the index of the candidate with the greatest expected improvement; among equals, as where all of them
/// underflow to 0, the one with the greatest variance.
fn most_promising(candidates: &[Candidate], best: f64) -> usize {
    let merit = |one: &Candidate| (expected_improvement(one.mean, one.variance, best), one.variance);
    let merits = candidates.iter().map(merit).enumerate();
    let greatest = merits.max_by(|(_, a), (_, b)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    greatest.map_or(0, |(index, _)| index)
}

/// Returns the expectation of `max(value - best, 0)` for a normally distributed value.
fn expected_improvement(mean: f64, variance: f64, best: f64) -> f64 {
    let (gain, deviation) = (mean - best, variance.sqrt());
    if deviation == 0.0 {
        return gain.max(0.0);
    }
    let standard = gain / deviation;
    // Far below the best value, the difference of two almost equal numbers may be negative.
    (gain * distribution(standard) + deviation * density(standard)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Dimension, GaussianProcess, Space};

    #[test]
    fn expected_improvement_has_its_known_values() {
        // At a mean equal to the best value it is the deviation over the square root of tau.
        assert!((expected_improvement(1.0, 4.0, 1.0) - 2.0 / std::f64::consts::TAU.sqrt()).abs() < 1e-6);
        assert!((expected_improvement(3.0, 1e-12, 1.0) - 2.0).abs() < 1e-5);
        assert_eq!(expected_improvement(3.0, 0.0, 1.0), 2.0);
        assert_eq!(expected_improvement(0.0, 1e-6, 1.0), 0.0);
    }

    #[test]
    fn points_of_a_round_are_different_and_spread_out() {
        let space = Space::new([Dimension::linear("a", 0.0, 1.0)]).unwrap();
        let grid: Vec<Point> = (0..=100).map(|at| space.point_at(&[f64::from(at) / 100.0])).collect();
        let points = [vec![0.5], vec![0.45], vec![0.55]];
        let model = GaussianProcess::with_lengthscales(&points, &[1.0, 0.9, 0.9], &[0.2]).unwrap();
        let twice: Vec<Point> = grid.iter().chain(&grid).cloned().collect();
        let chosen = by_expected_improvement(&model, twice, 4, 1.0);
        assert_eq!(chosen.len(), 4);
        for (index, point) in chosen.iter().enumerate() {
            let nearest = chosen[..index].iter().map(|other| (other.unit()[0] - point.unit()[0]).abs());
            assert!(nearest.fold(f64::INFINITY, f64::min) > 0.05, "{chosen:?}");
        }
    }

    #[test]
    fn there_are_no_more_points_than_candidates() {
        let space = Space::new([Dimension::linear("a", 0.0, 1.0)]).unwrap();
        let model = GaussianProcess::fit(&[vec![0.0]], &[1.0]).unwrap();
        let points = vec![space.point_at(&[0.5]); 3];
        assert_eq!(by_expected_improvement(&model, points.clone(), 4, 1.0), points[..1]);
    }
}
