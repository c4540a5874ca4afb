//! Networks that steer a U-Net through its skip connections: ControlNet (2302.05543) and T2I-Adapter (2302.08453).
//!
//! Each reads an image that was made for it (edges, a pose, depths) and knows nothing of adapters' image tokens: a
//! ControlNet sees the text alone, as published.

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
