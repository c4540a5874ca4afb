//! Notes for the report on parts of a request that have no effect.

use super::Settings;
use super::run_guidance::{RunGuidance, calls};
use crate::denoise::ModelCall;
use crate::fabric::{FeedbackSchedule, Side, acted_on};
use crate::guidance::{Branch, Guidance};
use crate::schedule::Schedule;

/// Returns notes on guidance that has no effect, or does not follow the prompt.
pub(super) fn on_guidance(settings: &Settings, guidance: &RunGuidance) -> Vec<String> {
    if guidance.is_never_inside() {
        let note = "guidance has no effect: no evaluation lies inside `guidance_window`";
        return vec![note.to_owned()];
    }
    let mut notes: Vec<String> = on_scale(settings.guidance_scale, guidance.inside()).into_iter().collect();
    if guidance.has_outside() {
        notes.iter_mut().for_each(|note| note.insert_str(0, "inside `guidance_window`, "));
    }
    if settings.apg.is_some() && guidance.inside().branches().len() == 1 {
        let scale = settings.guidance_scale;
        notes.push(format!("`apg` has no effect: only one branch runs at a guidance scale of {scale}"));
    }
    notes
}

/// Returns a note on guidance scales below 1.
///
/// diffusers switches guidance off at all scales up to 1, and model cards of distilled models (SD Turbo) recommend 0.
/// Here every scale is used as given, and 0 gives the unconditional branch alone (the negative prompt).
fn on_scale(scale: f64, guidance: &Guidance) -> Option<String> {
    const OFF: &str = "to switch guidance off, which model cards may call a scale of 0, set it to 1";
    let Guidance { base, terms, .. } = Guidance::classifier_free(scale);
    if (guidance.base, &guidance.terms) != (base, &terms) {
        // An adapter's own guidance, which may ignore this scale.
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

/// Returns the reason if references of this side have no effect in any evaluation of the run.
pub(super) fn on_references(
    side: Side,
    guidance: &RunGuidance,
    weights: &FeedbackSchedule,
    schedule: &Schedule,
) -> Option<&'static str> {
    if acted_on(side, &guidance.branches()).is_empty() {
        return Some(match side {
            Side::Liked => {
                "liked images act on the prompt's branch, which does not run: set the guidance scale above 0"
            }
            Side::Disliked if guidance.is_never_inside() => {
                "disliked images act on the branch that guidance leads away from, which does not run: no evaluation \
                 lies inside `guidance_window`"
            }
            Side::Disliked => {
                "disliked images act on the branch that guidance leads away from, which does not run: set the guidance \
                 scale above 1"
            }
        });
    }
    let has_weight = |call: &ModelCall| !weights.weights(call, side, 1.0, 1).is_zero();
    if !calls(schedule).any(|call| has_weight(&call)) {
        return Some(match side {
            Side::Liked => {
                "the weight of liked images is 0 in every evaluation: see `fabric.max_weight`, `start` and `end`"
            }
            Side::Disliked => {
                "the weight of disliked images is 0 in every evaluation: see `fabric.negative_scale`, `max_weight`, \
                 `start` and `end`"
            }
        });
    }
    let runs = |call: &ModelCall| !acted_on(side, &guidance.at(call).branches()).is_empty();
    let acts = calls(schedule).any(|call| has_weight(&call) && runs(&call));
    (!acts).then_some(
        "their weight is 0 in every evaluation that runs their branch: see `guidance_window`, `fabric.start` and `end`",
    )
}
