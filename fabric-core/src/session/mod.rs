//! Feedback sessions: rounds of images and the votes on them. No networks are involved.
//!
//! A session stores a list of steps (a round was added, a vote was cast, the prompt was changed) and how many of them
//! are in effect; its state is derived from these. Every step can therefore be undone, and a saved session has its
//! full history.

mod error;
mod feedback;
mod folder;
mod history;
mod known_files;
mod limits;
mod replayed_votes;
mod round;
mod source;
#[cfg(test)]
mod tests;
mod undo;
mod vote;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

pub use error::SessionError;
pub use feedback::Feedback;
use history::{State, Step, StoredCondition, StoredInitImage};
use known_files::KnownFiles;
use limits::check_texts;
use replayed_votes::ReplayedVotes;
pub use round::Round;
pub use source::{BestAndWorst, FeedbackSource};
pub use vote::{CastVote, Judged, Vote};

use crate::InitImage;
use crate::fabric::KeepPolicy;
use crate::image::{ContentHash, Image, ImageError, Mark, contact_sheet};
use crate::{Error, ImageCondition};

/// Maximum number of pixels in all images of a session: 2048 images of 512x512, 1.6 GB.
pub const MAX_SESSION_PIXELS: usize = 1 << 29;

/// Prompts, settings and images that a round was made with.
#[derive(Debug)]
pub(crate) struct MadeWith {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    pub(crate) settings: Value,
    pub(crate) image_conditions: Vec<ImageCondition>,
    pub(crate) init_image: Option<InitImage>,
}

/// Undone steps that a new step discarded, and the images that only they refer to.
#[derive(Debug, Default)]
struct Undone {
    steps: Vec<Step>,
    images: BTreeMap<ContentHash, Image>,
}

/// Feedback session: a prompt, rounds of images generated for it, and votes on the images.
///
/// ```
/// use fabric_core::image::Image;
/// use fabric_core::fabric::KeepPolicy;
/// use fabric_core::session::{FeedbackSession, Vote};
///
/// let mut session = FeedbackSession::new("a small red star on blue").with_seed(7);
/// let seeds = [session.next_seed(), session.next_seed()];
/// let images = [Image::filled(8, 8, [200, 0, 0])?, Image::filled(8, 8, [0, 0, 200])?];
/// let round = session.push_round(images.into_iter().zip(seeds).collect(), serde_json::json!({"steps": 20}))?;
///
/// session.like(&round[0])?;
/// session.vote(&round[1], Vote::dislike(0.5)?)?;
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
    /// State before any step.
    origin: State,
    seed: u64,
    seeds_drawn: u64,
    steps: Vec<Step>,
    /// Number of steps in effect; later ones were undone.
    done: usize,
    /// All images that steps refer to, including undone steps.
    images: BTreeMap<ContentHash, Image>,
    /// State after the steps in effect.
    state: State,
    known_files: KnownFiles,
}

impl FeedbackSession {
    /// Creates a session without rounds or votes. Its seed is random; see [`FeedbackSession::with_seed`].
    pub fn new(prompt: impl Into<String>) -> Self {
        let origin = State::new(prompt.into());
        // Randomness of the standard library's hasher; below 2^32 so that the seed is short enough to write down.
        let seed = RandomState::new().hash_one(0_u8) >> 32;
        let state = origin.clone();
        let (images, known_files) = (BTreeMap::new(), KnownFiles::default());
        Self { origin, seed, seeds_drawn: 0, steps: Vec::new(), done: 0, images, state, known_files }
    }

