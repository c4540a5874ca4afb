//! Networks that add residuals to a U-Net: ControlNet (2302.05543) and T2I-Adapter (2302.08453).
//!
//! Each reads a control image (edges, a pose, depth). They do not receive the image tokens of IP-Adapters: a
//! ControlNet attends to the text alone, as published.

mod conditioning;
mod config;
mod controlnet;
mod file;
mod hint;
mod names;
mod t2i;

pub use conditioning::{Control, ControlNetwork};
pub use config::{ChannelOrder, ControlNetConfig};
pub use controlnet::ControlNet;
pub use file::ControlNetFile;
pub use t2i::{T2IAdapter, T2IAdapterConfig, T2IAdapterKind};

#[cfg(test)]
mod tests;
