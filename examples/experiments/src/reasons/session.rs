//! The votes with reasons of one session, and the requests that they make.

use fabric::core::InvalidValue;
use fabric::core::pipeline::{Pipeline, Request};
use fabric::core::session::{FeedbackSession, Vote};
use fabric_world::{Named, Reasons, Wording};

use super::ArmReasons;
use crate::round_maker::{Made, RoundMaker, session_of};
use crate::small_world::scene;
use crate::{Arm, Case, ExperimentError, SmallWorld, Subject};

/// Feedback session of a person who wants the scene of a case and sees in images what the readers see.
///
/// It is the library's own [`FeedbackSession`], so its requests are those that users get.
#[derive(Debug)]
pub(crate) struct ReasonedSession<'a> {
    world: &'a SmallWorld,
    arm: &'a Arm,
    reasons: &'a ArmReasons,
    wanted: Named,
    /// Factors that were right in an image with a like.
    right: Named,
    session: FeedbackSession,
}

impl<'a> ReasonedSession<'a> {
    /// Creates the session of an arm and a case without rounds. `base` has the prompts and the settings.
    ///
    /// # Errors
    ///
    /// Returns an error if the subject is not the small world, whose readers tell what is right in an image.
    pub(crate) fn new(
        subject: &'a dyn Subject,
        arm: &'a Arm,
        reasons: &'a ArmReasons,
        case: &Case,
        base: &Request,
    ) -> Result<Self, ExperimentError> {
        let Some(world) = subject.small_world() else {
            let (what, got) = (format!("arm {}", arm.name), "a subject without readers");
            return Err(InvalidValue::new(what, got, "the small world", "leave the arm out").into());
        };
        let wanted = Named::of(&scene(case.index).scene);
        let right = Named { kind: wanted.kind, ..Named::default() };
        Ok(Self { world, arm, reasons, wanted, right, session: session_of(base) })
    }
}

impl RoundMaker for ReasonedSession<'_> {
    fn make(&mut self, pipeline: &Pipeline, _round: usize, base: Request) -> Result<Made, ExperimentError> {
        let mut request = self.session.next_request(pipeline, base.seeds.len())?.with_seeds(base.seeds);
        if self.reasons.adapter.is_none() {
            // The image prompts of the votes need an adapter, their references do not.
            request.image_conditions.clear();
        }
        if self.reasons.names_in_prompt {
            request.prompt = self.right.caption(Wording::Sentence);
        }
        // Plain votes beside those with reasons: a session has no such votes.
        request.feedback.extend(base.feedback);
        let made = pipeline.generate(&request)?;
        self.session.record(&request, &made)?;
        Ok(Made::of(made))
    }

    /// Casts the votes: a like for each aspect that is right in the best image, or in the best image in which it is right,
    /// and a dislike for each that is wrong in one of the disliked images.
    fn judge(
        &mut self,
        made: &Made,
        scores: &[f64],
        [best, worst]: [usize; 2],
    ) -> Result<Vec<(usize, Vote)>, ExperimentError> {
        let seen = self.world.judge().read(&made.images).map_err(fabric::core::Error::from)?;
        let reasons = Reasons::from(self.reasons.given);
        let mut votes: Vec<(usize, Vote)> = Vec::new();
        if self.arm.likes {
            let mut liked = vec![best];
            if self.reasons.likes_any_image {
                liked.extend((0..scores.len()).filter(|image| *image != best));
                // The best one is first; of equal scores, the first.
                liked.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            }
            for attribute in self.wanted.attributes() {
                let index = self.wanted.index_of(attribute);
                if liked.iter().any(|&image| seen[image].index_of(attribute) == index) {
                    self.right = self.right.with(attribute, index);
                }
            }
            let right = liked.iter().flat_map(|&image| {
                let right = reasons.to_like(&self.wanted, &seen[image]);
                right.into_iter().map(move |reason| (image, Vote::LIKE.because(reason)))
            });
            for (image, vote) in right {
                if !votes.iter().any(|(_, earlier)| *earlier == vote) {
                    votes.push((image, vote));
                }
            }
        }
        if self.arm.dislikes {
            let disliked = self.reasons.disliked.of(best, worst, scores.len());
            let wrong = disliked.into_iter().flat_map(|image| {
                let wrong = reasons.to_dislike(&self.wanted, &seen[image]);
                wrong.into_iter().map(move |reason| (image, Vote::DISLIKE.because(reason)))
            });
            votes.extend(wrong);
        }
        for (image, vote) in &votes {
            self.session.vote(&made.images[*image], vote.clone()).map_err(fabric::core::Error::from)?;
        }
        Ok(votes)
    }
}
