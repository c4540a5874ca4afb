//! Automatic feedback.

use std::fmt;

use super::{Round, SessionError, Vote};
use crate::Error;
use crate::image::Image;

/// Source of votes on rounds: a score, a model, or a person at a terminal.
pub trait FeedbackSource {
    /// Returns votes on images of a round, each with the index of its image. May return any number of votes.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot judge the round.
    fn judge(&mut self, round: &Round) -> Result<Vec<(usize, Vote)>, Error>;
}

/// Likes the image with the highest score and dislikes the one with the lowest, as in the paper's experiments.
///
/// Among equal scores the first image is chosen. If there is one image, or all scores are equal, the best image is also
/// the worst, and there is no vote. The published evaluation then uses it as a liked and as a disliked reference, whose
/// effects on the two branches cancel in part; in a session, the later one of two votes without a reason counts.
pub struct BestAndWorst<F> {
    score: F,
}

impl<F: FnMut(&Round, &Image) -> Result<f64, Error>> BestAndWorst<F> {
    /// Creates a source from a function that scores an image.
    pub fn new(score: F) -> Self {
        Self { score }
    }
}

impl<F> fmt::Debug for BestAndWorst<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BestAndWorst").finish_non_exhaustive()
    }
}

impl<F: FnMut(&Round, &Image) -> Result<f64, Error>> FeedbackSource for BestAndWorst<F> {
    fn judge(&mut self, round: &Round) -> Result<Vec<(usize, Vote)>, Error> {
        let mut best: Option<(usize, f64)> = None;
        let mut worst: Option<(usize, f64)> = None;
        for (index, image) in round.images.iter().enumerate() {
            let score = (self.score)(round, image)?;
            if !score.is_finite() {
                return Err(SessionError::Score { index, got: score }.into());
            }
            if best.is_none_or(|(_, highest)| score > highest) {
                best = Some((index, score));
            }
            if worst.is_none_or(|(_, lowest)| score < lowest) {
                worst = Some((index, score));
            }
        }
        if best == worst {
            return Ok(Vec::new());
        }
        let votes = [(best, Vote::LIKE), (worst, Vote::DISLIKE)];
        Ok(votes.into_iter().filter_map(|(got, vote)| got.map(|(index, _)| (index, vote))).collect())
    }
}
