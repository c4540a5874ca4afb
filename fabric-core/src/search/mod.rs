//! Search for good settings by feedback, instead of setting them by hand.
//!
//! A [`Search`] suggests the settings of a few images per round and learns from scores or votes on them, by Bayesian
//! optimisation: a Gaussian process models what is known about all settings, and the next suggestions are those from
//! which the greatest improvement is expected. With votes it is preferential Bayesian optimisation: a liked image tells
//! that its settings are better than those of the other images of its round, as in arXiv 2602.02388.
//!
//! No networks are involved. All computations are deterministic and on the host, in f64.

mod acquisition;
mod cholesky;
mod design;
mod gaussian_process;
mod kernel;
mod lengthscales;
mod normal;
mod observations;
mod point;
mod preference;
mod random;
mod space;
mod surrogate;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use acquisition::by_expected_improvement;
use design::{candidates, latin_hypercube};
use gaussian_process::MAX_TARGET;
use observations::{Observations, Score, Stored};
use random::RoundRandom;

pub use gaussian_process::GaussianProcess;
pub use point::Point;
pub use preference::{Comparison, PreferenceModel};
pub use space::{Dimension, Scale, Space};
pub use surrogate::Surrogate;

use crate::InvalidValue;

/// Largest number of points of a round.
const MAX_POINTS: usize = 256;
/// Number of random points for each missing point of a first round, before the space counts as exhausted.
const FILL: usize = 64;

/// Search for the best point of a space, from scores or from votes.
///
/// The first rounds are spread over the space, until there are more points than dimensions and something was learnt
/// from them. Later rounds are chosen by expected improvement. A search takes either scores or votes, because there is
/// no common unit for both.
///
/// The state of a search is its seed, the number of its rounds and what was recorded. A search that was serialised and
/// read back therefore makes the same suggestions, to the bit, on the same build.
///
/// ```
/// use fabric_core::search::{Dimension, Point, Search, Space};
///
/// let space = Space::new([
///     Dimension::linear("fabric.max_weight", 0.0, 1.0),
///     Dimension::logarithmic("guidance_scale", 1.0, 16.0),
/// ])?;
/// let mut search = Search::new(space, 7);
/// for _round in 0..3 {
///     let points = search.suggest(4);
///     // Generate an image with each point's values and show them. Here, the person likes a strong weight.
///     let weight = |point: &Point| point.get("fabric.max_weight").unwrap_or(0.0);
///     let (liked, others): (Vec<_>, Vec<_>) = points.into_iter().partition(|point| weight(point) > 0.6);
///     search.record_votes(&liked, &others)?;
/// }
/// let best = search.best().expect("some points were liked and others not");
/// assert!(best.get("fabric.max_weight") > Some(0.5));
/// # Ok::<(), fabric_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Search {
    space: Space,
    seed: u64,
    /// Number of rounds that were suggested.
    rounds: u64,
    /// Recorded points without repetition, oldest first.
    tried: Vec<Point>,
    observations: Observations,
}

impl Search {
    /// Creates a search without observations.
    #[must_use]
    pub fn new(space: Space, seed: u64) -> Self {
        Self { space, seed, rounds: 0, tried: Vec::new(), observations: Observations::None }
    }

    /// The space.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The number of rounds that were suggested.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// The recorded points without repetition, oldest first.
    pub fn tried(&self) -> &[Point] {
        &self.tried
    }

    /// Suggests `count` different points for the next round, at most 256.
    ///
    /// With votes, the first point of two or more is the best one so far ([`Self::best`]), for comparison with the new
    /// points; scores are comparable across rounds, so all points are new. A round may be judged in part or not at all.
    /// There are fewer points only if so many different ones do not exist, because the ranges are very narrow.
    ///
    /// Each call fits the model, see [`GaussianProcess`] and [`PreferenceModel`], and then compares `count` choices
    /// with a few hundred candidates. The time grows with the cube of the number of tried points.
    #[must_use]
    pub fn suggest(&mut self, count: usize) -> Vec<Point> {
        if count == 0 {
            return Vec::new();
        }
        let count = count.min(MAX_POINTS);
        let mut random = RoundRandom::new(self.seed, self.rounds);
        self.rounds = self.rounds.wrapping_add(1);
        let dims = self.space.dimensions().len();
        let model = if self.tried.len() > dims { self.model() } else { None };
        let Some(model) = model else { return self.spread(&mut random, count) };
        let (best, highest) = self.highest_mean(&*model).expect("a model has tried points");
        let is_compared = matches!(self.observations, Observations::Votes(_)) && count > 1;
        let mut points: Vec<Point> = if is_compared { vec![best.clone()] } else { Vec::new() };
        let candidates = candidates(&mut random, count, best.unit());
        let candidates = candidates.iter().map(|unit| self.space.point_at(unit));
        let candidates = candidates.filter(|point| !self.tried.contains(point)).collect();
        points.extend(by_expected_improvement(&*model, candidates, count - points.len(), highest));
        points
    }

    /// Returns different new points that are spread over the space.
    fn spread(&self, random: &mut RoundRandom, count: usize) -> Vec<Point> {
        let dims = self.space.dimensions().len();
        let tried: Vec<Vec<f64>> = self.tried.iter().map(|point| point.unit().to_vec()).collect();
        let design = latin_hypercube(random, count, dims, &tried);
        // In very narrow ranges, points of the design may be equal to one another or to tried ones.
        let others = (0..FILL * count).map(|_| (0..dims).map(|_| random.unit()).collect::<Vec<f64>>());
        let mut points: Vec<Point> = Vec::with_capacity(count);
        for unit in design.into_iter().chain(others) {
            if points.len() == count {
                break;
            }
            let point = self.space.point_at(&unit);
            if !points.contains(&point) && !self.tried.contains(&point) {
                points.push(point);
            }
        }
        points
    }

