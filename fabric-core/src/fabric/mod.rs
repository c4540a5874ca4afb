//! FABRIC: images that a person likes or dislikes steer the next ones (arXiv 2307.10159).
//!
//! A reference image is noised to the level of the step and passes through the U-Net under the empty prompt.
//! The keys and values of its self-attentions then join those of the image being made: a liked image's in
//! the conditional branch, a disliked one's in the unconditional branch, weighted by [`FabricSettings`] over time
//! and depth. Nothing is trained.

mod byte_budget;
mod cache;
mod depth;
mod lending;
mod merging;
mod presets;
mod reference;
mod schedule;
mod settings;
mod spill;

pub use cache::{CacheStats, ReferenceKvCache, ReferenceKvKey};
pub use depth::depth_position;
pub use lending::{InBatchReferences, RecordedReferences, ReferenceTokens, ReferenceWeight, TokensBySite};
pub(crate) use reference::acted_on;
pub use reference::{Reference, Side};
pub use schedule::{CallWeights, FeedbackSchedule};
pub use settings::{FabricSettings, ReferenceNoise, ReferencePass, ReferencePosterior, TimeCurve, WindowRule};
