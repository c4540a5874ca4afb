//! Selection of the references to use if there are many.

use serde::{Deserialize, Serialize};

/// Selects which judged images become references. Time, memory and the risk of "burnt" images grow with their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeepPolicy {
    /// All of them, as in the published Python API.
    #[default]
    All,
    /// This many of the most recent votes, regardless of whether they are likes or dislikes.
    MostRecent(usize),
    /// At most this many in total, the most recent of each kind. If there are both likes and dislikes, dislikes
    /// get at most half (rounded down) and likes the rest. The published demo does this with 6. There, a kind
    /// whose quota is 0 keeps all its images (because of the slice `[-0:]`); here it keeps none.
    Balanced(usize),
}

impl KeepPolicy {
    /// Returns the indices of selected votes in ascending order. `strengths` (above 0 a like, below 0 a dislike, 0
    /// ignored) is ordered from the oldest to the most recent vote.
    pub fn select(self, strengths: &[f64]) -> Vec<usize> {
        let votes: Vec<usize> = (0..strengths.len()).filter(|&index| strengths[index] != 0.0).collect();
        let Self::Balanced(most) = self else {
            let most = if let Self::MostRecent(most) = self { most } else { votes.len() };
            return votes[votes.len().saturating_sub(most)..].to_vec();
        };
        let (mut liked, mut disliked): (Vec<usize>, Vec<usize>) =
            votes.iter().partition(|&&index| strengths[index] > 0.0);
        if votes.len() > most {
            let half = if liked.is_empty() { most } else { most / 2 };
            let most_disliked = disliked.len().min(half);
            let most_liked = liked.len().min(most - most_disliked);
            disliked.drain(..disliked.len() - most_disliked);
            liked.drain(..liked.len() - most_liked);
        }
        let mut kept = [liked, disliked].concat();
        kept.sort_unstable();
        kept
    }
}
