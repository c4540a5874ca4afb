//! What tests may ask of a device.

/// Whether the device is one of the CPU's, which do the same every time, and compute with f32 whatever the weights are.
pub(crate) fn on_cpu() -> bool {
    !std::env::var("FABRIC_DEVICE").is_ok_and(|name| !["flex", "ndarray"].contains(&name.as_str()))
}

/// The largest difference; from what is not a number, infinite.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, x| if x.is_nan() { f32::INFINITY } else { most.max(x) })
}

/// The same numbers by the same operations: bit for bit on a CPU.
///
/// Elsewhere operations are fused with those that come before them, so that the same numbers are added up in another order
/// when a part of them was kept from before, or comes from somewhere else.
#[track_caller]
pub(crate) fn assert_again(got: &[f32], expected: &[f32], what: &str) {
    let scale = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    let (apart, most) = (distance(got, expected), if on_cpu() { 0.0 } else { 2e-5 * scale });
    assert!(apart <= most, "{what}: differ by {apart:.1e} of {scale:.1e}, expected at most {most:.1e}");
}
