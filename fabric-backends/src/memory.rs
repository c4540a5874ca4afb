//! Available memory of a device.

use burn::tensor::Device;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::device::is_cpu;
use crate::limits::room;
#[cfg(feature = "flex")]
use crate::ops::kept_bytes;

/// Returns how many more bytes a computation on this device can use, or `None` if unknown.
///
/// On a CPU this is the free memory and swap of the machine, or what the limits of this process leave if that
/// is less. On Linux, limits are those of control groups (systemd, containers, batch systems) and of the
/// process itself (`ulimit -v` and `-d`). Always `None` for other devices.
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
    // Free swap counts: swapping is better than refusing to run.
    let machine = system.available_memory() + system.free_swap();
    // Systems that do not report free memory give 0.
    let machine = Some(machine).filter(|free| *free > 0);
    let free = machine.into_iter().chain(room(system.free_swap())).min()?;
    // The memory pool of the CPU kernels counts as used, but is available to new results.
    Some(free + kept_bytes())
}

#[cfg(not(feature = "flex"))]
fn kept_bytes() -> u64 {
    0
}
