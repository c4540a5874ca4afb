//! Conversion of device panics to errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fabric_backends::panic_message;

use super::LoadError;

/// Runs a transfer to or from the device and converts a panic, by which devices report failures, to an error.
pub(super) fn guarded<T>(place: &str, tensor: &str, work: impl FnOnce() -> T) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| LoadError::Device {
        place: place.to_owned(),
        tensor: tensor.to_owned(),
        message: panic_message(&*panic),
    })
}
