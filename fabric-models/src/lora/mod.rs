//! Low-rank adaptation (LoRA, Hu et al. 2021).
//!
//! A LoRA file contains two low-rank matrices for each adapted weight `W`; the adapted weight is
//! `W + scale · alpha / rank · up · down`. [`LoraFile`] reads the four published layouts and returns one [`Lora`]
//! for each network of the model.
//!
//! | layout | example key |
//! |---|---|
//! | kohya | `lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight`, with `.alpha` |
//! | peft | `unet.down_blocks.0.attentions.0.proj_in.lora_A.weight` |
//! | diffusers | `unet.down_blocks.0.attentions.0.proj_in.lora.down.weight` |
//! | attention processors | `down_blocks.0. ... .attn1.processor.to_q_lora.down.weight` |
//!
//! There are two ways to apply a LoRA, with equal results:
//!
//! - [`merge`] computes the new weights once. The network is as fast as before. If a clone of the original is kept,
//!   the changed weights are in memory twice.
//! - [`attach`] stores the low-rank matrices with the unchanged weights, and each layer computes its weight whenever
//!   it runs. Weights are not duplicated, and LoRAs can be rescaled, combined and removed. The overhead is small for
//!   LoRAs of attention layers and larger for LoRAs of all convolutions ([`Attached`] has figures).
//!
//! ```no_run
//! use fabric_models::lora::{LoraFile, attach, merge};
//! # use fabric_models::{clip::ClipText, lora::LoraError, unet::UNet};
//! # fn run(unet: UNet, text_encoder: ClipText) -> Result<(), LoraError> {
//! let file = LoraFile::open("pixel-art.safetensors")?;
//! let (text_encoder, report) = merge(text_encoder, &file.text_encoder, 0.8)?;
//! println!("{report}");
//! let (unet, _) = attach(unet, &file.unet, 0.8)?;
//! let softer = unet.with_scales(&[0.4])?;
//! let plain = softer.detach();
//! # let _ = (text_encoder, plain); Ok(()) }
//! ```

mod apply;
mod entry;
mod error;
mod file;
mod key;
mod low_rank;
mod metadata;
mod names;
mod report;
mod resolve;

pub(crate) use apply::check;
pub use apply::{Attached, attach, merge};
pub use entry::Lora;
pub(crate) use entry::{LoraEntry, LoraLayout};
pub use error::LoraError;
pub use file::LoraFile;
pub use report::{LoraMismatch, LoraReport, UnmatchedEntry};

#[cfg(test)]
mod tests;
