//! Votes of a session while its steps are replayed.

use std::collections::HashMap;

use super::{Judged, Vote};
use crate::Aspect;
use crate::image::{ContentHash, Image};

/// Votes in the order in which they were cast, found by their image and reason.
///
/// Replaying casts all votes of a session again. If each searched all earlier ones for those that it replaces, that
/// would take a time that grows with the square of their number.
#[derive(Debug, Default)]
pub(super) struct ReplayedVotes<'a> {
    /// All votes; `None` where a later one replaced it, or the votes on its image were taken back.
    cast: Vec<Option<Judged>>,
    /// Indices into `cast` of the current votes on each image: at most one without a reason, and one for each reason.
    by_image: HashMap<ContentHash, HashMap<Option<&'a Aspect>, usize>>,
}

impl<'a> ReplayedVotes<'a> {
    /// Casts a vote on an image; `None` takes back all votes on it.
    pub(super) fn cast(&mut self, image: &Image, vote: Option<&'a Vote>) {
        let current = self.by_image.entry(image.content_hash()).or_default();
        let Some(vote) = vote else {
            current.drain().for_each(|(_, index)| self.cast[index] = None);
            return;
        };
        // A vote with a reason can replace no vote with another reason.
        let candidates: Vec<Option<&Aspect>> = match vote.reason() {
            None => current.keys().copied().collect(),
            reason => vec![None, reason],
        };
        for reason in candidates {
            let Some(&index) = current.get(&reason) else { continue };
            if self.cast[index].as_ref().is_some_and(|old| vote.replaces(&old.vote)) {
                self.cast[index] = None;
                current.remove(&reason);
            }
        }
        current.insert(vote.reason(), self.cast.len());
        self.cast.push(Some(Judged { image: image.clone(), vote: vote.clone() }));
    }

    /// Returns the current votes, oldest first.
    pub(super) fn into_judged(self) -> Vec<Judged> {
        self.cast.into_iter().flatten().collect()
    }
}
