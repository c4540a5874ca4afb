//! The votes that a round was made with.
//!
//! Generating takes time, and votes that are cast meanwhile come before the round in the session's history. So the
//! worker keeps the votes of its request in the round's report. Rounds of other programs have the votes that came
//! before.

use fabric::core::Aspect;
use fabric::core::image::ContentHash;
use fabric::core::pipeline::Settings;
use fabric::core::session::{FeedbackSession, Judged};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the entry in a round's report.
const ENTRY: &str = "studio";

/// A vote with its image by hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VoteRecord {
    pub(crate) image: ContentHash,
    pub(crate) strength: f64,
    pub(crate) reason: Option<Aspect>,
}

/// Votes and image conditions that a session added to the request of a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MadeWith {
    /// All votes, oldest first.
    pub(crate) votes: Vec<VoteRecord>,
    /// Number of image conditions of the session itself. They come before those that votes became.
    pub(crate) conditions: usize,
}

impl MadeWith {
    /// Returns those of the next round of a session.
    pub(crate) fn next_of(session: &FeedbackSession) -> Self {
        Self { votes: votes(session), conditions: session.image_conditions().len() }
    }

    /// Returns a report with this as an entry.
    pub(crate) fn noted_in(&self, mut report: Value) -> Value {
        if let Some(entries) = report.as_object_mut() {
            entries.insert(ENTRY.to_owned(), serde_json::to_value(self).expect("votes are plain data"));
        }
        report
    }

    /// Returns those of each round of a session.
    pub(crate) fn of_rounds(session: &FeedbackSession) -> Vec<Self> {
        let noted = |report: &Value| serde_json::from_value(report.get(ENTRY)?.clone()).ok();
        let noted: Vec<Option<Self>> = session.rounds().iter().map(|round| noted(&round.report)).collect();
        if noted.iter().all(Option::is_some) {
            return noted.into_iter().flatten().collect();
        }
        // From the last round to the first.
        let mut before = session.clone();
        let mut derived = Vec::new();
        while before.undo_round() {
            derived.push(Self::next_of(&before));
        }
        noted.into_iter().zip(derived.into_iter().rev()).map(|(noted, derived)| noted.unwrap_or(derived)).collect()
    }

    /// Images of the votes above 0 (`1.0`) or below 0 (`-1.0`), each once, oldest vote first.
    pub(crate) fn images(&self, direction: f64) -> Vec<ContentHash> {
        let mut images = Vec::new();
        for vote in self.votes.iter().filter(|vote| vote.strength * direction > 0.0) {
            if !images.contains(&vote.image) {
                images.push(vote.image);
            }
        }
        images
    }

    /// The images that were references of a round with these settings, liked before disliked, as reports list them.
    /// `counts` are the numbers of liked and disliked ones of the report. Returns nothing if the votes do not explain
    /// them.
    pub(crate) fn references(&self, settings: &Settings, counts: [usize; 2]) -> Vec<ContentHash> {
        let is_reference = |vote: &&VoteRecord| {
            let is_kind = |aspect: &Aspect| settings.reasons.references.contains_key(&aspect.kind());
            // A side without effect, for instance disliked images without guidance, has no references.
            let has_effect = vote.strength != 0.0 && counts[usize::from(vote.strength < 0.0)] > 0;
            has_effect && vote.reason.as_ref().is_none_or(is_kind)
        };
        let votes: Vec<&VoteRecord> = self.votes.iter().filter(is_reference).collect();
        let strengths: Vec<f64> = votes.iter().map(|vote| vote.strength).collect();
        let kept = settings.fabric.keep.select(&strengths);
        let (liked, disliked): (Vec<&VoteRecord>, Vec<&VoteRecord>) =
            kept.into_iter().map(|index| votes[index]).partition(|vote| vote.strength > 0.0);
        if [liked.len(), disliked.len()] != counts {
            return Vec::new();
        }
        liked.into_iter().chain(disliked).map(|vote| vote.image).collect()
    }
}

/// The votes of a session, oldest first.
pub(crate) fn votes(session: &FeedbackSession) -> Vec<VoteRecord> {
    let record = |judged: &Judged| VoteRecord {
        image: judged.image.content_hash(),
        strength: judged.vote.strength(),
        reason: judged.vote.reason().cloned(),
    };
    session.votes().iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use fabric::core::image::Image;
    use fabric::core::session::Vote;
    use serde_json::json;

    use super::*;

    fn image(red: u8) -> Image {
        Image::filled(4, 4, [red, 0, 0]).expect("an image")
    }

    fn push(session: &mut FeedbackSession, red: u8, report: Value) {
        let seed = session.next_seed();
        session.push_round(vec![(image(red), seed)], report).expect("a round");
    }

    #[test]
    fn a_round_has_the_votes_of_its_request_and_not_those_that_were_cast_meanwhile() {
        let mut session = FeedbackSession::new("a star");
        push(&mut session, 1, json!({}));
        session.like(&image(1)).expect("a vote");
        let made_with = MadeWith::next_of(&session);
        session.dislike(&image(1)).expect("a vote");
        push(&mut session, 2, made_with.noted_in(json!({"notes": []})));

        let rounds = MadeWith::of_rounds(&session);
        assert_eq!(rounds.len(), 2);
        assert!(rounds[0].votes.is_empty());
        assert_eq!((rounds[1].images(1.0), rounds[1].images(-1.0)), (vec![image(1).content_hash()], vec![]));
    }

    #[test]
    fn rounds_of_other_programs_have_the_votes_that_came_before() {
        let mut session = FeedbackSession::new("a star");
        for red in 1..4 {
            push(&mut session, red, Value::Null);
            session.vote(&image(red), Vote::DISLIKE.because("its light")).expect("a vote");
        }
        let votes: Vec<usize> = MadeWith::of_rounds(&session).iter().map(|one| one.images(-1.0).len()).collect();
        assert_eq!(votes, [0, 1, 2]);
    }

    #[test]
    fn references_are_liked_before_disliked_and_those_of_votes_without_a_reason() {
        let mut session = FeedbackSession::new("a star");
        session.dislike(&image(1)).expect("a vote");
        session.like(&image(2)).expect("a vote");
        session.like(&image(3)).expect("a vote").because(Aspect::Style).expect("a reason");
        session.vote(&image(4), Vote::new(0.0).expect("a vote")).expect("a neutral vote");
        let (made_with, settings) = (MadeWith::next_of(&session), Settings::default());
        let [first, second] = [1, 2].map(|red| image(red).content_hash());
        assert_eq!(made_with.references(&settings, [1, 1]), [second, first]);
        assert_eq!(made_with.references(&settings, [1, 0]), [second], "disliked images had no effect");
        assert!(made_with.references(&settings, [2, 1]).is_empty());
    }
}
