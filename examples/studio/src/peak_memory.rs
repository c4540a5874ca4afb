//! Peak memory of the server's process while it works, on systems that tell it.

use std::fs;

/// Measures the largest resident memory of this process from its creation on.
///
/// Linux notes the peak of a process and lets the process itself reset it. On other systems, and where `/proc` cannot
/// be written to, there is no figure. The memory of a GPU is not included.
#[derive(Debug)]
pub(crate) struct PeakMemory {
    is_known: bool,
}

impl PeakMemory {
    /// Starts to measure.
    pub(crate) fn start() -> Self {
        // A 5 sets the peak to the resident memory of this moment, see proc(5).
        Self { is_known: cfg!(target_os = "linux") && fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The peak since the start in bytes, or `None` if the system does not tell it.
    pub(crate) fn bytes(&self) -> Option<u64> {
        if self.is_known { peak_in(&fs::read_to_string("/proc/self/status").ok()?) } else { None }
    }
}

/// Returns the peak in bytes from the text of `/proc/PID/status`.
fn peak_in(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_status_of_a_process() {
        let status = "Name:\tfabric-studio\nVmHWM:\t    1932 kB\nVmRSS:\t     900 kB\n";
        assert_eq!(peak_in(status), Some(1932 << 10));
        for other in ["", "VmHWM:\n", "VmHWM:\t1932\n", "VmHWM:\t-1 kB\n", "VmRSS:\t900 kB\n"] {
            assert_eq!(peak_in(other), None, "{other}");
        }
    }

    #[test]
    fn memory_that_was_given_back_counts() {
        let memory = PeakMemory::start();
        // Not every system tells it.
        let Some(before) = memory.bytes() else { return };
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        let peak = memory.bytes().expect("the peak");
        assert!(peak > before + (32 << 20), "{before} bytes before, {peak} bytes after");
    }
}
