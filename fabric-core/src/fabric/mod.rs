//! FABRIC: steers generation with liked and disliked images, without training (arXiv 2307.10159).
//!
//! A reference image is noised to the noise level of the evaluation and passes through the U-Net with the empty
//! prompt. The image being generated then also attends to the keys and values of the reference's self-attention
//! layers: liked images in the conditional branch, disliked ones in the unconditional branch, weighted over time and
//! depth as [`FabricSettings`] specifies. Without guidance there is no unconditional branch, and disliked images act as
//! [`DislikesWithoutGuidance`] says.

mod block_weights;
mod depth;
mod execution;
mod liked_per_image;
mod merging;
mod presets;
mod processors;
mod reference;
mod references;
mod schedule;
mod scope;
mod selection;
mod settings;
mod without_guidance;

pub use crate::cache::{ReferenceTokens, TokensBySite};
pub use block_weights::BlockWeights;
pub use depth::depth_position;
pub use execution::{FabricExecution, ReferencePass};
pub use liked_per_image::LikedPerImage;
pub use processors::{InBatchReferences, RecordedReferences, ReferenceWeight, WeightedRows};
use reference::acted_on;
pub(crate) use reference::check_images;
pub use reference::{AttendingImages, Reference, Side};
pub(crate) use references::{Contribution, ReferencePasses, References, indices};
pub use schedule::CallWeights;
pub(crate) use schedule::FeedbackSchedule;
pub use scope::ReferenceScope;
pub use selection::KeepPolicy;
pub use settings::{FabricSettings, ReferenceNoise, ReferencePosterior, TimeCurve, WindowRule};
pub use without_guidance::DislikesWithoutGuidance;
