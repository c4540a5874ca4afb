//! How much memory is free.

use burn::tensor::Device;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::device::is_cpu;
#[cfg(feature = "flex")]
use crate::ops::kept_bytes;

/// Bytes that a computation on this device may still take, where that can be known: on a CPU what the machine (or
/// the container) has free, elsewhere nothing is known.
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
    let free = system.cgroup_limits().map_or(machine, |limits| machine.min(limits.free_memory));
    // A system that does not say reports 0. What is kept for results to come looks taken, but is not.
    (free > 0).then(|| free + kept_bytes())
}

#[cfg(not(feature = "flex"))]
fn kept_bytes() -> u64 {
    0
}
