use std::any::Any;

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
