//! The border where a device's panics become errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fabric_backends::panic_message;

use super::LoadError;

/// Runs what moves a tensor to or from the device, whose failures are panics, and makes an error of them.
pub(super) fn guarded<T>(place: &str, tensor: &str, work: impl FnOnce() -> T) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| LoadError::Device {
        place: place.to_owned(),
        tensor: tensor.to_owned(),
        message: panic_message(&*panic),
    })
}
