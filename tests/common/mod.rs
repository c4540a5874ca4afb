//! Comparisons of results, with tolerances for the device under test.

/// Whether the device is a CPU backend: deterministic, and computing in f32 whatever the weights' type is.
pub(crate) fn on_cpu() -> bool {
    !std::env::var("FABRIC_DEVICE").is_ok_and(|name| !["flex", "ndarray"].contains(&name.as_str()))
}

/// Returns the largest absolute difference; infinite if a value is NaN.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, x| if x.is_nan() { f32::INFINITY } else { most.max(x) })
}

/// Asserts that two results of the same operations are equal: bit by bit on a CPU.
///
/// Other devices fuse operations with the preceding ones, so the summation order changes if an input was cached or
/// comes from somewhere else.
#[track_caller]
pub(crate) fn assert_again(got: &[f32], expected: &[f32], what: &str) {
    let scale = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    let (apart, most) = (distance(got, expected), if on_cpu() { 0.0 } else { 2e-5 * scale });
    assert!(apart <= most, "{what}: differ by {apart:.1e} of {scale:.1e}, expected at most {most:.1e}");
}
