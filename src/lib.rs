//! Steer Stable Diffusion with pictures and feedback.

#![forbid(unsafe_code)]

pub use fabric_backends as backends;
pub use fabric_core as core;
pub use fabric_ipadapter as ipadapter;
pub use fabric_models as models;

pub use fabric_backends::default_device;
