//! Feedback without a person.

use std::fmt;

use super::{Round, SessionError, Vote};
use crate::Error;
use crate::image::Image;

/// Judges rounds: a score, a model, a person at a terminal.
pub trait FeedbackSource {
    /// Votes on images of a round, each by its number in the round; any number of them.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from judging.
    fn judge(&mut self, round: &Round) -> Result<Vec<(usize, Vote)>, Error>;
}

/// Likes the image with the highest score and dislikes the one with the lowest: the protocol of the paper's
/// experiments.
///
/// Of equal scores the first counts. With one image, or only equal ones, both votes name the same image, as in
/// the published evaluation, which then attends to it on both sides; in a session the dislike, cast last, stands.
pub struct BestAndWorst<F> {
    score: F,
}

impl<F: FnMut(&Round, &Image) -> Result<f64, Error>> BestAndWorst<F> {
    /// Votes by this score of an image.
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
        let votes = [(best, Vote::LIKE), (worst, Vote::DISLIKE)];
        Ok(votes.into_iter().filter_map(|(got, vote)| got.map(|(index, _)| (index, vote))).collect())
    }
}
