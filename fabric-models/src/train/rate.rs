//! Learning rate schedule.

use std::f64::consts::PI;

use super::TrainSettings;

/// Returns the learning rate of a step (counted from 0): linear warm-up, then cosine decay to
/// [`TrainSettings::final_share`] of the rate.
pub(crate) fn learning_rate(settings: &TrainSettings, step: u64) -> f64 {
    if step < settings.warm_up {
        return settings.rate * (step + 1) as f64 / settings.warm_up as f64;
    }
    let done = (step - settings.warm_up) as f64 / (settings.steps - settings.warm_up) as f64;
    let cosine = (1.0 + (PI * done.min(1.0)).cos()) / 2.0;
    settings.rate * (settings.final_share + (1.0 - settings.final_share) * cosine)
}
