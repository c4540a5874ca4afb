//! Elementary functions without branches or calls, so that the compiler can vectorise loops over them.

/// `e^x` to 2 units in the last place; 0 below -87.3, infinite above 88.7.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.3;
    const HIGHEST: f32 = 88.72;
    // Adding 1.5 * 2^23 leaves the nearest integer in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // Comparisons instead of `min` and `max`, which would hide a NaN.
    let bound = if x > HIGHEST { HIGHEST } else { x };
    let bound = if bound < LOWEST { LOWEST } else { bound };
    let shifted = bound.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, the first of which has so few bits that `n` times it is exact.
    let r = n.mul_add(-0.693_359_4, bound);
    let r = n.mul_add(2.121_944_4e-4, r);
    // Taylor's series up to r^7; |r| is at most ln 2 / 2.
    let p = r.mul_add(1.0 / 5040.0, 1.0 / 720.0);
    let p = p.mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    // 2^n in two steps, because 2^128 overflows while e^88.7 does not.
    let half = f32::from_bits((shifted.to_bits() << 22 & 0xff80_0000).wrapping_add(1.0_f32.to_bits()));
    let rest = f32::from_bits((shifted.to_bits() << 23).wrapping_sub(half.to_bits()).wrapping_add(2 * 0x3f80_0000));
    let y = p * half * rest;
    let y = if x < LOWEST { 0.0 } else { y };
    if x > HIGHEST { f32::INFINITY } else { y }
}

/// `2^x` for an `x` of at most 0, to a unit in the last place; 0 below -126.
#[inline(always)]
pub(crate) fn exp2_of_negative(x: f32) -> f32 {
    const LOWEST: f32 = -126.0;
    const ROUND: f32 = 12_582_912.0;
    let bound = if x < LOWEST { LOWEST } else { x };
    let shifted = bound + ROUND;
    let r = bound - (shifted - ROUND);
    // Minimax polynomial for 2^r with |r| at most 1/2; the largest relative error is 2e-9 before rounding.
    let p = r.mul_add(1.535_336e-4, 1.339_887_5e-3);
    let p = p.mul_add(r, 9.618_437e-3);
    let p = p.mul_add(r, 5.550_332_5e-2);
    let p = p.mul_add(r, 0.240_226_48);
    let p = p.mul_add(r, std::f32::consts::LN_2);
    let p = p.mul_add(r, 1.0);
    let y = p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x < LOWEST { 0.0 } else { y }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function, to 4e-7: a rational function of odd degree with Eigen's coefficients, clamped to ±1
/// beyond ±4.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x2 = x * x;
    let p = x2.mul_add(-2.726_142_3e-10, 2.770_681_4e-8);
    let p = p.mul_add(x2, -2.101_024e-6);
    let p = p.mul_add(x2, -5.692_506_5e-5);
    let p = p.mul_add(x2, -7.349_906_3e-4);
    let p = p.mul_add(x2, -2.954_6e-3);
    let p = p.mul_add(x2, -1.609_603_3e-2);
    let q = x2.mul_add(-1.456_607_2e-5, -2.133_740_6e-4);
    let q = q.mul_add(x2, -1.682_827e-3);
    let q = q.mul_add(x2, -7.373_329e-3);
    let q = q.mul_add(x2, -1.426_473_9e-2);
    let y = x * p / q;
    let y = if x > 4.0 || y > 1.0 { 1.0 } else { y };
    if x < -4.0 || y < -1.0 { -1.0 } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_exact_to_a_unit() {
        for step in 0..=126_000 {
            let x = step as f32 / -1000.0;
            let expected = f64::from(x).exp2();
            let error = (f64::from(exp2_of_negative(x)) - expected).abs() / expected;
            assert!(error < 1.2e-7, "2^{x}: {error}");
        }
        assert_eq!([-126.5, -1e9, f32::NEG_INFINITY].map(exp2_of_negative), [0.0; 3]);
        assert!(exp2_of_negative(f32::NAN).is_nan());
    }
}
