//! FABRIC's settings, with the published defaults.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::session::KeepPolicy;

/// Which evaluations lie inside the window from `start` to `end`.
///
/// The published implementations disagree; each rule keeps the name of where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum WindowRule {
    /// Indices `round(calls * start) ..= round(calls * end)`, halves rounded to even, the end included: the official
    /// code and the diffusers community pipeline.
    #[default]
    Official,
    /// `start <= 1 - timestep / (train steps - 1) <= end`: the web UI extension.
    Timestep,
    /// Indices `floor(calls * start) .. floor(calls * end)`, the end excluded: the ComfyUI node.
    HalfOpen,
}

/// How the weight runs inside the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum TimeCurve {
    /// `max_weight` throughout: the published code.
    #[default]
    Constant,
    /// From `max_weight` down to `min_weight`, linearly: stresses coarse features (paper, section 3).
    Falling,
    /// From `min_weight` up to `max_weight`, linearly: stresses fine features (paper, section 3).
    Rising,
}

/// Where the noise on a reference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceNoise {
    /// From the image's content and the noise level alone, so that its keys and values can be kept and an image
    /// does not depend on its batch. At each level the distribution is the published one.
    #[default]
    Fixed,
    /// Drawn anew at every evaluation, as published.
    Fresh,
}

/// Which latents stand for a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ReferencePosterior {
    /// A sample of the encoder's distribution, as published; the same one for an image every time.
    #[default]
    Sample,
    /// The mean.
    Mean,
}

/// How reference keys and values reach the image. All ways give the same result, but for what `half` rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case", tag = "way")]
pub enum ReferencePass {
    /// References ride in the same batch as the image: one pass, nothing stored.
    #[default]
    Interleaved,
    /// A recording pass first, `chunk` references at a time: for when memory is short.
    TwoPasses {
        /// References per recording pass, at least 1.
        chunk: usize,
    },
    /// Two passes, and what was recorded is kept across images, prompts and rounds. Needs
    /// [`ReferenceNoise::Fixed`].
    Cached {
        /// References per recording pass, at least 1.
        chunk: usize,
        /// How many bytes may be kept in memory. Stable Diffusion 1.5 at 512x512 needs 46 MB per reference and
        /// evaluation in f16, twice that in f32. What is kept in f32 was recorded `chunk` references at a time, and on
        /// the CPU their memory is free again only when all of them are dropped. What does not fit is recorded each
        /// time, or kept on disk by a pipeline [that may](crate::pipeline::Pipeline::with_spill).
        budget: u64,
        /// Whether what a network computed in f32 is kept in f16: half the bytes, and every kept number is rounded to 11
        /// bits. Numbers beyond 65,504 do not exist there: an image that they spoil is an error. Already the run
        /// that records uses the rounded ones, so that an image does not depend on what was kept before.
        #[serde(default)]
        half: bool,
    },
}

/// FABRIC's settings. The default is the official Python interface's.
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
    /// Where the window starts, as a share of the run.
    pub start: f64,
    /// Where the window ends.
    pub end: f64,
    /// What `start` and `end` mean exactly.
    pub window: WindowRule,
    /// How the weight runs inside the window.
    pub curve: TimeCurve,
    /// Weight of a liked reference outside the window.
    pub min_weight: f64,
    /// Weight of a liked reference inside the window.
    pub max_weight: f64,
    /// A disliked reference's weight over a liked one's.
    pub negative_scale: f64,
    /// Weight at the bottleneck over weight at full resolution, liked references; levels between are interpolated.
    pub liked_bottleneck_scale: f64,
    /// The same for disliked references.
    pub disliked_bottleneck_scale: f64,
    /// Divides each weight by the number of references on its side, so that their share of the attention does not
    /// grow with their number ("burn-out"). Off in the published code.
    pub normalise: bool,
    /// Which references are used when there are many.
    pub keep: KeepPolicy,
    /// Noise on the references.
    pub noise: ReferenceNoise,
    /// Latents of the references.
    pub posterior: ReferencePosterior,
    /// How keys and values travel.
    pub pass: ReferencePass,
    /// Share of each reference's tokens, from 0 (none) to 0.75, that are merged into others like them: fewer keys to attend
    /// to, in time and in memory. The only setting that trades exactness for speed. On a GPU each merge reads a few numbers
    /// back, so it pays where keys are kept.
    pub token_merge_ratio: f64,
}

impl Default for FabricSettings {
    fn default() -> Self {
        Self::official_api()
    }
}

impl FabricSettings {
    /// Checks every setting and every combination.
    ///
    /// # Errors
    ///
    /// Names the first setting that cannot be used.
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
        within("fabric.token_merge_ratio", self.token_merge_ratio, 0.0, 0.75)?;
        match self.pass {
            ReferencePass::Interleaved => {}
            ReferencePass::TwoPasses { chunk } | ReferencePass::Cached { chunk, .. } if chunk == 0 => {
                return Err(Error::settings("fabric.pass.chunk", 0, "at least 1", "use 1 when memory is short"));
            }
            ReferencePass::Cached { .. } if self.noise == ReferenceNoise::Fresh => {
                return Err(Error::settings(
                    "fabric.pass",
                    "cached with fresh noise",
                    "fixed noise, without which nothing repeats that could be kept",
                    "set fabric.noise to fixed, or fabric.pass to interleaved",
                ));
            }
            ReferencePass::TwoPasses { .. } | ReferencePass::Cached { .. } => {}
        }
        Ok(())
    }
}

fn within(name: &str, value: f64, low: f64, high: f64) -> Result<(), Error> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::settings(name, value, format!("a number from {low} to {high}"), "correct the setting"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_settings_are_refused_by_name() {
        let good = FabricSettings::default();
        let bad = [
            ("start", FabricSettings { start: f64::NAN, ..good.clone() }),
            ("end", FabricSettings { end: 1.5, ..good.clone() }),
            ("start", FabricSettings { start: 0.7, end: 0.2, ..good.clone() }),
            ("max_weight", FabricSettings { max_weight: -0.1, ..good.clone() }),
            ("negative_scale", FabricSettings { negative_scale: f64::INFINITY, ..good.clone() }),
            ("token_merge_ratio", FabricSettings { token_merge_ratio: 0.8, ..good.clone() }),
            ("chunk", FabricSettings { pass: ReferencePass::TwoPasses { chunk: 0 }, ..good.clone() }),
            (
                "fresh noise",
                FabricSettings {
                    noise: ReferenceNoise::Fresh,
                    pass: ReferencePass::Cached { chunk: 4, budget: 1, half: false },
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
