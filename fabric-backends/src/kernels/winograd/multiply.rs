//! Matrix products at each place.

use pulp::{Simd, WithSimd};

use super::{ACROSS, CHANNELS, PLACES};
use crate::kernels::panels::Panels;
use crate::kernels::shared::Shared;

/// Sums over all input channels at one place; writes blocks of `[N, tiles of a panel]`.
pub(super) struct Multiply<'a> {
    pub(super) place: usize,
    /// Output channels, input channels and tiles.
    pub(super) sizes: [usize; 3],
    pub(super) transformed: &'a [f32],
    pub(super) kernels: &'a [f32],
    pub(super) to: &'a Shared<'a>,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, CHANNELS>(simd);
        } else {
            self.run::<S, { CHANNELS / 2 }>(simd);
        }
    }
}

impl Multiply<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) {
        let [outputs, inputs, tiles] = self.sizes;
        let vectors = tiles.div_ceil(S::F32_LANES);
        let wide = vectors * S::F32_LANES;
        let transformed =
            Panels::packed(&self.transformed[self.place * inputs * wide..][..inputs * wide], [inputs, vectors]);
        let all = outputs.next_multiple_of(CHANNELS);
        let kernels = self.kernels[self.place * inputs * all..][..all * inputs].as_chunks::<N>().0;
        // A panel stays in the L2 cache while all output channels read it.
        for first in (0..vectors).step_by(ACROSS) {
            let width = ACROSS.min(vectors - first) * S::F32_LANES;
            for (block, kernels) in kernels.chunks_exact(inputs).enumerate() {
                let to = PLACES * N * (block * wide + first * S::F32_LANES) + self.place * N * width;
                #[allow(unsafe_code, reason = "places of a block interleave")]
                // SAFETY: no other task accesses this place.
                let sums = unsafe { self.to.part(to..to + N * width) };
                transformed.multiply::<S, N>(
                    simd,
                    #[inline(always)]
                    |channel| kernels[channel],
                    (0..inputs, first..vectors.min(first + ACROSS)),
                    (sums, width),
                    false,
                );
            }
        }
    }
}