    /// Records scores of points; higher is better. Points may be from elsewhere, and repeated: scores may be noisy.
    ///
    /// # Errors
    ///
    /// Returns an error if a score is not finite or above 1e100 in magnitude, a point is of another space, or the
    /// search has votes. Nothing is recorded then.
    pub fn record_scores(&mut self, scores: &[(Point, f64)]) -> Result<(), InvalidValue> {
        if scores.is_empty() {
            return Ok(());
        }
        for (point, score) in scores {
            self.check_point(point)?;
            check_score(point, *score)?;
        }
        let mut recorded = match &self.observations {
            Observations::None => Vec::new(),
            Observations::Scores(recorded) => recorded.clone(),
            Observations::Votes(_) => return Err(mixed("scores", "votes")),
        };
        for (point, score) in scores {
            recorded.push(Score { point: self.index_of(point), score: *score });
        }
        self.observations = Observations::Scores(recorded);
        Ok(())
    }

    /// Records votes on points that were judged together: each liked point is better than each of the others. If one
    /// list is empty, nothing is learnt from the round, but its points count as tried.
    ///
    /// # Errors
    ///
    /// Returns an error if a point is both liked and among the others, a point is of another space, or the search has
    /// scores. Nothing is recorded then.
    pub fn record_votes(&mut self, liked: &[Point], others: &[Point]) -> Result<(), InvalidValue> {
        if liked.is_empty() && others.is_empty() {
            return Ok(());
        }
        for point in liked.iter().chain(others) {
            self.check_point(point)?;
        }
        if let Some(point) = liked.iter().find(|point| others.contains(point)) {
            return Err(InvalidValue::new(
                format!("vote on the point ({point})"),
                "liked and not liked",
                "one of the two",
                "leave the point out of one list, or of both if its images were judged differently",
            ));
        }
        let mut recorded = match &self.observations {
            Observations::None => Vec::new(),
            Observations::Votes(recorded) => recorded.clone(),
            Observations::Scores(_) => return Err(mixed("votes", "scores")),
        };
        let liked: Vec<usize> = liked.iter().map(|point| self.index_of(point)).collect();
        let others: Vec<usize> = others.iter().map(|point| self.index_of(point)).collect();
        for preferred in liked {
            recorded.extend(others.iter().map(|other| Comparison { preferred, other: *other }));
        }
        self.observations = Observations::Votes(recorded);
        Ok(())
    }

    /// Returns the tried point with the highest expected value. `None` before the first score, or the first vote that
    /// prefers a point to another. The time is that of a fit of the model.
    #[must_use]
    pub fn best(&self) -> Option<&Point> {
        let model = self.model()?;
        self.highest_mean(&*model).map(|(point, _)| point)
    }

    /// Fits the model of the observations, if there are any.
    fn model(&self) -> Option<Box<dyn Surrogate>> {
        let unit = |index: usize| self.tried[index].unit().to_vec();
        match &self.observations {
            Observations::Scores(scores) => {
                let points: Vec<Vec<f64>> = scores.iter().map(|score| unit(score.point)).collect();
                let targets: Vec<f64> = scores.iter().map(|score| score.score).collect();
                let model = GaussianProcess::fit(&points, &targets).expect("recorded scores were checked");
                Some(Box::new(model))
            }
            Observations::Votes(comparisons) if !comparisons.is_empty() => {
                let points: Vec<Vec<f64>> = (0..self.tried.len()).map(unit).collect();
                let model = PreferenceModel::fit(&points, comparisons).expect("recorded votes were checked");
                Some(Box::new(model))
            }
            Observations::Votes(_) | Observations::None => None,
        }
    }

    /// Returns the first tried point with the highest expected value, and this value.
    fn highest_mean(&self, model: &dyn Surrogate) -> Option<(&Point, f64)> {
        let mut best: Option<(&Point, f64)> = None;
        for point in &self.tried {
            let mean = model.mean(point.unit());
            if best.is_none_or(|(_, highest)| mean > highest) {
                best = Some((point, mean));
            }
        }
        best
    }

    fn check_point(&self, point: &Point) -> Result<(), InvalidValue> {
        if self.space.contains(point) {
            return Ok(());
        }
        Err(InvalidValue::new(
            "point of a search",
            format!("a point of another space ({point})"),
            "a point of the space of the search",
            "create it with `Space::point` of that space, or take a suggested one",
        ))
    }

    /// Returns the index of a point among the tried ones, and adds it if it is new.
    fn index_of(&mut self, point: &Point) -> usize {
        self.tried.iter().position(|tried| tried == point).unwrap_or_else(|| {
            self.tried.push(point.clone());
            self.tried.len() - 1
        })
    }
}

fn check_score(point: &Point, score: f64) -> Result<(), InvalidValue> {
    if (-MAX_TARGET..=MAX_TARGET).contains(&score) {
        return Ok(());
    }
    Err(InvalidValue::new(
        format!("score of the point ({point})"),
        score,
        "a finite number of magnitude at most 1e100",
        "leave the point out if it has no score",
    ))
}

fn mixed(new: &str, recorded: &str) -> InvalidValue {
    InvalidValue::new(
        "observations of a search",
        format!("{new} after {recorded}"),
        format!("{recorded} only"),
        "use a second search for the other kind",
    )
}
