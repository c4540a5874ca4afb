//! Rounds of images and what a person thinks of them, as data: no network in sight.
//!
//! A session is a list of steps (a round was made, a vote was cast, the prompt was changed) and how many of them
//! are in force; everything else follows from these. So every step can be undone, and what is saved is what happened.

mod error;
mod folder;
mod history;
mod keep;
mod known_files;
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
use known_files::KnownFiles;
pub use round::Round;
pub use source::{BestAndWorst, FeedbackSource};
pub use vote::{Judged, Vote};

use crate::Error;
use crate::image::{ContentHash, Image, ImageError, Mark, contact_sheet};

/// Most pixels of all images of a session together: 2048 images of 512x512, 1.6 GB.
pub const MAX_SESSION_PIXELS: usize = 1 << 29;

/// A prompt, the images made for it round by round, and the votes on them.
///
/// ```
/// use fabric_core::image::Image;
/// use fabric_core::session::{FeedbackSession, KeepPolicy, Vote};
///
/// let mut session = FeedbackSession::new("a small red star on blue").with_seed(7);
/// let seeds = [session.next_seed(), session.next_seed()];
/// let images = [Image::filled(8, 8, [200, 0, 0])?, Image::filled(8, 8, [0, 0, 200])?];
/// let round = session.push_round(images.into_iter().zip(seeds).collect(), serde_json::json!({"steps": 20}))?;
///
/// session.like(&round[0])?;
/// session.vote(&round[1], Vote::dislike(0.5)?.because("too dark"))?;
/// let feedback = session.feedback(KeepPolicy::All);
/// assert_eq!(feedback.liked[0].image, round[0]);
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
    /// Every image that some step speaks of.
    images: BTreeMap<ContentHash, Image>,
    /// What the steps in force amount to.
    state: State,
    known_files: KnownFiles,
}

impl FeedbackSession {
    /// A session without rounds or votes. Its seed is random; see [`FeedbackSession::with_seed`].
    pub fn new(prompt: impl Into<String>) -> Self {
        let origin = State::new(prompt.into());
        // The standard library's own randomness: below 2^32, so that a person can write it down.
        let seed = RandomState::new().hash_one(0_u8) >> 32;
        let state = origin.clone();
        let (images, known_files) = (BTreeMap::new(), KnownFiles::default());
        Self { origin, seed, seeds_drawn: 0, steps: Vec::new(), done: 0, images, state, known_files }
    }

    /// The same session with this seed, from which the seeds of all images are drawn.
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

    /// The next image's seed, below 2^32 as in the published code.
    ///
    /// A session draws the same seeds in the same order wherever it runs and however often it was saved. Undoing
    /// a round does not give its seeds back: made again, it shows new images.
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

    /// Adds a round: images, each with the seed that made it, and a report on how (any JSON).
    ///
    /// # Errors
    ///
    /// [`SessionError::EmptyRound`] if there are no images, [`SessionError::Full`] if there are too many by now.
    pub fn push_round(&mut self, images: Vec<(Image, u64)>, report: Value) -> Result<Round, SessionError> {
        if images.is_empty() {
            return Err(SessionError::EmptyRound);
        }
        self.check_room(images.iter().map(|(image, _)| image), MAX_SESSION_PIXELS)?;
        let (hashes, seeds) = images.iter().map(|(image, seed)| (image.content_hash(), *seed)).unzip();
        self.images.extend(images.into_iter().map(|(image, _)| (image.content_hash(), image)));
        self.push(Step::Round { unix_ms: now(), images: hashes, seeds, report });
        Ok(self.state.rounds.last().expect("a round was just pushed").clone())
    }

    /// Likes an image in full, of a round or of one's own.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`] if it is a new image and there are too many by now.
    pub fn like(&mut self, image: &Image) -> Result<(), SessionError> {
        self.vote(image, Vote::LIKE)
    }

    /// Dislikes an image in full, of a round or of one's own.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`] if it is a new image and there are too many by now.
    pub fn dislike(&mut self, image: &Image) -> Result<(), SessionError> {
        self.vote(image, Vote::DISLIKE)
    }

    /// Votes on an image, of a round or of one's own.
    ///
    /// An image is its content: the same one has one vote, whichever file or round it came from. The same vote
    /// again changes nothing; another vote replaces the old one and is the most recent.
    ///
    /// # Errors
    ///
    /// [`SessionError::Full`] if it is a new image and there are too many by now.
    pub fn vote(&mut self, image: &Image, vote: Vote) -> Result<(), SessionError> {
        if self.vote_on(image) == Some(&vote) {
            return Ok(());
        }
        self.check_room([image], MAX_SESSION_PIXELS)?;
        let hash = image.content_hash();
        self.images.entry(hash).or_insert_with(|| image.clone());
        self.push(Step::Vote { unix_ms: now(), image: hash, vote: Some(vote) });
        Ok(())
    }

    /// Takes a vote back. Without one, nothing happens.
    pub fn neutral(&mut self, image: &Image) {
        if self.vote_on(image).is_some() {
            self.push(Step::Vote { unix_ms: now(), image: image.content_hash(), vote: None });
        }
    }

