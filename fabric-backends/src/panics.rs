use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic said: burn reports what a device cannot do by panicking, and borders make errors of it.
///
/// ```
/// let panic = std::panic::catch_unwind(|| panic!("out of memory")).unwrap_err();
/// assert_eq!(fabric_backends::panic_message(&*panic), "out of memory");
/// ```
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".to_owned())
}

/// Runs code that is not ours (a decoder, a callback) and returns what it said if it panicked.
///
/// What it changed before it panicked stays changed, so `work` should own what it changes, or its caller should drop it.
///
/// ```
/// assert_eq!(fabric_backends::catch_panic(|| 7), Ok(7));
/// assert_eq!(fabric_backends::catch_panic(|| -> u8 { panic!("index 3 of 2") }), Err("index 3 of 2".to_owned()));
/// ```
///
/// # Errors
///
/// The message of the panic.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(&*panic))
}
