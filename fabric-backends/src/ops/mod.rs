//! Operations with a kernel of their own.
//!
//! Each has a plain constraints of burn's operations, which every backend and number type runs, and kernels for f32 on the
//! CPU (feature `flex`) with derivatives of their own.

mod activation;
mod attention;
mod cast;
mod conv2d;
#[cfg(feature = "flex")]
mod flex;
mod fused;
mod linear;
mod norm;
mod softmax;

#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(feature = "flex")]
pub(crate) use flex::kept_bytes;

pub use activation::{Pointwise, geglu, pointwise};
pub use attention::{KeyGroup, causal_attention, grouped_attention, weighted_attention};
pub use cast::{cast, computes_in};
pub use conv2d::{conv2d, to_kernel_layout};
pub use linear::linear;
pub use norm::{group_norm, layer_norm};
pub use softmax::softmax;
