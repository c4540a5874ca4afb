//! One module per golden file.

mod control;
mod controlnet;
mod fabric;
mod harness;
mod instruct;
mod ip_adapter;
mod lora;
mod metrics;
mod model;
mod models;
mod pipeline;
mod preprocess;
mod schedulers;
mod sdxl;
mod text;
mod tiny_autoencoder;
mod tokenizer;
mod unet;
mod vae;
mod vision;
