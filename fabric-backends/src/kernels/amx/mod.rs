//! Matrix products and 3x3 convolutions of bf16 values with f32 sums, on the tile registers of processors with
//! AMX: several times as fast as f32, with relative errors of about 0.4 % per factor.
//!
//! They are off unless `FABRIC_MATMUL=bf16` is set. Tensors stay f32; only the factors of a product are rounded.

mod conv;
mod pack;
mod product;
mod tiles;

use std::sync::OnceLock;

use super::isa::arch;
use crate::DeviceError;

pub(super) use product::{is_fast, part_length, product};

/// Edge of a block of results: two tiles along both axes.
const BLOCK: usize = 32;

/// Rows of a tile, and words in each of its rows.
const TILE: usize = 16;

/// bf16 values in a row of a tile: products are summed over this many at a time.
const DEPTH: usize = 32;

/// Whether products are computed in bf16: requested by `FABRIC_MATMUL`, and supported by this processor.
pub(crate) fn is_on() -> bool {
    static ON: OnceLock<bool> = OnceLock::new();
    *ON.get_or_init(|| requested().unwrap_or(false) && is_supported())
}

/// Returns whether `FABRIC_MATMUL` requests bf16, or an error if its value is unknown.
pub(crate) fn requested() -> Result<bool, DeviceError> {
    match std::env::var_os("FABRIC_MATMUL") {
        None => Ok(false),
        Some(value) => parsed(&value.to_string_lossy()),
    }
}

fn parsed(value: &str) -> Result<bool, DeviceError> {
    match value {
        "f32" => Ok(false),
        "bf16" => Ok(true),
        _ => Err(DeviceError::Matmul { got: value.to_owned() }),
    }
}

/// Whether the processor and the operating system support these kernels, and `FABRIC_MAX_ISA` allows them.
fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(arch(), pulp::Arch::V4(_)) && tiles::are_available();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[cfg(test)]
mod tests;
