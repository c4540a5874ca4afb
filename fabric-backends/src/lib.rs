//! Device selection, and operations with specialised kernels.
//!
//! No other crate of the workspace distinguishes between backends.

#![deny(unsafe_code)]

mod device;
#[cfg(feature = "flex")]
mod kernels;
mod limits;
mod memory;
pub mod ops;
mod panics;
pub mod printable_text;
#[cfg(feature = "remote")]
mod remote;
mod threads;

pub use device::{DeviceError, DeviceKind, cpu, default_device, describe, device, matmul_format};
pub use memory::available_memory;
pub use panics::{catch_panic, panic_message};
#[cfg(feature = "remote")]
pub use remote::{ServeOptions, remote_device, serve, serve_with};
pub use threads::is_worker_thread;
