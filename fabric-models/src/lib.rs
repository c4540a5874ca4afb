//! Stable Diffusion's networks, tokenizer and loaders.
//!
//! [`load_model`] makes a [`Pipeline`](fabric_core::pipeline::Pipeline) of a folder or a checkpoint file; the parts can
//! be had one by one from [`unet`], [`vae`], [`clip`] and [`tokenizer`], with [`load`] and [`lora`] for their weights.

#![forbid(unsafe_code)]

pub mod clip;
pub mod config;
pub mod control;
pub mod layers;
pub mod load;
pub mod lora;
mod stable_diffusion;
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod train;
pub mod unet;
pub mod vae;
#[cfg(feature = "world")]
pub mod world;

pub use stable_diffusion::{
    LoadPipeline, LoraChoice, ModelError, ModelOptions, ModelReport, StableDiffusion, StableDiffusionText, demo_folder,
    load_folder, load_model, load_single_file,
};
