//! FABRIC settings with the published defaults.

use serde::{Deserialize, Serialize};

use super::KeepPolicy;
use crate::Error;

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

/// How reference keys and values are computed. All variants give the same result, except for rounding by `half`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case", tag = "way")]
pub enum ReferencePass {
    /// One pass with references in the same batch as the images; nothing is stored.
    #[default]
    Interleaved,
    /// A separate pass records references first, `chunk` at a time. Needs less memory.
    TwoPasses {
        /// References per recording pass, at least 1.
        chunk: usize,
    },
    /// Two passes, with recorded keys and values cached across images, prompts and rounds. Needs
    /// [`ReferenceNoise::Fixed`].
    Cached {
        /// References per recording pass, at least 1.
        chunk: usize,
        /// Memory budget of the cache in bytes. Stable Diffusion 1.5 at 512x512 needs 46 MB per reference and
        /// evaluation in f16, twice that in f32. References recorded in one chunk share their memory on the CPU
        /// if kept in f32: it is freed only when all of them are dropped. References that do not fit are
        /// recorded each time, or kept on disk if the pipeline has a spill folder
        /// ([`Pipeline::with_spill`](crate::pipeline::Pipeline::with_spill)).
        budget: u64,
        /// Whether keys and values computed in f32 are cached in f16, which halves their size and rounds them
        /// to 11 bits. Values beyond 65,504 overflow; an image that becomes invalid this way is an error. The
        /// run that records them also uses the rounded values, so an image does not depend on the state of the
        /// cache.
        #[serde(default)]
        half: bool,
    },
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
    /// Whether to divide each weight by the number of references of its side (liked or disliked), so that their
    /// share of the attention does not grow with their number ("burn-out"). Off in the published code.
    pub normalise: bool,
    /// Which references are used if there are many.
    pub keep: KeepPolicy,
    /// Source of the noise on references.
    pub noise: ReferenceNoise,
    /// Latents used for references.
    pub posterior: ReferencePosterior,
    /// How reference keys and values are computed and stored.
    pub pass: ReferencePass,
    /// Share of each reference's tokens, from 0 (none) to 0.75, that token merging (ToMe) merges into similar
    /// ones, which saves time and memory in attention. The only setting that trades exactness for speed. On a
    /// GPU each merge reads values back to the host, so it pays off mainly if keys and values are cached.
    pub token_merge_ratio: f64,
}

impl Default for FabricSettings {
    fn default() -> Self {
        Self::official_api()
    }
}

impl FabricSettings {
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
