//! IP-Adapter and IPAdapter-Instruct: images as prompts.
//!
//! An [`IpAdapter`] projects image-encoder [`Features`] to tokens. An [`ImagePromptKv`] holds the keys and
//! values of these tokens for the cross-attention layers of a U-Net and adds them as
//! [`DecoupledTokens`](fabric_core::attention::DecoupledTokens): a softmax each or a shared one, whose result is added to
//! that of the text. An [`ImagePrompt`] ([`IpAdapter::prompt`]) applies this over a whole run; with an [`Instruction`],
//! it selects which aspect of the images is used.

#![forbid(unsafe_code)]

mod adapter;
mod aspect_layers;
mod error;
mod features;
mod file;
mod image_prompt;
mod instruct_texts;
mod instruction;
mod mask;
mod noise;
mod numbering;
mod prepared;
mod preset;
mod projection;
mod prompt;
mod scale_schedule;
mod scales;
pub mod sd3;
mod shares;
mod tiles;
#[cfg(feature = "train")]
pub mod train;

pub use adapter::{AdapterWeights, IpAdapter};
pub use error::AdapterError;
pub use fabric_core::Aspect;
pub use features::{Combine, FeatureKind, Features};
pub use file::{AdapterConfig, AdapterFile, FaceVersion, ProjectionConfig};
pub use image_prompt::{ImagePrompt, PromptImages};
pub use instruct_texts::InstructTexts;
pub use instruction::{InstructGuidance, Instruction};
pub use mask::{Mask, MaskMode};
pub use noise::{NoiseKind, noised_image};
pub use numbering::numbered_layers;
pub use prepared::PreparedImagePrompt;
pub use preset::LayerPreset;
pub use projection::ResamplerConfig;
pub use prompt::{ImagePromptKv, ImagePromptRows};
pub use scale_schedule::ScaleSchedule;
pub use scales::LayerScales;
pub use tiles::{Tile, tiles};
