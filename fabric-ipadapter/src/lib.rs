//! IP-Adapter and IPAdapter-Instruct: images as prompts.
//!
//! An [`IpAdapter`] makes tokens of [`Features`] that an image encoder found in images; an [`ImagePromptKv`] offers their
//! keys and values to a U-Net's cross-attention layers, as
//! [`DecoupledTokens`](fabric_core::attention::DecoupledTokens): a softmax of their own, whose result is added to the
//! text's. An [`ImagePrompt`] does so for a whole run, and with an [`Instruction`] takes of the images what is meant.

#![forbid(unsafe_code)]

mod adapter;
mod error;
mod features;
mod file;
mod instruction;
mod mask;
mod noise;
mod numbering;
mod preset;
pub mod projection;
mod prompt;
mod scale_schedule;
mod scales;
pub mod sd3;
mod steering;
mod tiles;
#[cfg(feature = "train")]
pub mod train;

pub use adapter::{AdapterWeights, IpAdapter, KeyValue};
pub use error::AdapterError;
pub use features::{Combine, FeatureKind, Features};
pub use file::{AdapterConfig, AdapterFile, FaceVersion, ProjectionConfig};
pub use instruction::{Aspect, InstructGuidance, Instruction};
pub use mask::{Mask, MaskMode};
pub use noise::{NoiseKind, noised_image};
pub use numbering::numbered_layers;
pub use preset::{LayerPreset, PresetScales};
pub use prompt::{ImagePromptKv, ImagePromptRows};
pub use scale_schedule::ScaleSchedule;
pub use scales::LayerScales;
pub use steering::{ImagePrompt, InstructTexts};
pub use tiles::{Tile, tiles};
