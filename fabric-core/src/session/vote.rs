//! Votes on images.

use serde::{Deserialize, Serialize};

use super::{FeedbackSession, SessionError, Undone};
use crate::Aspect;
use crate::image::Image;

/// A like or dislike with a strength and an optional reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Vote {
    strength: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Aspect>,
}

/// Vote as deserialized, before its strength is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    strength: f64,
    reason: Option<Aspect>,
}

impl Vote {
    /// A like of strength 1.
    pub const LIKE: Self = Self { strength: 1.0, reason: None };

    /// A dislike of strength 1.
    pub const DISLIKE: Self = Self { strength: -1.0, reason: None };

    /// Creates a vote with a strength from -1 (dislike) to 1 (like); 0 is neutral.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Strength`] if the strength is out of range or NaN.
    pub fn new(strength: f64) -> Result<Self, SessionError> {
        if !(-1.0..=1.0).contains(&strength) {
            return Err(SessionError::Strength { got: strength, lowest: -1 });
        }
        // Adding 0 turns -0 into 0.
        Ok(Self { strength: strength + 0.0, reason: None })
    }

    /// Creates a like with a strength from 0 to 1.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Strength`] if the strength is out of range or NaN.
    pub fn like(strength: f64) -> Result<Self, SessionError> {
        if (0.0..=1.0).contains(&strength) {
            Self::new(strength)
        } else {
            Err(SessionError::Strength { got: strength, lowest: 0 })
        }
    }

    /// Creates a dislike with a strength from 0 to 1.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Strength`] if the strength is out of range or NaN.
    pub fn dislike(strength: f64) -> Result<Self, SessionError> {
        Self::like(strength).and_then(|like| Self::new(-like.strength))
    }

    /// Sets a reason: the aspect of the image that the vote is about.
    #[must_use]
    pub fn because(self, reason: impl Into<Aspect>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    /// The strength, from -1 (dislike) to 1 (like).
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// The reason, if one was given.
    pub fn reason(&self) -> Option<&Aspect> {
        self.reason.as_ref()
    }

    /// Whether a new vote on an image replaces an old one on the same image.
    ///
    /// A vote without a reason is about the whole image and replaces all others. A vote with a reason replaces the one
    /// with the same reason, and refines one without a reason and of the same direction.
    pub(super) fn replaces(&self, old: &Self) -> bool {
        let same_direction =
            old.strength == 0.0 || (self.strength != 0.0 && (self.strength > 0.0) == (old.strength > 0.0));
        match (&self.reason, &old.reason) {
            (None, _) => true,
            (Some(_), None) => same_direction,
            (Some(reason), Some(other)) => reason == other,
        }
    }
}

impl TryFrom<Unchecked> for Vote {
    type Error = SessionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, SessionError> {
        Ok(Self { reason: unchecked.reason, ..Self::new(unchecked.strength)? })
    }
}

/// An image and the vote on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The image.
    pub image: Image,
    /// The current vote.
    pub vote: Vote,
}

/// A vote that was just cast, for adding its reason.
#[derive(Debug)]
pub struct CastVote<'a> {
    pub(super) session: &'a mut FeedbackSession,
    pub(super) image: Image,
    pub(super) vote: Vote,
    /// Steps that casting the vote discarded; `None` if it was a repetition and no step.
    pub(super) discarded: Option<Undone>,
}

impl CastVote<'_> {
    /// Adds the reason of the vote: an [`Aspect`], or words such as "the style". Vote and reason are one step of the
    /// session, for undo.
    ///
    /// The other votes on the image with other reasons stay, as does a vote of the other direction without a reason: an
    /// image can be liked for its style and disliked for its background.
    ///
    /// # Errors
    ///
    /// Returns [`SessionError::Condition`] if the words are empty or too long. The vote then stays as it was cast, without
    /// a reason, and has replaced all others on the image.
    pub fn because(self, reason: impl Into<Aspect>) -> Result<(), SessionError> {
        let Self { session, image, vote, discarded } = self;
        let vote = vote.because(reason);
        vote.reason.as_ref().map_or(Ok(()), Aspect::validate)?;
        if let Some(undone) = discarded {
            session.take_back_step(undone);
        }
        session.vote(&image, vote).map(|_| ())
    }
}
