//! What somebody thinks of an image.

use serde::{Deserialize, Serialize};

use super::SessionError;
use crate::image::Image;

/// A like or a dislike, with a strength and perhaps a reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Vote {
    strength: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A vote as a file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    strength: f64,
    reason: Option<String>,
}

impl Vote {
    /// A like in full.
    pub const LIKE: Self = Self { strength: 1.0, reason: None };

    /// A dislike in full.
    pub const DISLIKE: Self = Self { strength: -1.0, reason: None };

    /// A vote from -1 (dislike in full) to 1 (like in full); 0 says nothing.
    ///
    /// # Errors
    ///
    /// [`SessionError::Strength`] for anything else, NaN too.
    pub fn new(strength: f64) -> Result<Self, SessionError> {
        if !(-1.0..=1.0).contains(&strength) {
            return Err(SessionError::Strength { got: strength, lowest: -1 });
        }
        // Adding zero turns -0 into 0.
        Ok(Self { strength: strength + 0.0, reason: None })
    }

    /// A like of a strength from 0 to 1.
    ///
    /// # Errors
    ///
    /// [`SessionError::Strength`] for anything else, NaN too.
    pub fn like(strength: f64) -> Result<Self, SessionError> {
        if (0.0..=1.0).contains(&strength) {
            Self::new(strength)
        } else {
            Err(SessionError::Strength { got: strength, lowest: 0 })
        }
    }

    /// A dislike of a strength from 0 to 1.
    ///
    /// # Errors
    ///
    /// [`SessionError::Strength`] for anything else, NaN too.
    pub fn dislike(strength: f64) -> Result<Self, SessionError> {
        Self::like(strength).and_then(|like| Self::new(-like.strength))
    }

    /// The same vote with a reason: what in the image is meant.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    /// From -1 (dislike in full) to 1 (like in full).
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// Why.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
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
    /// The vote in force.
    pub vote: Vote,
}
