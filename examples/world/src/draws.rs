//! Random sampling with stable results; `rand`'s own range sampling may differ between versions.

use rand::Rng;

use super::Factor;

/// Returns a number from 0 to `count` - 1. Its bias, below `count` in 2³², is negligible here.
pub(super) fn below(rng: &mut (impl Rng + ?Sized), count: usize) -> usize {
    ((u64::from(rng.next_u32()) * count as u64) >> 32) as usize
}

/// Returns a uniformly random value of a factor.
pub(super) fn pick<F: Factor>(rng: &mut (impl Rng + ?Sized)) -> F {
    F::VALUES[below(rng, F::VALUES.len())]
}

/// Returns a uniformly random number from -1 to 1.
pub(super) fn symmetric(rng: &mut (impl Rng + ?Sized)) -> f32 {
    // 24 bits, which an f32 represents exactly.
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// Returns true with this probability.
pub(super) fn chance(rng: &mut (impl Rng + ?Sized), probability: f32) -> bool {
    ((rng.next_u32() >> 8) as f32) < probability * (1 << 24) as f32
}
