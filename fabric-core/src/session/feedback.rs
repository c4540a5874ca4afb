//! The votes that become references.

use super::Judged;
use crate::fabric::KeepPolicy;

/// Judged images used as references, oldest vote first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Feedback {
    /// Images with strengths above 0.
    pub liked: Vec<Judged>,
    /// Images with strengths below 0.
    pub disliked: Vec<Judged>,
}

impl Feedback {
    /// Selects references from votes, which are ordered from the oldest to the most recent. Votes with a reason are left
    /// out.
    pub(super) fn select(votes: &[Judged], keep: KeepPolicy) -> Self {
        let votes: Vec<&Judged> = votes.iter().filter(|judged| judged.vote.reason().is_none()).collect();
        let strengths: Vec<f64> = votes.iter().map(|judged| judged.vote.strength()).collect();
        let kept = keep.select(&strengths).into_iter().map(|index| votes[index].clone());
        let (liked, disliked) = kept.partition(|judged| judged.vote.strength() > 0.0);
        Self { liked, disliked }
    }
}
