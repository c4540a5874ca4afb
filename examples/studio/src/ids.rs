//! Identifiers of sessions and jobs.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Identifier of a session or a job, written as 16 lower-case hex digits. No other text is accepted, so an identifier
/// can be part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Id(u64);

/// The text is not an identifier.
#[derive(Debug, thiserror::Error)]
#[error("expected 16 lower-case hex digits")]
pub(crate) struct NotAnId;

impl Id {
    /// Returns a random identifier.
    pub(crate) fn random() -> Self {
        // Randomness of the standard library's hasher, which differs at each call.
        Self(RandomState::new().hash_one(0_u8))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_digit) {
            return Err(NotAnId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAnId)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_16_lower_case_hex_digits_are_an_identifier() {
        let id = Id::random();
        assert_eq!(id.to_string().parse::<Id>().ok(), Some(id));
        assert_ne!(id, Id::random());
        for text in ["", "0", "../../../../etc/p", "0123456789ABCDEF", "0123456789abcdef0", "+123456789abcdef"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
