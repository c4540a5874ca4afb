//! Rounds of pictures and what a person thinks of them, as data: no network in sight.
//!
//! A session is a list of steps (a round was made, a vote was cast, the prompt was changed) and how many of them
//! are in force; everything else follows from these. So every step can be undone, and what is saved is what happened.

mod error;
mod folder;
mod history;
mod keep;
mod round;
mod source;
#[cfg(test)]
mod tests;
mod vote;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

pub use error::SessionError;
use history::{State, Step};
pub use keep::{Feedback, KeepPolicy};
pub use round::Round;
pub use source::{BestAndWorst, FeedbackSource};
pub use vote::{Judged, Vote};

use crate::Error;
use crate::picture::{ContentHash, Mark, Picture, PictureError, contact_sheet};

/// Most pixels of all pictures of a session together: 2048 pictures of 512x512, 1.6 GB.
pub const MAX_SESSION_PIXELS: usize = 1 << 29;

/// A prompt, the pictures made for it round by round, and the votes on them.
///
/// ```
/// use fabric_core::picture::Picture;
/// use fabric_core::session::{FeedbackSession, KeepPolicy, Vote};
///
/// let mut session = FeedbackSession::new("a small red star on blue").with_seed(7);
/// let seeds = [session.next_seed(), session.next_seed()];
/// let pictures = [Picture::filled(8, 8, [200, 0, 0])?, Picture::filled(8, 8, [0, 0, 200])?];
/// let round = session.push_round(pictures.into_iter().zip(seeds).collect(), serde_json::json!({"steps": 20}))?;
///
/// session.like(&round[0])?;
/// session.vote(&round[1], Vote::dislike(0.5)?.because("too dark"))?;
/// let feedback = session.feedback(KeepPolicy::All);
/// assert_eq!(feedback.liked[0].picture, round[0]);
/// assert_eq!(feedback.disliked[0].vote.strength(), -0.5);
///
/// session.undo();
/// assert_eq!(session.disliked().count(), 0);
/// # Ok::<(), fabric_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct FeedbackSession {
    /// What a session begins with, before any step.
    origin: State,
    seed: u64,
    seeds_drawn: u64,
    steps: Vec<Step>,
    /// Steps in force; those after it were undone.
    done: usize,
    /// Every picture that some step speaks of.
    pictures: BTreeMap<ContentHash, Picture>,
    /// What the steps in force amount to.
    state: State,
}

impl FeedbackSession {
    /// A session without rounds or votes. Its seed is random; see [`FeedbackSession::with_seed`].
    pub fn new(prompt: impl Into<String>) -> Self {
        let origin = State::new(prompt.into());
        // The standard library's own randomness: below 2^32, so that a person can write it down.
        let seed = RandomState::new().hash_one(0_u8) >> 32;
        let state = origin.clone();
        Self { origin, seed, seeds_drawn: 0, steps: Vec::new(), done: 0, pictures: BTreeMap::new(), state }
    }