    /// Sets the seed from which the seeds of all images are drawn.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        (self.seed, self.seeds_drawn) = (seed, 0);
        self
    }

    /// Sets the initial negative prompt.
    #[must_use]
    pub fn with_negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.origin.negative_prompt = negative_prompt.into();
        self.replay();
        self
    }

    /// Sets the initial generation settings. They are stored as given and not validated.
    #[must_use]
    pub fn with_settings(mut self, settings: Value) -> Self {
        self.origin.settings = settings;
        self.replay();
        self
    }

    /// The current prompt.
    pub fn prompt(&self) -> &str {
        &self.state.prompt
    }

    /// The current negative prompt; may be empty.
    pub fn negative_prompt(&self) -> &str {
        &self.state.negative_prompt
    }

    /// The current generation settings; null if none were given.
    pub fn settings(&self) -> &Value {
        &self.state.settings
    }

    /// Changes the prompt for subsequent rounds.
    pub fn set_prompt(&mut self, prompt: impl Into<String>) {
        let prompt = prompt.into();
        if prompt != self.state.prompt {
            self.push(Step::Prompt { prompt });
        }
    }

    /// Changes the negative prompt for subsequent rounds.
    pub fn set_negative_prompt(&mut self, negative_prompt: impl Into<String>) {
        let negative_prompt = negative_prompt.into();
        if negative_prompt != self.state.negative_prompt {
            self.push(Step::NegativePrompt { negative_prompt });
        }
    }

    /// Changes the generation settings for subsequent rounds.
    pub fn set_settings(&mut self, settings: Value) {
        if settings != self.state.settings {
            self.push(Step::Settings { settings });
        }
    }

    /// Gives a session without settings these: as its initial ones if nothing was done yet, else in a step.
    pub(crate) fn adopt_settings(&mut self, settings: impl FnOnce() -> Value) {
        if !self.settings().is_null() {
            return;
        }
        if self.steps.is_empty() {
            self.origin.settings = settings();
            self.replay();
        } else {
            self.set_settings(settings());
        }
    }

    /// The seed of the session.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Draws the seed of the next image, below 2^32 as in the published code.
    ///
    /// The sequence of seeds depends only on the session's seed, not on the platform or on saving and loading.
    /// Undoing a round does not return its seeds: a repeated round has new images.
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

    /// Adds a round of images that were not generated, for instance from a folder, with a note on their source (any
    /// JSON). They can be voted on like others.
    ///
    /// # Errors
    ///
    /// Same as [`Self::push_round`].
    pub fn push_candidates(&mut self, images: Vec<Image>, source: Value) -> Result<Round, SessionError> {
        let made_with = MadeWith {
            prompt: self.prompt().to_owned(),
            negative_prompt: self.negative_prompt().to_owned(),
            settings: Value::Null,
            image_conditions: Vec::new(),
            init_image: None,
        };
        self.push_round_made_with(images, Vec::new(), made_with, source)
    }

    /// Adds a round of images with their seeds and a report on the run (any JSON).
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::EmptyRound`] if there are no images, [`SessionError::Condition`] if a prompt or the
    /// settings are too long for a saved session, and [`SessionError::Full`] if the session would have more than
    /// [`MAX_SESSION_PIXELS`].
    pub fn push_round(&mut self, images: Vec<(Image, u64)>, report: Value) -> Result<Round, SessionError> {
        let made_with = MadeWith {
            prompt: self.prompt().to_owned(),
            negative_prompt: self.negative_prompt().to_owned(),
            settings: self.settings().clone(),
            image_conditions: self.image_conditions().to_vec(),
            init_image: self.init_image().cloned(),
        };
        let (images, seeds) = images.into_iter().unzip();
        self.push_round_made_with(images, seeds, made_with, report)
    }

    /// Adds a round of images that were made with these values, which may differ from those of the session now.
    pub(crate) fn push_round_made_with(
        &mut self,
        images: Vec<Image>,
        seeds: Vec<u64>,
        made_with: MadeWith,
        report: Value,
    ) -> Result<Round, SessionError> {
        if images.is_empty() {
            return Err(SessionError::EmptyRound);
        }
        let MadeWith { prompt, negative_prompt, settings, image_conditions, init_image } = made_with;
        check_texts(&prompt, &negative_prompt, &settings)?;
        let conditions = image_conditions.iter().map(|one| &one.image);
        let start = init_image.iter().flat_map(|init| [Some(&init.image), init.mask.as_ref()]).flatten();
        self.add_images(images.iter().chain(conditions).chain(start))?;
        self.push(Step::Round {
            unix_ms: now(),
            prompt,
            negative_prompt,
            settings,
            image_conditions: image_conditions.iter().map(StoredCondition::new).collect(),
            init_image: init_image.as_ref().map(StoredInitImage::new),
            images: images.iter().map(Image::content_hash).collect(),
            seeds,
            report,
        });
        Ok(self.state.rounds.last().expect("a round was just pushed").clone())
    }

    /// Likes an image with strength 1. It may be from a round or from elsewhere. The result takes a reason
    /// ([`CastVote::because`]).
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Full`] if the image is new and the session would have more than
    /// [`MAX_SESSION_PIXELS`].
    pub fn like(&mut self, image: &Image) -> Result<CastVote<'_>, SessionError> {
        self.vote(image, Vote::LIKE)
    }

    /// Dislikes an image with strength 1. It may be from a round or from elsewhere. The result takes a reason
    /// ([`CastVote::because`]).
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Full`] if the image is new and the session would have more than
    /// [`MAX_SESSION_PIXELS`].
    pub fn dislike(&mut self, image: &Image) -> Result<CastVote<'_>, SessionError> {
        self.vote(image, Vote::DISLIKE)
    }

    /// Votes on an image. It may be from a round or from elsewhere.
    ///
    /// Images are identified by content: a vote is on all equal images, whichever file or round they came from.
    ///
    /// An image can have several votes with different reasons. A vote without a reason replaces all votes on the image;
    /// a vote with a reason replaces the one with the same reason, also of the other direction, and one without a reason
    /// of the same direction. The new vote becomes the most recent. Repeating a vote changes nothing.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Condition`] if the words of the reason are empty or too long, and [`SessionError::Full`] if
    /// the image is new and the session would have more than [`MAX_SESSION_PIXELS`].
    pub fn vote(&mut self, image: &Image, vote: Vote) -> Result<CastVote<'_>, SessionError> {
        if let Some(reason) = vote.reason() {
            reason.validate()?;
        }
        // Repeated if the only vote that it would replace is the same one.
        let replaced: Vec<&Vote> = self.votes_on(image).filter(|old| vote.replaces(old)).collect();
        let is_step = replaced != [&vote];
        let mut discarded = None;
        if is_step {
            self.check_room([image], MAX_SESSION_PIXELS)?;
            let hash = image.content_hash();
            self.images.entry(hash).or_insert_with(|| image.clone());
            discarded = Some(self.push(Step::Vote { unix_ms: now(), image: hash, vote: Some(vote.clone()) }));
        }
        Ok(CastVote { session: self, image: image.clone(), vote, discarded })
    }

    /// Removes the last step as if it had never been made, and restores the undone steps that it discarded.
    fn take_back_step(&mut self, discarded: Undone) {
        self.steps.pop();
        self.done = self.steps.len();
        self.steps.extend(discarded.steps);
        self.images.extend(discarded.images);
        self.replay();
    }

    /// The images that steer all rounds, besides votes.
    pub fn image_conditions(&self) -> &[ImageCondition] {
        &self.state.image_conditions
    }

    /// Adds an image that steers all later rounds, through the adapter of the pipeline.
    ///
    /// # Errors
    ///
    /// Same as [`Self::set_image_conditions`].
    pub fn add_image_condition(&mut self, condition: ImageCondition) -> Result<(), SessionError> {
        let mut conditions = self.image_conditions().to_vec();
        conditions.push(condition);
        self.set_image_conditions(conditions)
    }

    /// Replaces the images that steer all later rounds.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Condition`] if a scale or an aspect cannot be used, and [`SessionError::Full`] if the session
    /// would have more than [`MAX_SESSION_PIXELS`].
    pub fn set_image_conditions(&mut self, conditions: Vec<ImageCondition>) -> Result<(), SessionError> {
        for one in &conditions {
            one.validate()?;
        }
        if conditions != self.image_conditions() {
            self.add_images(conditions.iter().map(|one| &one.image))?;
            self.push(Step::ImageConditions { conditions: conditions.iter().map(StoredCondition::new).collect() });
        }
        Ok(())
    }

    /// The image that rounds start from, if any.
    pub fn init_image(&self) -> Option<&InitImage> {
        self.state.init_image.as_ref()
    }

    /// Sets or removes the image that later rounds start from.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Condition`] if the strength is not a number from 0 to 1, and [`SessionError::Full`] if the
    /// session would have more than [`MAX_SESSION_PIXELS`].
    pub fn set_init_image(&mut self, init_image: Option<InitImage>) -> Result<(), SessionError> {
        if let Some(init) = &init_image {
            init.validate()?;
            self.add_images([&init.image].into_iter().chain(&init.mask))?;
        }
        if init_image.as_ref() != self.init_image() {
            self.push(Step::InitImage { init_image: init_image.as_ref().map(StoredInitImage::new) });
        }
        Ok(())
    }

    /// Adds images for the next step, if there is room.
    fn add_images<'a>(&mut self, images: impl Iterator<Item = &'a Image> + Clone) -> Result<(), SessionError> {
        self.check_room(images.clone(), MAX_SESSION_PIXELS)?;
        for image in images {
            self.images.entry(image.content_hash()).or_insert_with(|| image.clone());
        }
        Ok(())
    }

    /// Removes all votes on an image, if there are any.
    pub fn neutral(&mut self, image: &Image) {
        if self.votes_on(image).next().is_some() {
            self.push(Step::Vote { unix_ms: now(), image: image.content_hash(), vote: None });
        }
    }

    /// Returns the votes on an image, oldest first: at most one without a reason, and at most one for each reason.
    pub fn votes_on(&self, image: &Image) -> impl Iterator<Item = &Vote> + use<'_> {
        let hash = image.content_hash();
        self.votes().iter().filter(move |judged| judged.image.content_hash() == hash).map(|judged| &judged.vote)
    }

    /// All votes, oldest first, including neutral ones (strength 0).
    pub fn votes(&self) -> &[Judged] {
        &self.state.judged
    }

    /// Liked images, oldest vote first. An image appears once for each reason.
    pub fn liked(&self) -> impl Iterator<Item = &Judged> {
        self.votes().iter().filter(|judged| judged.vote.strength() > 0.0)
    }

    /// Disliked images, oldest vote first. An image appears once for each reason.
    pub fn disliked(&self) -> impl Iterator<Item = &Judged> {
        self.votes().iter().filter(|judged| judged.vote.strength() < 0.0)
    }

    /// Returns the images of votes without a reason, as selected by `keep`. They are references of the next round, besides
    /// those that [`Settings::reasons`](crate::pipeline::Settings::reasons) may add for votes with a reason.
    pub fn feedback(&self, keep: KeepPolicy) -> Feedback {
        Feedback::select(self.votes(), keep)
    }

    /// Judges the last round with `source` and casts its votes. If a vote is invalid, none is cast.
    ///
    /// If the source votes twice on an image, the later vote replaces the earlier one as in [`Self::vote`].
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::NoRound`] if there is no round, [`SessionError::NoSuchImage`] if a vote is on an image
    /// that is not in the round, and any error of the source.
    pub fn judge_with(&mut self, source: &mut dyn FeedbackSource) -> Result<(), Error> {
        let round = self.rounds().last().ok_or(SessionError::NoRound)?.clone();
        let votes = source.judge(&round)?;
        if let Some(&(index, _)) = votes.iter().find(|(index, _)| *index >= round.len()) {
            return Err(SessionError::NoSuchImage { index, got: round.len() }.into());
        }
        for reason in votes.iter().filter_map(|(_, vote)| vote.reason()) {
            reason.validate()?;
        }
        for (index, vote) in votes {
            self.vote(&round[index], vote)?;
        }
        Ok(())
    }

    /// Replaces the report of the round that was just added, for programs that record more than the run reports. This is
    /// no step of its own. Returns false, and changes nothing, if the last step in effect is not a round.
    pub fn set_report(&mut self, report: Value) -> bool {
        let last = self.done.checked_sub(1).and_then(|index| self.steps.get_mut(index));
        let (Some(Step::Round { report: stored, .. }), Some(round)) = (last, self.state.rounds.last_mut()) else {
            return false;
        };
        stored.clone_from(&report);
        round.report = report;
        true
    }

    /// Returns a contact sheet with one row per round, liked images framed in green and disliked ones in red. Of several
    /// votes on an image the sum of the strengths decides.
    ///
    /// # Errors
    ///
    /// Returns [`ImageError::Size`] if there is no round, or the sheet would be too large.
    pub fn contact_sheet(&self) -> Result<Image, ImageError> {
        let mark = |image| match self.votes_on(image).map(Vote::strength).sum::<f64>() {
            strength if strength > 0.0 => Mark::Liked,
            strength if strength < 0.0 => Mark::Disliked,
            _ => Mark::None,
        };
        let rows: Vec<Vec<_>> =
            self.rounds().iter().map(|round| round.images.iter().map(|image| (image, mark(image))).collect()).collect();
        contact_sheet(&rows, 8)
    }

    /// Makes a new step, and discards undone ones with the images that no other step refers to.
    fn push(&mut self, step: Step) -> Undone {
        let mut discarded = Undone::default();
        if self.done < self.steps.len() {
            discarded.steps = self.steps.split_off(self.done);
            let (steps, new) = (&self.steps, &step);
            let used: BTreeSet<ContentHash> = steps.iter().chain([new]).flat_map(Step::images).collect();
            let (kept, unused) =
                std::mem::take(&mut self.images).into_iter().partition(|(hash, _)| used.contains(hash));
            (self.images, discarded.images) = (kept, unused);
        }
        self.state.apply(&step, &self.images);
        self.steps.push(step);
        self.done = self.steps.len();
        discarded
    }

    fn replay(&mut self) {
        self.state = self.origin.clone();
        let mut votes = ReplayedVotes::default();
        for step in &self.steps[..self.done] {
            match step {
                Step::Vote { image, vote, .. } => votes.cast(&self.images[image], vote.as_ref()),
                other => self.state.apply(other, &self.images),
            }
        }
        self.state.judged = votes.into_judged();
    }

    /// Checks that the prompts and the settings are not too long for a round, and so for a saved session.
    pub(crate) fn check_texts(&self) -> Result<(), SessionError> {
        Ok(check_texts(self.prompt(), self.negative_prompt(), self.settings())?)
    }

    /// Checks that a round of `count` new images of this size fits into the session. Call it before generating
    /// images that could not be added.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Full`] if the round does not fit.
    pub fn check_room_for(&self, count: usize, width: usize, height: usize) -> Result<(), SessionError> {
        let new = width.saturating_mul(height).saturating_mul(count);
        let got = pixels(self.images_in_force().values()).saturating_add(new);
        check_pixels(got, MAX_SESSION_PIXELS)
    }

    /// Checks that these images fit into the session.
    fn check_room<'a>(&self, new: impl IntoIterator<Item = &'a Image>, most: usize) -> Result<(), SessionError> {
        check_room(&self.images_in_force(), new, most)
    }

    /// Images that the steps in effect refer to. Images of undone steps do not count: the next step discards them.
    fn images_in_force(&self) -> BTreeMap<ContentHash, Image> {
        let hashes = self.steps[..self.done].iter().flat_map(Step::images);
        hashes.map(|hash| (hash, self.images[&hash].clone())).collect()
    }
}

/// Checks the total number of pixels; each image counts once, however often it appears.
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

/// Milliseconds since 1970; 0 if the clock is set to an earlier time.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
