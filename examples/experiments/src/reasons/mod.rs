//! The experiment `reasons`: votes that say which aspect of an image is right or wrong, against plain votes.
//!
//! | part | file |
//! |---|---|
//! | reasons of an arm, as data | `arm_reasons.rs` |
//! | the arms | `arms.rs` |
//! | coarse and fine blocks of a U-Net | `unet_blocks.rs` |
//! | adapters that realise reasons | `adapter.rs` |
//! | votes of a session, and the requests that they make | `session.rs` |

mod adapter;
mod arm_reasons;
mod arms;
mod session;
mod unet_blocks;

pub use adapter::ReasonAdapter;
pub use arm_reasons::{ArmReasons, DislikedImages, GivenReasons};
pub(crate) use arms::arms;
pub(crate) use session::ReasonedSession;
pub(crate) use unet_blocks::UNetBlocks;
