//! Which votes still count when there are many.

use serde::{Deserialize, Serialize};

use super::Judged;

/// How many judged images become references. Time, memory and the risk of "burnt" images grow with them.
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

/// Judged images that a round attends to, oldest vote first.
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
        let strengths: Vec<f64> = votes.iter().map(|judged| judged.vote.strength()).collect();
        let kept = self.select(&strengths).into_iter().map(|index| votes[index].clone());
        let (liked, disliked) = kept.partition(|judged| judged.vote.strength() > 0.0);
        Feedback { liked, disliked }
    }

    /// The indices of the votes that count, in order, among strengths (above 0 a like, below a dislike, 0 nothing)
    /// given from the oldest to the most recent.
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
