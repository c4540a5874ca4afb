//! The votes with reasons of one session, and the requests that they make.

use fabric::core::InvalidValue;
use fabric::core::pipeline::{Generation, Pipeline, Request, Settings};
use fabric::core::session::{FeedbackSession, Vote};
use fabric_world::{Named, Reasons};

use super::ArmReasons;
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
    session: FeedbackSession,
}

impl<'a> ReasonedSession<'a> {
    /// Creates the session of an arm and a case; `None` if the votes of the arm have no reasons.
    ///
    /// # Errors
    ///
    /// Returns an error if the subject is not the small world, whose readers tell what is right in an image.
    pub(crate) fn new(
        subject: &'a dyn Subject,
        arm: &'a Arm,
        case: &Case,
        negative_prompt: Option<&str>,
        settings: &Settings,
    ) -> Result<Option<Self>, ExperimentError> {
        let Some(reasons) = &arm.reasons else { return Ok(None) };
        let Some(world) = subject.small_world() else {
            let (what, got) = (format!("arm {}", arm.name), "a subject without readers");
            return Err(InvalidValue::new(what, got, "the small world", "leave the arm out").into());
        };
        let session = FeedbackSession::new(&case.prompt)
            .with_negative_prompt(negative_prompt.unwrap_or_default())
            .with_generation_settings(settings);
        Ok(Some(Self { world, arm, reasons, wanted: Named::of(&scene(case.index).scene), session }))
    }

    /// Returns the request of the next round, with seeds of the session.
    pub(crate) fn request(&mut self, pipeline: &Pipeline, images: usize) -> Result<Request, ExperimentError> {
        let mut request = self.session.next_request(pipeline, images)?;
        if self.reasons.adapter.is_none() {
            // The image prompts of the votes need an adapter, their references do not.
            request.image_conditions.clear();
        }
        Ok(request)
    }

    /// Adds a round, and casts the votes on its best and its worst image: a like for each aspect that is right in the
    /// best one, and a dislike for each that is wrong in the worst. Returns the votes with the indices of their images.
    pub(crate) fn judge(
        &mut self,
        request: &Request,
        made: &Generation,
        [best, worst]: [usize; 2],
    ) -> Result<Vec<(usize, Vote)>, ExperimentError> {
        let round = self.session.record(request, made)?;
        let seen = self.world.judge().read(&round.images).map_err(fabric::core::Error::from)?;
        let reasons = Reasons::from(self.reasons.given);
        let right = if self.arm.likes { reasons.to_like(&self.wanted, &seen[best]) } else { Vec::new() };
        let wrong = if self.arm.dislikes { reasons.to_dislike(&self.wanted, &seen[worst]) } else { Vec::new() };
        let likes = right.into_iter().map(|reason| (best, Vote::LIKE.because(reason)));
        let dislikes = wrong.into_iter().map(|reason| (worst, Vote::DISLIKE.because(reason)));
        let votes: Vec<(usize, Vote)> = likes.chain(dislikes).collect();
        for (image, vote) in &votes {
            self.session.vote(&round[*image], vote.clone()).map_err(fabric::core::Error::from)?;
        }
        Ok(votes)
    }
}
