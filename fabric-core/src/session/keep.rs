//! Which votes still count when there are many.

use serde::{Deserialize, Serialize};

use super::Judged;

/// How many judged pictures become references. Time, memory and the risk of "burnt" pictures grow with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeepPolicy {
    /// All of them: the published Python API.
    #[default]
    All,
    /// So many of the most recent votes, likes and dislikes alike.
    MostRecent(usize),
    /// So many in all, the most recent of each kind; of both kinds, dislikes get at most half (rounded down) and
    /// likes the rest. The published demo does this with 6. There, a kind that gets none by this rule keeps all
    /// (its slice `[-0:]`); here it keeps none.
    Balanced(usize),
}

/// Judged pictures that a round attends to, oldest vote first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Feedback {
    /// With strengths above 0.
    pub liked: Vec<Judged>,
    /// With strengths below 0.
    pub disliked: Vec<Judged>,
}

impl KeepPolicy {
    /// Chooses among votes given from the oldest to the most recent.
    pub fn choose(self, votes: &[Judged]) -> Feedback {
        let votes: Vec<&Judged> = votes.iter().filter(|judged| judged.vote.strength() != 0.0).collect();
        let recent = match self {
            Self::MostRecent(most) => &votes[votes.len().saturating_sub(most)..],
            Self::All | Self::Balanced(_) => &votes[..],
        };
        let (mut liked, mut disliked): (Vec<&Judged>, Vec<&Judged>) =
            recent.iter().partition(|judged| judged.vote.strength() > 0.0);
        if let Self::Balanced(most) = self
            && liked.len() + disliked.len() > most
        {
            let half = if liked.is_empty() { most } else { most / 2 };
            let most_disliked = disliked.len().min(half);
            let most_liked = liked.len().min(most - most_disliked);
            disliked.drain(..disliked.len() - most_disliked);
            liked.drain(..liked.len() - most_liked);
        }
        Feedback { liked: liked.into_iter().cloned().collect(), disliked: disliked.into_iter().cloned().collect() }
    }
}
