//! Notes for the report on parts of a request that have no effect.

use super::run_guidance::{RunGuidance, calls};
use super::{Cads, Settings};
use crate::denoise::ModelCall;
use crate::fabric::{FeedbackSchedule, Side};
use crate::guidance::{Branch, Guidance};
use crate::schedule::Schedule;

/// Returns notes on guidance that has no effect, or does not follow the prompt, and on its options.
pub(super) fn on_guidance(settings: &Settings, guidance: &RunGuidance, schedule: &Schedule) -> Vec<String> {
    let (inside, mut notes) = (guidance.inside(), Vec::new());
    if guidance.is_never_inside() {
        // At a scale of 1 the window changes nothing.
        if inside.branches() != [Branch::Conditional] {
            notes.push("guidance has no effect: no evaluation lies inside `guidance_window`".to_owned());
        }
    } else if let Some(note) = on_scale(settings.guidance_scale, inside) {
        notes.push(if guidance.has_outside() { format!("inside `guidance_window`, {note}") } else { note });
    }
    if settings.apg.is_some() && inside.branches().len() == 1 {
        // An adapter may require another scale than that of the settings.
        let scale = inside.classifier_free_scale().unwrap_or(settings.guidance_scale);
        notes.push(format!("`apg` has no effect: only one branch runs at a guidance scale of {scale}"));
    }
    notes.extend(settings.cads.as_ref().and_then(|cads| on_cads(cads, guidance, schedule)));
    notes
}

/// Returns a note if CADS changes the prompt in no evaluation that runs the prompt's branch.
fn on_cads(cads: &Cads, guidance: &RunGuidance, schedule: &Schedule) -> Option<String> {
    let train_steps = schedule.config().num_train_timesteps;
    let is_prompted = |call: &ModelCall| guidance.at(call).branches().contains(&Branch::Conditional);
    let prompted: Vec<ModelCall> = calls(schedule).filter(is_prompted).collect();
    let acts = |cads: &Cads| prompted.iter().any(|call| cads.acts(call, train_steps));
    if acts(cads) {
        return None;
    }
    let why = if prompted.is_empty() {
        "the prompt's branch does not run"
    } else if acts(&Cads { noise_scale: 1.0, ..*cads }) {
        "`cads.noise_scale` is 0"
    } else {
        "no evaluation that runs the prompt's branch has a time above `cads.prompt_only_below`"
    };
    Some(format!("`cads` has no effect: {why}"))
}

/// Returns a note on guidance scales below 1.
///
/// diffusers switches guidance off at all scales up to 1, and model cards of distilled models (SD Turbo) recommend 0.
/// Here every scale is used as given, and 0 gives the unconditional branch alone (the negative prompt).
fn on_scale(scale: f64, guidance: &Guidance) -> Option<String> {
    const OFF: &str = "to switch guidance off, which model cards may call a scale of 0, set it to 1";
    if guidance.classifier_free_scale() != Some(scale) {
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
    if weights.branches(side, &guidance.branches()).0.is_empty() {
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
                 scale above 1, or `fabric.dislikes_without_guidance`"
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
    let runs = |call: &ModelCall| !weights.branches(side, &guidance.at(call).branches()).0.is_empty();
    let acts = calls(schedule).any(|call| has_weight(&call) && runs(&call));
    (!acts).then_some(
        "their weight is 0 in every evaluation that runs their branch: see `guidance_window`, `fabric.start` and `end`",
    )
}
