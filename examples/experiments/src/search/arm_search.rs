//! The search of an arm, as data.

use fabric::core::pipeline::SearchedSettings;
use serde::{Deserialize, Serialize};

/// Search for FABRIC's settings during a session.
///
/// In the first round there are no references yet, so that no setting of FABRIC acts: it is made with the settings of
/// the arm. In the rounds after it, each image has settings that the search proposes. The last round is made with the
/// best settings that were found, as a person would use them; it is the one to compare with fixed settings. If nothing
/// was learnt, it has proposals too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmSearch {
    /// Feedback from which the search learns.
    pub learns_from: SearchFeedback,
    /// The searched settings with their ranges.
    pub searched: SearchedSettings,
}

/// Feedback from which a search learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchFeedback {
    /// The score of each image.
    Scores,
    /// The like of the best image and the dislike of the worst.
    Likes,
}
