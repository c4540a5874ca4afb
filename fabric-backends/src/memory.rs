//! How much memory is free.

use burn::tensor::Device;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::device::is_cpu;
use crate::limits::room;
#[cfg(feature = "flex")]
use crate::ops::kept_bytes;

/// Bytes that a computation on this device may still take, where that can be known: on a CPU what the machine has free, or
/// what the limits of this process leave of it if that is less. On Linux these are the limits of control groups (systemd,
/// containers, batch systems) and of the process itself (`ulimit -v` and `-d`). Elsewhere nothing is known.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use fabric_backends::{DeviceKind, available_memory, device};
/// assert!(available_memory(&device(DeviceKind::Flex).unwrap()).unwrap() > 0);
/// # }
/// ```
pub fn available_memory(device: &Device) -> Option<u64> {
    if !is_cpu(device) {
        return None;
    }
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::everything()));
    // Free swap counts: slow is better than refused.
    let machine = system.available_memory() + system.free_swap();
    // A system that does not say reports 0.
    let machine = Some(machine).filter(|free| *free > 0);
    let free = machine.into_iter().chain(room(system.free_swap())).min()?;
    // What is kept for results to come looks taken, but is not.
    Some(free + kept_bytes())
}

#[cfg(not(feature = "flex"))]
fn kept_bytes() -> u64 {
    0
}
