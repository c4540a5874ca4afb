//! Search for good settings of a request, by votes or scores on its images.

mod candidate;
mod feedback;
mod generate;
mod numbers;
mod searched;
mod stored;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use stored::Stored;

pub use candidate::Candidate;
pub use searched::SearchedSettings;

use super::Request;
use crate::search::{Point, Search};
use crate::{Error, InvalidValue};

/// Seeds of the candidates of a [`SettingsSearch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum CandidateSeeds {
    /// All candidates of all rounds have the first seed of the base request, so that their images differ by their
    /// settings only. What is found is the best for this seed; give another base request to see it on others.
    #[default]
    Same,
    /// Each candidate has the seed of the base request at its index. Votes and scores then also depend on the luck of a
    /// seed, so more rounds are needed; what is found is less particular to one seed.
    OnePerCandidate,
}

/// Search for the best settings of a request, from votes or from scores.
///
/// Each round has a few candidates, which are values of the searched settings ([`SearchedSettings`]) for one image
/// each. [`Self::propose`] begins a round, [`Self::generate`] makes its images, and [`Self::judge_with`],
/// [`Self::record_votes`], [`Self::score_with`] or [`Self::record_scores`] end it. [`Search`] chooses the candidates by
/// Bayesian optimisation: it learns from votes, or from scores, but not from both.
///
/// The base request has all that the candidates share: prompts, images, conditioning, and the settings that are not
/// searched. It is given to each call, because images and adapters are not part of a search. It may change from round
/// to round, as that of a session does, where each round has more references; what is learnt then is an average.
///
/// A search is plain data. One that was serialised and read back, also in the middle of a round, proposes the same
/// candidates, to the bit, on the same build.
///
/// ```
/// use fabric_core::image::Image;
/// use fabric_core::pipeline::{Request, SearchedSettings, SettingsSearch};
/// use fabric_core::search::Dimension;
/// use fabric_core::session::Vote;
///
/// let liked = Image::filled(64, 64, [200, 0, 0])?;
/// let base = Request::new("a small red star on blue").with_liked(liked);
/// let searched = SearchedSettings::new([
///     Dimension::linear("fabric.max_weight", 0.0, 1.0),
///     Dimension::logarithmic("guidance_scale", 1.0, 16.0),
/// ]);
/// let mut search = SettingsSearch::new(&base, searched, 7)?;
/// for _round in 0..3 {
///     search.propose(4)?;
///     // `search.generate(&pipeline, &base)` makes the images. Here, the person likes a strong weight.
///     let candidates = search.candidates().into_iter().enumerate();
///     let liked = candidates.filter(|(_, candidate)| candidate.values["fabric.max_weight"] > 0.6);
///     let votes: Vec<(usize, Vote)> = liked.map(|(index, _)| (index, Vote::LIKE)).collect();
///     search.record_votes(&votes)?;
/// }
/// let best = search.best().expect("some images were liked and others not");
/// assert!(best.request(&base)?.settings.fabric.max_weight > 0.5);
/// # Ok::<(), fabric_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct SettingsSearch {
    searched: SearchedSettings,
    seeds: CandidateSeeds,
    search: Search,
    /// Points of the round that was not judged yet.
    open: Vec<Point>,
}

impl SettingsSearch {
    /// Creates a search without rounds. `seed` is that of the proposals, not of images.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting cannot be searched in its range (see [`SearchedSettings`]), or the base request is
    /// invalid or has a conditioning or a reference for some of its images only.
    pub fn new(base: &Request, searched: SearchedSettings, seed: u64) -> Result<Self, Error> {
        check_base(base)?;
        let space = searched.check(base)?;
        Ok(Self { searched, seeds: CandidateSeeds::default(), search: Search::new(space, seed), open: Vec::new() })
    }

    /// Sets the seeds of the candidates.
    #[must_use]
    pub fn with_seeds(self, seeds: CandidateSeeds) -> Self {
        Self { seeds, ..self }
    }

    /// The searched settings.
    pub fn searched(&self) -> &SearchedSettings {
        &self.searched
    }

    /// The number of rounds that were proposed.
    pub fn rounds(&self) -> u64 {
        self.search.rounds()
    }

    /// Begins a round with `count` new candidates, at most 256. A round that was not judged is discarded.
    ///
    /// If the search learns from votes, the first candidate of two or more is the best one so far, to compare the
    /// others with. The time grows with the cube of the number of judged candidates.
    ///
    /// # Errors
    ///
    /// Returns an error if `count` is 0, or the ranges are so narrow that all their values were tried.
    pub fn propose(&mut self, count: usize) -> Result<(), InvalidValue> {
        if count == 0 {
            return Err(InvalidValue::new("candidates of a round", 0, "at least 1", "four is a usual number"));
        }
        let points = self.search.suggest(count);
        if points.is_empty() {
            let help = "search in wider ranges";
            return Err(InvalidValue::new("candidates of a round", "no value that is new", "at least 1", help));
        }
        self.open = points;
        Ok(())
    }

    /// Returns the candidates of the round that was not judged yet; empty if there is none.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.open.iter().map(|point| self.searched.candidate(point)).collect()
    }

    /// Returns the requests of the round that was not judged yet, one for each candidate, each for one image.
    /// [`Self::generate`] runs them one after another; [`DevicePool::generate_all`](super::DevicePool::generate_all)
    /// can run them on several devices.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such round, or the base request is invalid, has fewer seeds than are needed
    /// ([`CandidateSeeds`]), has a conditioning or a reference for some of its images only, or does not have a setting
    /// that is searched.
    pub fn requests(&self, base: &Request) -> Result<Vec<Request>, Error> {
        self.check_open()?;
        check_base(base)?;
        let needed = match self.seeds {
            CandidateSeeds::Same => 1,
            CandidateSeeds::OnePerCandidate => self.open.len(),
        };
        if base.seeds.len() < needed {
            let expected = format!("at least {needed}, one per candidate");
            let help = "give the base request more seeds, or let the candidates share one";
            return Err(Error::settings("seeds", base.seeds.len(), expected, help));
        }
        let request = |(index, candidate): (usize, Candidate)| {
            let index = index.min(needed - 1);
            candidate.request(&base.alone(index))
        };
        self.candidates().into_iter().enumerate().map(request).collect()
    }

    /// Returns the judged candidate with the highest expected value. `None` before the first score, or the first vote
    /// that prefers an image to another. The time is that of [`Self::propose`].
    #[must_use]
    pub fn best(&self) -> Option<Candidate> {
        self.search.best().map(|point| self.searched.candidate(point))
    }

    fn check_open(&self) -> Result<(), InvalidValue> {
        if self.open.is_empty() {
            let help = "call `SettingsSearch::propose` first";
            return Err(InvalidValue::new("round of a search", "none", "a round that was not judged yet", help));
        }
        Ok(())
    }
}

/// Checks that the images of a request may be made one at a time.
fn check_base(base: &Request) -> Result<(), Error> {
    base.validate()?;
    let conditioning = base.conditioning.iter().position(|one| one.images.is_some());
    let feedback = base.feedback.iter().position(|one| one.images.is_some());
    let (name, help) = match (conditioning, feedback) {
        (Some(index), _) => (format!("conditioning[{index}].images"), "add the conditioning with `Request::with`"),
        (None, Some(index)) => (format!("feedback[{index}].images"), "leave them out"),
        (None, None) => return Ok(()),
    };
    let expected = "all images, because each candidate is a request of its own";
    Err(Error::settings(name, "some of the images", expected, help))
}
