//! IP-Adapter and IPAdapter-Instruct: pictures as prompts.
//!
//! An [`IpAdapter`] makes tokens of [`Features`] that an image encoder found in pictures; an [`ImagePrompt`] offers their
//! keys and values to a U-Net's cross-attention layers, as
//! [`DecoupledTokens`](fabric_core::attention::DecoupledTokens): a softmax of their own, whose result is added to the
//! text's.

#![forbid(unsafe_code)]

mod adapter;
mod error;
mod features;
mod file;
mod mask;
mod numbering;
pub mod projection;
mod prompt;
mod scales;

pub use adapter::{AdapterWeights, IpAdapter, KeyValue};
pub use error::AdapterError;
pub use features::{FeatureKind, Features};
pub use file::{AdapterConfig, FaceVersion, ProjectionConfig, open_adapter};
pub use mask::{Mask, MaskMode};
pub use numbering::numbered_layers;
pub use prompt::{ImagePrompt, PromptedRows};
pub use scales::LayerScales;
