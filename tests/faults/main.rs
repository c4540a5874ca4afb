//! Fault drills on the tiny networks of `tests/golden/models`: cancels, panics, failing devices, killed writers, full
//! disks, values that are not finite, threads, lost devices and attacked caches. `docs/reliability.md` lists them.
//!
//! After each fault the same pipeline must make the same image as before, to the bit on a CPU.
//!
//! `FABRIC_KILLS=100 cargo test --release --features train --test faults killed -- --nocapture` kills each writer 100
//! times.

mod caches;
mod callbacks;
mod cancels;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod disks;
mod failing_networks;
mod images;
mod killed_writers;
mod lost_devices;
#[path = "../bad_input/memory.rs"]
#[allow(dead_code, reason = "the drills compare levels of memory, not peaks")]
mod memory;
mod models;
mod not_finite;
mod steady_memory;
mod threads;
#[cfg(feature = "train")]
mod training;

#[global_allocator]
static ALLOCATOR: memory::CountingAllocator = memory::CountingAllocator;
