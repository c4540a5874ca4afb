//! Random choices whose results never change: `rand`'s own ranges may differ between its versions.

use rand::Rng;

use super::Factor;

/// A number from 0 to `count` - 1. Its bias, below one in 2³² / `count`, is nothing here.
pub(super) fn below(rng: &mut (impl Rng + ?Sized), count: usize) -> usize {
    ((u64::from(rng.next_u32()) * count as u64) >> 32) as usize
}

/// Any value of a factor.
pub(super) fn pick<F: Factor>(rng: &mut (impl Rng + ?Sized)) -> F {
    F::VALUES[below(rng, F::VALUES.len())]
}

/// A number from -1 to 1.
pub(super) fn symmetric(rng: &mut (impl Rng + ?Sized)) -> f32 {
    // 24 bits: what an f32 holds exactly.
    (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// True with this probability.
pub(super) fn chance(rng: &mut (impl Rng + ?Sized), probability: f32) -> bool {
    ((rng.next_u32() >> 8) as f32) < probability * (1 << 24) as f32
}
