//! Caches of what references cost: their latents, and their keys and values.
//!
//! The key of each cache contains everything that its values depend on.

mod byte_budget;
mod claims;
mod disk;
mod latents;
mod recorded;
mod reference_kv;

pub(crate) use claims::Claim;
pub(crate) use latents::ReferenceLatents;
pub(crate) use recorded::in_half;
pub use recorded::{ReferenceTokens, TokensBySite};
pub use reference_kv::CacheStats;
pub(crate) use reference_kv::{ReferenceKvCache, ReferenceKvKey};
