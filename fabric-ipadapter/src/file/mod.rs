//! Adapter files: their names, and detection of the kind of adapter from names and shapes before any weights
//! are loaded.

mod config;
mod detect;
mod names;
mod within_unet;

pub use config::{AdapterConfig, FaceVersion, ProjectionConfig};
pub use names::AdapterFile;

#[cfg(test)]
mod tests;
