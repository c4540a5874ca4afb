//! Networks that add residuals to a U-Net: ControlNet (2302.05543) and T2I-Adapter (2302.08453).
//!
//! Each reads a control image (edges, a pose, depth). They do not receive the image tokens of IP-Adapters: a
//! ControlNet attends to the text alone, as published.

mod config;
mod controlnet;
mod file;
mod hint;
mod names;
mod steering;
mod t2i;

pub use config::{ChannelOrder, ControlNetConfig};
pub use controlnet::ControlNet;
pub use file::ControlNetFile;
pub use steering::{Control, ControlNetwork};
pub use t2i::{T2IAdapter, T2IAdapterConfig, T2IAdapterKind};

#[cfg(test)]
mod tests;
