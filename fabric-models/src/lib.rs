//! Stable Diffusion's networks, tokenizer and loaders.

#![forbid(unsafe_code)]

pub mod clip;
pub mod config;
pub mod layers;
pub mod load;
pub mod lora;
pub mod tokenizer;
pub mod unet;
pub mod vae;
