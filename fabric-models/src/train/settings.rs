//! Settings of a training run.

use serde::{Deserialize, Serialize};

use super::TrainError;

/// Maximum number of steps; published runs have up to a few million. Their batches, [`MAX_BATCH`] for each step, can
/// still be counted.
const MAX_STEPS: u64 = 1_000_000_000;

/// Maximum number of examples per batch, and of batches per step; those of a step are held in memory.
const MAX_BATCH: u64 = 65_536;

/// Settings of a training run that are independent of the task.
///
/// ```
/// use fabric_models::train::TrainSettings;
/// let settings: TrainSettings = serde_json::from_str(r#"{"steps": 2000, "batch": 32}"#).unwrap();
/// assert!(settings.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Number of optimizer steps.
    pub steps: u64,
    /// Number of examples per batch.
    pub batch: usize,
    /// Number of batches per step, over which gradients are accumulated.
    pub accumulate: u64,
    /// Learning rate after the warm-up.
    pub rate: f64,
    /// Number of warm-up steps, over which the learning rate rises linearly from 0.
    pub warm_up: u64,
    /// Learning rate at the end of the cosine decay, as a fraction of `rate`; 1 disables the decay.
    pub final_share: f64,
    /// AdamW's decay rate of the first moment (mean of gradients).
    pub beta_1: f32,
    /// AdamW's decay rate of the second moment (mean of squared gradients).
    pub beta_2: f32,
    /// AdamW's epsilon.
    pub epsilon: f32,
    /// AdamW's weight decay; not applied to vectors (biases, norms).
    pub weight_decay: f32,
    /// Maximum gradient norm over all weights; larger gradients are scaled down.
    pub clip: f64,
    /// Decay of the exponential moving average of the weights.
    pub average: f64,
    /// Seed of the data and of all random numbers.
    pub seed: u64,
    /// Number of steps between checkpoints.
    pub save_every: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            steps: 10_000,
            batch: 32,
            accumulate: 1,
            rate: 1e-3,
            warm_up: 200,
            final_share: 0.05,
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip: 1.0,
            average: 0.999,
            seed: 0,
            save_every: 500,
        }
    }
}

impl TrainSettings {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    ///
    /// Returns an error for the first setting that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let counts = [
            ("steps", self.steps, MAX_STEPS),
            ("batch", self.batch as u64, MAX_BATCH),
            ("accumulate", self.accumulate, MAX_BATCH),
            // More than the steps means only after the last one.
            ("save_every", self.save_every, u64::MAX),
        ];
        for (name, count, most) in counts {
            if !(1..=most).contains(&count) {
                let expected = if most == u64::MAX { "at least 1".to_owned() } else { format!("1 to {most}") };
                return Err(TrainError::settings(name, count, &expected, "set it to the number you want"));
            }
        }
        if self.warm_up >= self.steps {
            return Err(TrainError::settings("warm_up", self.warm_up, "fewer than `steps`", "5 % of them is usual"));
        }
        let positive = [("rate", self.rate), ("clip", self.clip), ("epsilon", f64::from(self.epsilon))];
        for (name, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(TrainError::settings(name, value, "a number above 0", "leave it out for the default"));
            }
        }
        if !(0.0..=1.0).contains(&self.final_share) {
            let next = "leave it out for the default; 1 keeps the rate as it is";
            return Err(TrainError::settings("final_share", self.final_share, "a number from 0 to 1", next));
        }
        let shares = [
            ("beta_1", f64::from(self.beta_1)),
            ("beta_2", f64::from(self.beta_2)),
            ("weight_decay", f64::from(self.weight_decay)),
            ("average", self.average),
        ];
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return Err(TrainError::settings(
                    name,
                    value,
                    "at least 0 and below 1",
                    "leave it out for the default",
                ));
            }
        }
        Ok(())
    }
}
