//! The reasons of an arm's votes, as data.

use fabric_world::Reasons;
use serde::{Deserialize, Serialize};

use crate::ReasonAdapter;

/// Reasons of the votes of an arm, and how they act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmReasons {
    /// Kind of the reasons.
    pub given: GivenReasons,
    /// Adapter that realises them. Without one, votes act only as the references that the settings give them
    /// ([`ReasonSettings::references`](fabric::core::pipeline::ReasonSettings::references)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<ReasonAdapter>,
    /// Whether the best and the worst image of each round get a plain vote too. A session has no such votes, because a
    /// reason refines a plain vote, so their references are added to its requests.
    #[serde(default)]
    pub plain_votes: bool,
}

/// Kind of the reasons that a person gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenReasons {
    /// Named aspects, such as "style".
    Aspects,
    /// Free words, such as "its look". If there is a single vote and it is a like, the guidance has four branches by the
    /// published rule for words, also where that of the named aspect has two.
    Words,
}

impl From<GivenReasons> for Reasons {
    fn from(given: GivenReasons) -> Self {
        match given {
            GivenReasons::Aspects => Self::Aspects,
            GivenReasons::Words => Self::Words,
        }
    }
}
