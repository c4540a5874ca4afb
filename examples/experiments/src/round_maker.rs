//! The kinds of sessions: how the images of a round come about, and what is learnt from their scores.

use fabric::core::image::Image;
use fabric::core::pipeline::{Generation, Pipeline, Report, Request};
use fabric::core::session::{FeedbackSession, Vote};

use crate::corpus::CandidateSession;
use crate::reasons::ReasonedSession;
use crate::round_attention::RoundAttention;
use crate::search::SearchedSession;
use crate::session::{Plan, seed_of};
use crate::{Arm, Case, ExperimentError, ImageOrigin, Subject};

/// Creates the library's own session with the prompts and the settings of a request.
pub(crate) fn session_of(base: &Request) -> FeedbackSession {
    FeedbackSession::new(&base.prompt)
        .with_negative_prompt(base.negative_prompt.as_deref().unwrap_or_default())
        .with_generation_settings(&base.settings)
}

/// Makes the rounds of a session, and learns from the scores of their images.
pub(crate) trait RoundMaker {
    /// Makes the images of a round, one for each seed of `base`, which has the prompts, the seeds, the settings of the
    /// arm and its references.
    ///
    /// # Errors
    ///
    /// Returns an error if the images cannot be generated or read.
    fn make(&mut self, pipeline: &Pipeline, round: usize, base: Request) -> Result<Made, ExperimentError>;

    /// Learns from the scores of the round that was made last, given with the indices of its best and its worst image,
    /// and returns the votes with a reason that were cast, with the indices of their images.
    ///
    /// # Errors
    ///
    /// Returns an error if an image cannot be read, or a vote or a score cannot be used.
    fn judge(
        &mut self,
        made: &Made,
        scores: &[f64],
        best_and_worst: [usize; 2],
    ) -> Result<Vec<(usize, Vote)>, ExperimentError>;
}

/// Images of a round.
#[derive(Debug)]
pub(crate) struct Made {
    /// The images.
    pub(crate) images: Vec<Image>,
    /// Origin of each image. Empty if the arm makes all images in the same way.
    pub(crate) origins: Vec<ImageOrigin>,
    /// Report of the run, if one run made all images.
    pub(crate) report: Option<Report>,
}

impl Made {
    /// Returns the images of a run, which were made as the arm says.
    pub(crate) fn of(made: Generation) -> Self {
        Self { images: made.images, origins: Vec::new(), report: Some(made.report) }
    }

    /// Returns the attention that the references and image prompts of the round got, if it was measured.
    pub(crate) fn attention(&self, round: usize, arm: &Arm) -> Option<RoundAttention> {
        let report = self.report.as_ref()?;
        if report.attention.is_empty() && report.image_prompts.is_empty() {
            return None;
        }
        let has_all = report.references_left_out == 0 && report.references_without_effect == 0;
        // A session of the library has no votes on a round whose scores are equal.
        let is_of_all = |count: &usize| *count == 0 || *count == round;
        Some(RoundAttention {
            round,
            liked: report.references[0],
            // With reasons, an image has as many references as reasons that become one.
            has_all_rounds: has_all && report.references.iter().all(is_of_all) && arm.reasons.is_none(),
            references: report.attention.clone(),
            image_prompts: report.image_prompts.clone(),
        })
    }
}

/// Returns what makes the rounds of an arm on a case. `base` has the prompts and the settings of the arm.
///
/// # Errors
///
/// Returns an error if the subject lacks what the arm needs, or a setting cannot be searched.
pub(crate) fn round_maker<'a>(
    subject: &'a dyn Subject,
    plan: &Plan,
    arm: &'a Arm,
    case: &Case,
    base: &Request,
) -> Result<Box<dyn RoundMaker + 'a>, ExperimentError> {
    if let Some(reasons) = &arm.reasons {
        return Ok(Box::new(ReasonedSession::new(subject, arm, reasons, case, base)?));
    }
    if let Some(search) = &arm.search {
        // It does not depend on the arm: searches differ by what they learn.
        let seed = seed_of(plan.seed, [case.index, 0, 0]);
        return Ok(Box::new(SearchedSession::new(search, base, plan.rounds, seed)?));
    }
    if let Some(first_round) = &arm.first_round {
        return Ok(Box::new(CandidateSession::new(subject, arm, first_round, base)?));
    }
    Ok(Box::new(PlainRounds))
}

/// The published loop: each round is one run, with the best and the worst images of all earlier rounds as references.
struct PlainRounds;

impl RoundMaker for PlainRounds {
    fn make(&mut self, pipeline: &Pipeline, _round: usize, base: Request) -> Result<Made, ExperimentError> {
        Ok(Made::of(pipeline.generate(&base)?))
    }

    fn judge(&mut self, _: &Made, _: &[f64], _: [usize; 2]) -> Result<Vec<(usize, Vote)>, ExperimentError> {
        Ok(Vec::new())
    }
}
