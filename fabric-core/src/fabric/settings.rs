//! FABRIC settings with the published defaults.

use serde::{Deserialize, Serialize};

use super::{BlockWeights, DislikesWithoutGuidance, FabricExecution, KeepPolicy, LikedPerImage, ReferencePass};
use crate::{Error, InvalidValue};

/// Rule for which evaluations lie inside the window from `start` to `end`.
///
/// The published implementations differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum WindowRule {
    /// Indices `round(calls * start) ..= round(calls * end)`, halves rounded to even, end included: the official code
    /// and the diffusers community pipeline.
    #[default]
    Official,
    /// `start <= 1 - timestep / (train steps - 1) <= end`: the web UI extension.
    Timestep,
    /// Indices `floor(calls * start) .. floor(calls * end)`, end excluded: the ComfyUI node.
    HalfOpen,
}

/// Course of the weight over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum TimeCurve {
    /// `max_weight` in the whole window, as in the published code.
    #[default]
    Constant,
    /// Linear from `max_weight` to `min_weight`: emphasizes coarse features (paper, section 3).
    Falling,
    /// Linear from `min_weight` to `max_weight`: emphasizes fine features (paper, section 3).
    Rising,
}

/// Source of the noise added to reference latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceNoise {
    /// Derived from the reference image's content and the noise level only. Its keys and values can then be
    /// cached, and a generated image does not depend on its batch. At each level the distribution is the
    /// published one.
    #[default]
    Fixed,
    /// Drawn at every evaluation, as published.
    Fresh,
}

/// Latents taken from the VAE encoder's distribution for a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ReferencePosterior {
    /// A sample, as published; always the same sample for the same image.
    #[default]
    Sample,
    /// The mean.
    Mean,
}

/// FABRIC settings. The defaults are those of the official Python interface.
///
/// ```
/// use fabric_core::fabric::FabricSettings;
/// let settings = FabricSettings { max_weight: 0.8, end: 0.5, ..FabricSettings::default() };
/// assert!(settings.validate().is_ok());
/// assert!(FabricSettings { start: f64::NAN, ..settings }.validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FabricSettings {
    /// Start of the window, as a share of the run from 0 to 1.
    pub start: f64,
    /// End of the window, as a share of the run from 0 to 1.
    pub end: f64,
    /// Rule that maps `start` and `end` to evaluations.
    pub window: WindowRule,
    /// Course of the weight over the window.
    pub curve: TimeCurve,
    /// Weight of a liked reference outside the window.
    pub min_weight: f64,
    /// Weight of a liked reference inside the window.
    pub max_weight: f64,
    /// Factor on the weight of disliked references, relative to liked ones.
    pub negative_scale: f64,
    /// Ratio of the weight at the bottleneck to the weight at full resolution, for liked references. Levels
    /// between are interpolated linearly.
    pub liked_bottleneck_scale: f64,
    /// The same ratio for disliked references.
    pub disliked_bottleneck_scale: f64,
    /// Effect of disliked references where no branch runs that guidance leads away from, for instance at guidance scale 1.
    pub dislikes_without_guidance: DislikesWithoutGuidance,
    /// Factors by block of the U-Net, for all references.
    pub block_weights: BlockWeights,
    /// Whether to divide each weight by the number of references of its side (liked or disliked), so that their
    /// share of the attention does not grow with their number ("burn-out"). Each image counts the references that act on
    /// it. References outside of the window of their
    /// [`ReferenceScope`](super::ReferenceScope) do not count. Off in the published code.
    pub normalise: bool,
    /// Which references are used if there are many.
    pub keep: KeepPolicy,
    /// Gives each image of a request other liked images to attend to, so that the images of a round resemble different
    /// ones; `None`: all attend to all. Not in the published code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liked_per_image: Option<LikedPerImage>,
    /// Source of the noise on references.
    pub noise: ReferenceNoise,
    /// Latents used for references.
    pub posterior: ReferencePosterior,
    /// Settings of the execution, which change time and memory but not the method.
    pub execution: FabricExecution,
}

impl Default for FabricSettings {
    fn default() -> Self {
        Self::official_api()
    }
}