    /// The vote on an image.
    pub fn vote_on(&self, image: &Image) -> Option<&Vote> {
        let hash = image.content_hash();
        self.state.judged.iter().find(|judged| judged.image.content_hash() == hash).map(|judged| &judged.vote)
    }

    /// All votes, oldest first, neutral ones (strength 0) among them.
    pub fn votes(&self) -> &[Judged] {
        &self.state.judged
    }

    /// Liked images, oldest vote first.
    pub fn liked(&self) -> impl Iterator<Item = &Judged> {
        self.votes().iter().filter(|judged| judged.vote.strength() > 0.0)
    }

    /// Disliked images, oldest vote first.
    pub fn disliked(&self) -> impl Iterator<Item = &Judged> {
        self.votes().iter().filter(|judged| judged.vote.strength() < 0.0)
    }

    /// What the next round is to attend to: liked and disliked images, as many as the policy keeps.
    pub fn feedback(&self, keep: KeepPolicy) -> Feedback {
        keep.choose(self.votes())
    }

    /// Lets a source judge the last round, and casts its votes, all or none of them.
    ///
    /// Where it votes twice on one image, the later vote counts.
    ///
    /// # Errors
    ///
    /// [`SessionError::NoRound`], [`SessionError::NoSuchImage`], or what stops the source.
    pub fn judge_with(&mut self, source: &mut dyn FeedbackSource) -> Result<(), Error> {
        let round = self.rounds().last().ok_or(SessionError::NoRound)?.clone();
        let votes = source.judge(&round)?;
        if let Some(&(index, _)) = votes.iter().find(|(index, _)| *index >= round.len()) {
            return Err(SessionError::NoSuchImage { index, got: round.len() }.into());
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

    /// Undoes the last round in force, with every vote and change after it. False if there is no round.
    ///
    /// [`Self::redo`] brings the steps back one by one.
    pub fn undo_round(&mut self) -> bool {
        let round = self.steps[..self.done].iter().rposition(|step| matches!(step, Step::Round { .. }));
        if let Some(round) = round {
            self.done = round;
            self.replay();
        }
        round.is_some()
    }

    /// Number of steps in force: rounds, votes that changed something, changed prompts and settings. [`Self::undo`] takes
    /// one away.
    pub fn step_count(&self) -> usize {
        self.done
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

    /// All rounds on one sheet, a row each, liked images in green frames and disliked ones in red.
    ///
    /// # Errors
    ///
    /// [`ImageError::Size`] if there is no round, or too many for one sheet.
    pub fn contact_sheet(&self) -> Result<Image, ImageError> {
        let mark = |image| match self.vote_on(image).map(Vote::strength) {
            Some(strength) if strength > 0.0 => Mark::Liked,
            Some(strength) if strength < 0.0 => Mark::Disliked,
            _ => Mark::None,
        };
        let rows: Vec<Vec<_>> =
            self.rounds().iter().map(|round| round.images.iter().map(|image| (image, mark(image))).collect()).collect();
        contact_sheet(&rows, 8)
    }

    /// Does a new step; what was undone before can no longer be redone.
    fn push(&mut self, step: Step) {
        if self.done < self.steps.len() {
            self.steps.truncate(self.done);
            let (steps, new) = (&self.steps, &step);
            self.images.retain(|hash, _| steps.iter().chain([new]).any(|step| step.images().contains(hash)));
        }
        self.state.apply(&step, &self.images);
        self.steps.push(step);
        self.done = self.steps.len();
    }

    fn replay(&mut self) {
        self.state = self.origin.clone();
        for step in &self.steps[..self.done] {
            self.state.apply(step, &self.images);
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
        let got = pixels(self.images_in_force().values()).saturating_add(new);
        check_pixels(got, MAX_SESSION_PIXELS)
    }

    /// Whether these images still fit into the session.
    fn check_room<'a>(&self, new: impl IntoIterator<Item = &'a Image>, most: usize) -> Result<(), SessionError> {
        check_room(&self.images_in_force(), new, most)
    }

    /// Images that the steps in force speak of. Those of undone steps make room: the next step lets them go.
    fn images_in_force(&self) -> BTreeMap<ContentHash, Image> {
        let hashes = self.steps[..self.done].iter().flat_map(Step::images);
        hashes.map(|hash| (*hash, self.images[hash].clone())).collect()
    }
}

/// Counts each image once, however often it appears.
fn check_room<'a>(
    old: &BTreeMap<ContentHash, Image>,
    new: impl IntoIterator<Item = &'a Image>,
    most: usize,
) -> Result<(), SessionError> {
    let new: BTreeMap<ContentHash, &Image> = new
        .into_iter()
        .map(|image| (image.content_hash(), image))
        .filter(|(hash, _)| !old.contains_key(hash))
        .collect();
    check_pixels(pixels(old.values().chain(new.into_values())), most)
}

fn pixels<'a>(images: impl Iterator<Item = &'a Image>) -> usize {
    images.map(|image| image.width() * image.height()).sum()
}

fn check_pixels(got: usize, most: usize) -> Result<(), SessionError> {
    if got <= most { Ok(()) } else { Err(SessionError::Full { got, expected: most }) }
}

/// Milliseconds since 1970; 0 for a clock that stands before.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
