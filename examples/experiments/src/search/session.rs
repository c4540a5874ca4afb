//! The rounds of a session whose settings are searched.

use fabric::core::InvalidValue;
use fabric::core::pipeline::{CandidateSeeds, Pipeline, Request, SettingsSearch};
use fabric::core::session::Vote;

use super::{ArmSearch, SearchFeedback};
use crate::round_maker::{Made, RoundMaker};
use crate::{ExperimentError, ImageOrigin};

/// Session whose rounds have settings from a search, as [`ArmSearch`] describes.
#[derive(Debug)]
pub(crate) struct SearchedSession {
    search: SettingsSearch,
    learns_from: SearchFeedback,
    /// Number of rounds of the session.
    rounds: usize,
}

impl SearchedSession {
    /// Creates the session of an arm without rounds. `base` has the prompt and the settings that are not searched;
    /// `seed` is that of the proposals.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting cannot be searched in its range.
    pub(crate) fn new(arm: &ArmSearch, base: &Request, rounds: usize, seed: u64) -> Result<Self, ExperimentError> {
        // Images of a round start from different noise, as in all other arms.
        let search = SettingsSearch::new(base, arm.searched.clone(), seed)?.with_seeds(CandidateSeeds::OnePerCandidate);
        Ok(Self { search, learns_from: arm.learns_from, rounds })
    }
}

impl RoundMaker for SearchedSession {
    fn make(&mut self, pipeline: &Pipeline, round: usize, base: Request) -> Result<Made, ExperimentError> {
        if round == 0 {
            return Ok(Made::of(pipeline.generate(&base)?));
        }
        let best = if round + 1 == self.rounds { self.search.best() } else { None };
        if let Some(best) = best {
            let made = Made::of(pipeline.generate(&best.request(&base)?)?);
            let origins = vec![ImageOrigin::Searched(best); made.images.len()];
            return Ok(Made { origins, ..made });
        }
        let expected = base.seeds.len();
        self.search.propose(expected)?;
        let candidates = self.search.candidates();
        if candidates.len() != expected {
            let (got, expected) = (candidates.len(), format!("{expected}, one per image"));
            let help = "search in wider ranges, or make smaller rounds";
            return Err(InvalidValue::new("candidates of a round", got, expected, help).into());
        }
        let mut images = Vec::with_capacity(expected);
        for request in self.search.requests(&base)? {
            images.extend(pipeline.generate(&request)?.images);
        }
        let origins = candidates.into_iter().map(ImageOrigin::Searched).collect();
        Ok(Made { images, origins, report: None })
    }

    fn judge(
        &mut self,
        _made: &Made,
        scores: &[f64],
        [best, worst]: [usize; 2],
    ) -> Result<Vec<(usize, Vote)>, ExperimentError> {
        // The first and the last round have no candidates.
        if !self.search.candidates().is_empty() {
            match self.learns_from {
                SearchFeedback::Scores => {
                    let scores: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
                    self.search.record_scores(&scores)?;
                }
                // If all scores are equal, no image is better than another.
                SearchFeedback::Likes if best == worst => self.search.record_votes(&[])?,
                SearchFeedback::Likes => self.search.record_votes(&[(best, Vote::LIKE), (worst, Vote::DISLIKE)])?,
            }
        }
        Ok(Vec::new())
    }
}
