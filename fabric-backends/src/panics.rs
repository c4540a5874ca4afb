use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns the message of a panic. burn panics when a device cannot do something; such panics become errors at
/// the borders of this library.
///
/// ```
/// let panic = std::panic::catch_unwind(|| panic!("out of memory")).unwrap_err();
/// assert_eq!(fabric_backends::panic_message(&*panic), "out of memory");
/// ```
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it gave no reason".to_owned())
}

/// Runs foreign code (a decoder, a callback) and turns a panic into an error with its message.
///
/// Changes that `work` made before the panic remain, so `work` should own what it changes, or the caller should
/// drop it afterwards.
///
/// ```
/// assert_eq!(fabric_backends::catch_panic(|| 7), Ok(7));
/// assert_eq!(fabric_backends::catch_panic(|| -> u8 { panic!("index 3 of 2") }), Err("index 3 of 2".to_owned()));
/// ```
///
/// # Errors
///
/// Returns the message of the panic if `work` panics.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_message(&*panic))
}
