//! Stable Diffusion's networks, tokenizer and loaders.
//!
//! [`load_model`] builds a [`Pipeline`](fabric_core::pipeline::Pipeline) from a folder or a checkpoint file. The
//! parts can be built one by one with [`unet`], [`vae`], [`clip`] and [`tokenizer`], and their weights loaded with
//! [`load`] and [`lora`]. [`ModelConversion`] writes a model in another layout or type. With the feature `hub`, the
//! module of that name downloads models.

#![forbid(unsafe_code)]

pub mod clip;
pub mod config;
pub mod control;
pub mod corpus;
#[cfg(test)]
mod hostile_texts;
#[cfg(feature = "hub")]
pub mod hub;
pub mod layers;
pub mod load;
pub mod lora;
mod stable_diffusion;
pub mod tiny_vae;
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod train;
pub mod unet;
pub mod vae;

pub use stable_diffusion::{
    ConvertOptions, LoadPipeline, LoraChoice, ModelConversion, ModelError, ModelOptions, ModelReport, PlannedFile,
    PlannedNetwork, PreviewDecoder, RECOMMENDED_SETTINGS, StableDiffusion, StableDiffusionText, demo_folder,
    load_model, recommended_settings,
};
