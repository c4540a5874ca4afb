//! Devices, and the operations that deserve a kernel of their own.
//!
//! The only crate of the workspace that knows one backend from another.

#![deny(unsafe_code)]

mod device;
pub mod ops;

pub use device::{DeviceError, DeviceKind, default_device, describe, device};