    /// The same session with this seed, from which the seeds of all pictures are drawn.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        (self.seed, self.seeds_drawn) = (seed, 0);
        self
    }

    /// The same session, beginning with this negative prompt.
    #[must_use]
    pub fn with_negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.origin.negative_prompt = negative_prompt.into();
        self.replay();
        self
    }

    /// The same session, beginning with these generation settings, which it keeps without looking into them.
    #[must_use]
    pub fn with_settings(mut self, settings: Value) -> Self {
        self.origin.settings = settings;
        self.replay();
        self
    }

    /// What to draw.
    pub fn prompt(&self) -> &str {
        &self.state.prompt
    }

    /// What not to draw.
    pub fn negative_prompt(&self) -> &str {
        &self.state.negative_prompt
    }

    /// Generation settings; null if none were given.
    pub fn settings(&self) -> &Value {
        &self.state.settings
    }

    /// Changes the prompt for the rounds to come.
    pub fn set_prompt(&mut self, prompt: impl Into<String>) {
        let prompt = prompt.into();
        if prompt != self.state.prompt {
            self.push(Step::Prompt { prompt });
        }
    }

    /// Changes the negative prompt for the rounds to come.
    pub fn set_negative_prompt(&mut self, negative_prompt: impl Into<String>) {
        let negative_prompt = negative_prompt.into();
        if negative_prompt != self.state.negative_prompt {
            self.push(Step::NegativePrompt { negative_prompt });
        }
    }

    /// Changes the generation settings for the rounds to come.
    pub fn set_settings(&mut self, settings: Value) {
        if settings != self.state.settings {
            self.push(Step::Settings { settings });
        }
    }

    /// The seed of the session.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next picture's seed, below 2^32 as in the published code.
    ///
    /// A session draws the same seeds in the same order wherever it runs and however often it was saved. Undoing
    /// a round does not give its seeds back: made again, it shows new pictures.
    pub fn next_seed(&mut self) -> u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_word_pos(u128::from(self.seeds_drawn));
        self.seeds_drawn += 1;
        u64::from(rng.next_u32())
    }

    /// All rounds, oldest first.
    pub fn rounds(&self) -> &[Round] {
        &self.state.rounds
    }

    /// Adds a round: pictures, each with the seed that made it, and a report on how (any JSON).
    ///
    /// # Errors
    ///
    /// [`SessionError::EmptyRound`] if there are no pictures, [`SessionError::Full`] if there are too many by now.
    pub fn push_round(&mut self, pictures: Vec<(Picture, u64)>, report: Value) -> Result<Round, SessionError> {
        if pictures.is_empty() {
            return Err(SessionError::EmptyRound);
        }
        self.check_room(pictures.iter().map(|(picture, _)| picture), MAX_SESSION_PIXELS)?;
        let (hashes, seeds) = pictures.iter().map(|(picture, seed)| (picture.content_hash(), *seed)).unzip();
        self.pictures.extend(pictures.into_iter().map(|(picture, _)| (picture.content_hash(), picture)));
        self.push(Step::Round { unix_ms: now(), pictures: hashes, seeds, report });
        Ok(self.state.rounds.last().expect("a round was just pushed").clone())
    }

    /// Likes a picture in full, of a round or of one's own.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`] if it is a new picture and there are too many by now.
    pub fn like(&mut self, picture: &Picture) -> Result<(), SessionError> {
        self.vote(picture, Vote::LIKE)
    }

    /// Dislikes a picture in full, of a round or of one's own.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`] if it is a new picture and there are too many by now.
    pub fn dislike(&mut self, picture: &Picture) -> Result<(), SessionError> {
        self.vote(picture, Vote::DISLIKE)
    }

    /// Votes on a picture, of a round or of one's own.
    ///
    /// A picture is its content: the same one has one vote, whichever file or round it came from. The same vote
    /// again changes nothing; another vote replaces the old one and is the most recent.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`] if it is a new picture and there are too many by now.
    pub fn vote(&mut self, picture: &Picture, vote: Vote) -> Result<(), SessionError> {
        if self.vote_on(picture) == Some(&vote) {
            return Ok(());
        }
        self.check_room([picture], MAX_SESSION_PIXELS)?;
        let hash = picture.content_hash();
        self.pictures.entry(hash).or_insert_with(|| picture.clone());
        self.push(Step::Vote { unix_ms: now(), picture: hash, vote: Some(vote) });
        Ok(())
    }

    /// Takes a vote back. Without one, nothing happens.
    pub fn neutral(&mut self, picture: &Picture) {
        if self.vote_on(picture).is_some() {
            self.push(Step::Vote { unix_ms: now(), picture: picture.content_hash(), vote: None });
        }
    }

    /// The vote on a picture.
    pub fn vote_on(&self, picture: &Picture) -> Option<&Vote> {
        let hash = picture.content_hash();
        self.state.judged.iter().find(|judged| judged.picture.content_hash() == hash).map(|judged| &judged.vote)
    }

    /// All votes, oldest first, neutral ones (strength 0) among them.
    pub fn votes(&self) -> &[Judged] {
        &self.state.judged
    }

    /// Liked pictures, oldest vote first.
    pub fn liked(&self) -> impl Iterator<Item = &Judged> {
        self.votes().iter().filter(|judged| judged.vote.strength() > 0.0)
    }

    /// Disliked pictures, oldest vote first.
    pub fn disliked(&self) -> impl Iterator<Item = &Judged> {
        self.votes().iter().filter(|judged| judged.vote.strength() < 0.0)
    }

    /// What the next round is to attend to: liked and disliked pictures, as many as the policy keeps.
    pub fn feedback(&self, keep: KeepPolicy) -> Feedback {
        keep.choose(self.votes())
    }

    /// Lets a source judge the last round, and casts its votes, all or none of them.
    ///
    /// Where it votes twice on one picture, the later vote counts.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoRound`], [`SessionError::NoSuchPicture`], or what stops the source.
    pub fn judge_with(&mut self, source: &mut dyn FeedbackSource) -> Result<(), Error> {
        let round = self.rounds().last().ok_or(SessionError::NoRound)?.clone();
        let votes = source.judge(&round)?;
        if let Some(&(index, _)) = votes.iter().find(|(index, _)| *index >= round.len()) {
            return Err(SessionError::NoSuchPicture { index, found: round.len() }.into());
        }
        for (index, vote) in votes {
            self.vote(&round[index], vote)?;
        }
        Ok(())
    }

    /// Undoes the last step in force: a round, a vote, a changed prompt or setting. False if there is none.
    pub fn undo(&mut self) -> bool {
        let undone = self.done > 0;
        if undone {
            self.done -= 1;
            self.replay();
        }
        undone
    }

    /// Does again what was undone last. False if nothing was, or if something else was done since.
    pub fn redo(&mut self) -> bool {
        let redone = self.done < self.steps.len();
        if redone {
            self.done += 1;
            self.replay();
        }
        redone
    }

    /// All rounds on one sheet, a row each, liked pictures in green frames and disliked ones in red.
    ///
    /// # Errors
    ///
    /// [`PictureError::Size`] if there is no round, or too many for one sheet.
    pub fn contact_sheet(&self) -> Result<Picture, PictureError> {
        let mark = |picture| match self.vote_on(picture).map(Vote::strength) {
            Some(strength) if strength > 0.0 => Mark::Liked,
            Some(strength) if strength < 0.0 => Mark::Disliked,
            _ => Mark::None,
        };
        let rows: Vec<Vec<_>> = self
            .rounds()
            .iter()
            .map(|round| round.pictures.iter().map(|picture| (picture, mark(picture))).collect())
            .collect();
        contact_sheet(&rows, 8)
    }

    /// Does a new step; what was undone before can no longer be redone.
    fn push(&mut self, step: Step) {
        if self.done < self.steps.len() {
            self.steps.truncate(self.done);
            let (steps, new) = (&self.steps, &step);
            self.pictures.retain(|hash, _| steps.iter().chain([new]).any(|step| step.pictures().contains(hash)));
        }
        self.state.apply(&step, &self.pictures);
        self.steps.push(step);
        self.done = self.steps.len();
    }

    fn replay(&mut self) {
        self.state = self.origin.clone();
        for step in &self.steps[..self.done] {
            self.state.apply(step, &self.pictures);
        }
    }

    /// Checks that a round of `count` new images of this size still fits into the session: before they are made, so that
    /// none is made in vain.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`] if it does not.
    pub fn check_room_for(&self, count: usize, width: usize, height: usize) -> Result<(), SessionError> {
        let new = width.saturating_mul(height).saturating_mul(count);
        let found = pixels(self.pictures_in_force().values()).saturating_add(new);
        check_pixels(found, MAX_SESSION_PIXELS)
    }

    /// Whether these pictures still fit into the session.
    fn check_room<'a>(&self, new: impl IntoIterator<Item = &'a Picture>, most: usize) -> Result<(), SessionError> {
        check_room(&self.pictures_in_force(), new, most)
    }

    /// Pictures that the steps in force speak of. Those of undone steps make room: the next step lets them go.
    fn pictures_in_force(&self) -> BTreeMap<ContentHash, Picture> {
        let hashes = self.steps[..self.done].iter().flat_map(Step::pictures);
        hashes.map(|hash| (*hash, self.pictures[hash].clone())).collect()
    }
}

/// Counts each picture once, however often it appears.
fn check_room<'a>(
    old: &BTreeMap<ContentHash, Picture>,
    new: impl IntoIterator<Item = &'a Picture>,
    most: usize,
) -> Result<(), SessionError> {
    let new: BTreeMap<ContentHash, &Picture> = new
        .into_iter()
        .map(|picture| (picture.content_hash(), picture))
        .filter(|(hash, _)| !old.contains_key(hash))
        .collect();
    check_pixels(pixels(old.values().chain(new.into_values())), most)
}

fn pixels<'a>(pictures: impl Iterator<Item = &'a Picture>) -> usize {
    pictures.map(|picture| picture.width() * picture.height()).sum()
}

fn check_pixels(found: usize, most: usize) -> Result<(), SessionError> {
    if found <= most { Ok(()) } else { Err(SessionError::Full { found, wanted: most }) }
}

/// Milliseconds since 1970; 0 for a clock that stands before.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
