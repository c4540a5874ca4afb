//! Undoing and redoing the steps of a session.

use std::collections::BTreeSet;

use super::FeedbackSession;
use super::history::Step;
use crate::image::ContentHash;

/// Undoing and redoing.
impl FeedbackSession {
    /// Undoes the last step: a round, a vote, a changed prompt, image or setting. Returns false if there is none.
    pub fn undo(&mut self) -> bool {
        let undone = self.done > 0;
        if undone {
            self.done -= 1;
            self.replay();
        }
        undone
    }

    /// Undoes the last round in force, with every vote and change after it. False if there is no round.
    ///
    /// [`Self::redo`] brings the steps back one by one.
    pub fn undo_round(&mut self) -> bool {
        let round = self.steps[..self.done].iter().rposition(|step| matches!(step, Step::Round { .. }));
        if let Some(round) = round {
            self.done = round;
            self.replay();
        }
        round.is_some()
    }

    /// Number of steps in force: rounds, votes that changed something, changed prompts and settings. [`Self::undo`] takes
    /// one away.
    pub fn step_count(&self) -> usize {
        self.done
    }

    /// Redoes the step that was undone last. Returns false if there is none, or a new step was made since.
    pub fn redo(&mut self) -> bool {
        let redone = self.can_redo();
        if redone {
            self.done += 1;
            self.replay();
        }
        redone
    }

    /// Whether there is an undone step for [`Self::redo`].
    pub fn can_redo(&self) -> bool {
        self.done < self.steps.len()
    }

    /// Discards the steps that were undone, with the images that no other step refers to. [`Self::redo`] then returns
    /// false.
    pub fn discard_undone(&mut self) {
        self.steps.truncate(self.done);
        let used: BTreeSet<ContentHash> = self.steps.iter().flat_map(Step::images).collect();
        self.images.retain(|hash, _| used.contains(hash));
    }
}
