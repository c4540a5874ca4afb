//! How images steer a U-Net: the one seam inside its attention layers.
//!
//! An [`AttnProcessor`] is asked at every attention layer ([`AttnSite`]) and returns, as values, what
//! that layer should attend to besides its own tokens ([`AttnExtras`]). One function, [`attend`], knows
//! how. Nothing is set on a network between two calls.

mod attend;
mod mass;
mod processor;
mod site;

pub use attend::{attend, merge_heads, split_heads};
pub use mass::MeasuredMass;
pub use processor::{AttnCall, AttnExtras, AttnProcessor, DecoupledTokens, JointTokens, NoProcessor};
pub use site::{AttnKind, AttnSite, Block};
