//! The first round of an arm, as data.

use serde::{Deserialize, Serialize};

/// First round of an arm that runs as a session of the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FirstRound {
    /// Generated, as all other rounds.
    Generated,
    /// The images of a folder of drawings that are nearest to the prompt by CLIP embedding.
    Corpus {
        /// Number of drawings.
        drawings: usize,
    },
}
