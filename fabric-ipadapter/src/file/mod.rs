//! Adapter files: their names, and what an adapter is, told from names and shapes before anything is loaded.

mod config;
mod detect;
mod names;
mod within_unet;

pub use config::{AdapterConfig, FaceVersion, ProjectionConfig};
pub use names::AdapterFile;

#[cfg(test)]
mod tests;
