//! Settings of FABRIC's execution: they change time and memory, not the method.

use serde::{Deserialize, Serialize};

use super::settings::within;
use crate::Error;

/// Way to compute the keys and values of references. All variants give the same result, except for rounding by `half`.
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
    /// [`ReferenceNoise::Fixed`](super::ReferenceNoise::Fixed).
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

/// Settings of FABRIC's execution, which change time and memory but not the method.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FabricExecution {
    /// Way to compute and store keys and values.
    pub pass: ReferencePass,
    /// Share of each reference's tokens, from 0 (none) to 0.75, that token merging (ToMe) merges into similar
    /// ones, which saves time and memory in attention. The only setting that trades exactness for speed. On a
    /// GPU each merge reads values back to the host, so it pays off mainly if keys and values are cached.
    pub token_merge_ratio: f64,
}

/// This pass, without token merging.
impl From<ReferencePass> for FabricExecution {
    fn from(pass: ReferencePass) -> Self {
        Self { pass, ..Self::default() }
    }
}

impl FabricExecution {
    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first invalid setting.
    pub fn validate(&self) -> Result<(), Error> {
        within("fabric.execution.token_merge_ratio", self.token_merge_ratio, 0.0, 0.75)?;
        match self.pass {
            ReferencePass::TwoPasses { chunk: 0 } | ReferencePass::Cached { chunk: 0, .. } => {
                Err(Error::settings("fabric.execution.pass.chunk", 0, "at least 1", "use 1 when memory is short"))
            }
            _ => Ok(()),
        }
    }
}
