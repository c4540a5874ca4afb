//! Votes and scores on the candidates of a round.

use super::SettingsSearch;
use crate::search::Point;
use crate::session::{FeedbackSource, Round, Vote};
use crate::{Error, InvalidValue};

/// Learning from votes and scores. Each of these methods ends the round; an error changes nothing, so that the round
/// can be judged again.
impl SettingsSearch {
    /// Lets a source vote on the images of a round and learns from its votes, as [`Self::record_votes`] does.
    ///
    /// # Errors
    ///
    /// Returns the errors of the source and of [`Self::record_votes`], and an error if the round does not have an image
    /// for each candidate.
    pub fn judge_with(&mut self, round: &Round, source: &mut dyn FeedbackSource) -> Result<(), Error> {
        self.check_images(round)?;
        let votes = source.judge(round)?;
        Ok(self.record_votes(&votes)?)
    }

    /// Lets a source vote on the images of a round and takes the strengths of its votes as scores, as
    /// [`Self::record_scores`] does. Images without a vote have no score. It is for sources that give graded votes to
    /// all images; likes alone are comparisons ([`Self::judge_with`]).
    ///
    /// # Errors
    ///
    /// Returns the errors of the source and of [`Self::record_scores`], and an error if the round does not have an
    /// image for each candidate.
    pub fn score_with(&mut self, round: &Round, source: &mut dyn FeedbackSource) -> Result<(), Error> {
        self.check_images(round)?;
        let votes = source.judge(round)?;
        let strengths = self.strengths(&votes)?;
        let scores = strengths.into_iter().enumerate().filter_map(|(index, strength)| Some((index, strength?)));
        Ok(self.record_scores(&scores.collect::<Vec<(usize, f64)>>())?)
    }

    /// Learns from votes on candidates, given by their indices in the round: each candidate is better than all those
    /// with a lower strength. A candidate without a vote has strength 0, so a like alone prefers it to all others.
    ///
    /// A vote without a reason replaces earlier ones on the same candidate; votes with reasons add up. If all strengths
    /// are equal, for instance because there is no vote, nothing is learnt, and the next round has other candidates.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no round to judge, a vote is on no candidate, or the search has scores.
    pub fn record_votes(&mut self, votes: &[(usize, Vote)]) -> Result<(), InvalidValue> {
        self.check_open()?;
        let strengths: Vec<f64> =
            self.strengths(votes)?.into_iter().map(|strength| strength.unwrap_or_default()).collect();
        let with = |is_meant: &dyn Fn(f64) -> bool| -> Vec<Point> {
            let meant = self.open.iter().zip(&strengths).filter(|(_, strength)| is_meant(**strength));
            meant.map(|(point, _)| point.clone()).collect()
        };
        let mut levels = strengths.clone();
        levels.sort_by(|a, b| b.total_cmp(a));
        levels.dedup();
        // On a copy, so that an error leaves the search as it was.
        let mut search = self.search.clone();
        for level in levels {
            search.record_votes(&with(&|strength| strength == level), &with(&|strength| strength < level))?;
        }
        self.search = search;
        self.open.clear();
        Ok(())
    }

    /// Learns from scores of candidates, given by their indices in the round; higher is better. Candidates without a
    /// score teach nothing and may be proposed again. If all scores of a search are equal, it goes on exploring.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no round to judge, a score is not finite or above 1e100 in magnitude, it is that of
    /// no candidate, or the search has votes.
    pub fn record_scores(&mut self, scores: &[(usize, f64)]) -> Result<(), InvalidValue> {
        self.check_open()?;
        let mut scored = Vec::with_capacity(scores.len());
        for (index, score) in scores {
            let point = self.open.get(*index).ok_or_else(|| self.no_candidate("score", *index))?;
            if !score.is_finite() {
                let help = "look at what computes it, or leave the candidate out";
                return Err(InvalidValue::new(format!("score of candidate {index}"), score, "a finite number", help));
            }
            scored.push((point.clone(), *score));
        }
        self.search.record_scores(&scored)?;
        self.open.clear();
        Ok(())
    }

    /// Returns the strength of the votes on each candidate; `None` for a candidate without a vote.
    fn strengths(&self, votes: &[(usize, Vote)]) -> Result<Vec<Option<f64>>, InvalidValue> {
        let mut strengths = vec![None; self.open.len()];
        for (index, vote) in votes {
            let strength = strengths.get_mut(*index).ok_or_else(|| self.no_candidate("vote", *index))?;
            *strength = Some(vote.strength() + strength.filter(|_| vote.reason().is_some()).unwrap_or_default());
        }
        Ok(strengths)
    }

    fn check_images(&self, round: &Round) -> Result<(), InvalidValue> {
        self.check_open()?;
        if round.len() == self.open.len() {
            return Ok(());
        }
        let expected = format!("{}, one per candidate", self.open.len());
        Err(InvalidValue::new("images of a round of a search", round.len(), expected, "judge the round that it made"))
    }

    fn no_candidate(&self, what: &str, index: usize) -> InvalidValue {
        let expected = format!("a candidate from 0 to {}", self.open.len().saturating_sub(1));
        InvalidValue::new(format!("candidate of a {what}"), index, expected, "count the images of the round from 0")
    }
}