impl FabricSettings {
    /// Sets how reference keys and values are computed.
    #[must_use]
    pub fn with_pass(self, pass: ReferencePass) -> Self {
        Self { execution: FabricExecution { pass, ..self.execution }, ..self }
    }

    /// Checks all settings and their combinations.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first invalid setting.
    pub fn validate(&self) -> Result<(), Error> {
        let share = |name: &str, value: f64| within(name, value, 0.0, 1.0);
        share("fabric.start", self.start)?;
        share("fabric.end", self.end)?;
        if self.start > self.end {
            return Err(Error::settings(
                "fabric.start",
                self.start,
                format!("at most fabric.end, which is {}", self.end),
                "swap them, or set max_weight to 0 to switch feedback off",
            ));
        }
        // Weights above 1 are allowed: a reference may count more than the image itself.
        for (name, value) in [
            ("fabric.min_weight", self.min_weight),
            ("fabric.max_weight", self.max_weight),
            ("fabric.negative_scale", self.negative_scale),
            ("fabric.liked_bottleneck_scale", self.liked_bottleneck_scale),
            ("fabric.disliked_bottleneck_scale", self.disliked_bottleneck_scale),
        ] {
            within(name, value, 0.0, 1000.0)?;
        }
        self.liked_per_image.map_or(Ok(()), LikedPerImage::validate)?;
        self.dislikes_without_guidance.validate()?;
        self.block_weights.validate("fabric.block_weights")?;
        self.execution.validate()?;
        if matches!(self.execution.pass, ReferencePass::Cached { .. }) && self.noise == ReferenceNoise::Fresh {
            return Err(Error::settings(
                "fabric.execution.pass",
                "cached with fresh noise",
                "fixed noise, without which nothing repeats that could be kept",
                "set fabric.noise to fixed, or fabric.execution.pass to interleaved",
            ));
        }
        Ok(())
    }
}

/// Checks that a number is within limits.
pub(super) fn within(name: &str, value: f64, low: f64, high: f64) -> Result<(), InvalidValue> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(InvalidValue::new(name, value, format!("a number from {low} to {high}"), "correct the setting"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Extrapolation;

    #[test]
    fn unusable_settings_are_refused_by_name() {
        let good = FabricSettings::default();
        let bad = [
            ("start", FabricSettings { start: f64::NAN, ..good.clone() }),
            ("end", FabricSettings { end: 1.5, ..good.clone() }),
            ("start", FabricSettings { start: 0.7, end: 0.2, ..good.clone() }),
            (
                "block_weights",
                FabricSettings {
                    block_weights: BlockWeights { mid: f64::NAN, ..BlockWeights::default() },
                    ..good.clone()
                },
            ),
            ("max_weight", FabricSettings { max_weight: -0.1, ..good.clone() }),
            (
                "dislikes_without_guidance.scale",
                FabricSettings {
                    dislikes_without_guidance: DislikesWithoutGuidance::Flipped { scale: f64::NAN },
                    ..good.clone()
                },
            ),
            (
                "dislikes_without_guidance.limit",
                FabricSettings {
                    dislikes_without_guidance: DislikesWithoutGuidance::Extrapolated(Extrapolation {
                        limit: 0.5,
                        ..Extrapolation::default()
                    }),
                    ..good.clone()
                },
            ),
            ("negative_scale", FabricSettings { negative_scale: f64::INFINITY, ..good.clone() }),
            (
                "token_merge_ratio",
                FabricSettings {
                    execution: FabricExecution { token_merge_ratio: 0.8, ..FabricExecution::default() },
                    ..good.clone()
                },
            ),
            ("liked_per_image", FabricSettings { liked_per_image: Some(LikedPerImage::new(0)), ..good.clone() }),
            ("chunk", good.clone().with_pass(ReferencePass::TwoPasses { chunk: 0 })),
            (
                "fresh noise",
                FabricSettings {
                    noise: ReferenceNoise::Fresh,
                    execution: ReferencePass::Cached { chunk: 4, budget: 1, half: false }.into(),
                    ..good.clone()
                },
            ),
        ];
        for (name, settings) in bad {
            let message = settings.validate().unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("expected"), "{message}");
        }
        assert!(good.validate().is_ok());
    }
}
