//! Numbers as text.

/// Returns a number with about four significant digits, or "-" if it is not finite.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "-".to_owned()
    } else if size != 0.0 && !(0.001..1e7).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 1000.0 {
        format!("{value:.0}")
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// Returns a number as [`number`] does, but whole numbers, such as rounds, without decimals.
pub(super) fn short_number(value: f64) -> String {
    if is_whole(value) { format!("{value:.0}") } else { number(value) }
}

/// Returns whether the value is a whole number that is short enough to be printed in full.
pub(super) fn is_whole(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() < 1e7
}
