//! Attention processors: the one place where reference images and image prompts act on a U-Net's attention
//! layers.
//!
//! An [`AttnProcessor`] is called at every attention layer ([`AttnSite`]) and returns the additional tokens of
//! that layer as values ([`AttnExtras`]). One function, [`attend`], computes the attention. No state is set on a
//! network between two calls.

mod attend;
mod contributions;
mod decoupled;
mod extrapolation;
mod measured;
mod processor;
mod site;

pub use attend::{attend, merge_heads, split_heads};
pub(crate) use contributions::{LayerContributions, MeasuredContributions};
pub use extrapolation::Extrapolation;
pub(crate) use measured::{MeasuredAttention, MeasuredShare};
pub use processor::{AttnCall, AttnExtras, AttnProcessor, DecoupledTokens, JointTokens, NoProcessor};
pub use site::{AttnKind, AttnSite, Block};
