//! Operations with specialised kernels.
//!
//! Each operation has a plain implementation with burn's operations, for every backend and number type, and f32
//! kernels for the CPU (feature `flex`) with their own gradients.

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

#[cfg(all(test, feature = "flex", feature = "autodiff"))]
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
