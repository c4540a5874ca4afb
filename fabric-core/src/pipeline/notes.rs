//! What a request asks for that has no effect, in words for its report.

use crate::denoise::ModelCall;
use crate::fabric::{FeedbackSchedule, Side, acted_on};
use crate::guidance::{Branch, Guidance};
use crate::schedule::Schedule;

/// What becomes of the prompt under a guidance scale below 1.
///
/// diffusers switches guidance off at all scales up to 1, and the cards of distilled models (SD Turbo) ask for 0. Here a
/// scale is computed as it is, and 0 is the negative prompt alone.
pub(super) fn on_guidance(scale: f64, guidance: &Guidance) -> Option<String> {
    const OFF: &str = "to switch guidance off, which model cards may call a scale of 0, set it to 1";
    let Guidance { base, terms, .. } = Guidance::classifier_free(scale);
    if (guidance.base, &guidance.terms) != (base, &terms) {
        // Of an adapter's own guidance, whose scales are its own.
        let is_unused = !guidance.branches().contains(&Branch::Conditional);
        return is_unused.then(|| "the prompt has no effect: the adapter's guidance gives it a scale of 0".to_owned());
    }
    match scale {
        0.0 => Some(format!("the prompt has no effect at a guidance scale of 0; {OFF}")),
        scale if scale < 0.0 => Some(format!("a guidance scale of {scale} leads away from the prompt; {OFF}")),
        scale if scale < 1.0 => {
            Some(format!("at a guidance scale of {scale} the negative prompt counts {}; {OFF}", 1.0 - scale))
        }
        _ => None,
    }
}

/// Why references of a side can act in no evaluation of a run, if that is so.
pub(super) fn on_references(
    side: Side,
    guidance: &Guidance,
    weights: &FeedbackSchedule,
    schedule: &Schedule,
) -> Option<&'static str> {
    if acted_on(side, &guidance.branches()).is_empty() {
        return Some(match side {
            Side::Liked => {
                "liked images act on the prompt's branch, which does not run: set the guidance scale above 0"
            }
            Side::Disliked => {
                "disliked images act on the branch that guidance leads away from, which does not run: set the guidance \
                 scale above 1"
            }
        });
    }
    let total = schedule.calls();
    let calls = schedule.levels().iter().enumerate().map(|(index, &level)| ModelCall { index, total, level });
    let weightless = calls.into_iter().all(|call| weights.weights(&call, side, 1.0, 1).is_zero());
    weightless.then_some(match side {
        Side::Liked => "the weight of liked images is 0 in every evaluation: see `fabric.max_weight`, `start` and `end`",
        Side::Disliked => {
            "the weight of disliked images is 0 in every evaluation: see `fabric.negative_scale`, `max_weight`, `start` \
             and `end`"
        }
    })
}
