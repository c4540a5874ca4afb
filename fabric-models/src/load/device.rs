use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::LoadError;

/// Runs what moves a tensor to or from the device, whose failures are panics, and makes an error of them.
pub(super) fn guarded<T>(place: &str, tensor: &str, work: impl FnOnce() -> T) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| LoadError::Device {
        place: place.to_owned(),
        tensor: tensor.to_owned(),
        message: panic_message(&*panic),
    })
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".to_owned())
}
