//! Transform of the kernels.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::points::{INPUTS, load, of_kernel, store};
use super::{CHANNELS, PLACES, TAPS};
use crate::kernels::conv::Conv;
use crate::kernels::shared::Shared;

/// Input channels whose transformed kernels are buffered before they are written.
pub(super) const TAKEN: usize = 32;

/// Transforms the kernels of [`CHANNELS`] output channels; writes blocks of `[channels, N]` for each place.
pub(super) struct Kernels<'a> {
    pub(super) conv: &'a Conv,
    pub(super) weight: &'a [f32],
    /// Start: the first output channel in `to`. End: the first output channel of this task.
    pub(super) outputs: Range<usize>,
    /// Number of output channels in `to`, a multiple of [`CHANNELS`].
    pub(super) all: usize,
    pub(super) buffer: &'a mut [f32],
    pub(super) to: &'a Shared<'a>,
}

impl WithSimd for Kernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let first = self.outputs.end;
        if S::REGISTER_COUNT >= 32 {
            self.run::<S, CHANNELS>(simd, first);
        } else {
            self.run::<S, { CHANNELS / 2 }>(simd, first);
            self.run::<S, { CHANNELS / 2 }>(simd, first + CHANNELS / 2);
        }
    }
}

impl Kernels<'_> {
    #[inline(always)]
    fn run<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let inputs = self.conv.windows.channels;
        let weight = self.weight.as_chunks::<TAPS>().0;
        // Beyond the last channel, the last one is repeated.
        let of: [&[[f32; TAPS]]; N] =
            std::array::from_fn(|at| &weight[(first + at).min(self.conv.outputs - 1) * inputs..][..inputs]);
        for begin in (0..inputs).step_by(TAKEN) {
            let count = TAKEN.min(inputs - begin);
            // In the order of the result, but with all taps of a few kernels close together.
            let mut taps = [[0.0_f32; TAKEN * CHANNELS]; TAPS];
            for (at, of) in of.iter().enumerate() {
                for (nth, kernel) in of[begin..begin + count].iter().enumerate() {
                    for (taps, x) in taps.iter_mut().zip(kernel) {
                        taps[nth * N + at] = *x;
                    }
                }
            }
            for lane in (0..TAKEN * N).step_by(S::F32_LANES) {
                let mut rows = [[simd.splat_f32s(0.0); 3]; INPUTS];
                for right in 0..3 {
                    let column = std::array::from_fn(
                        #[inline(always)]
                        |down| load(simd, &taps[3 * down + right][lane..]),
                    );
                    for (row, x) in rows.iter_mut().zip(of_kernel(simd, column)) {
                        row[right] = x;
                    }
                }
                for (row, buffer) in rows.into_iter().zip(self.buffer.chunks_exact_mut(INPUTS * TAKEN * N)) {
                    for (x, buffer) in of_kernel(simd, row).into_iter().zip(buffer.chunks_exact_mut(TAKEN * N)) {
                        store::<S>(&mut buffer[lane..], x);
                    }
                }
            }
            for (at, buffer) in self.buffer.chunks_exact(TAKEN * N).take(PLACES).enumerate() {
                let matrix = at * inputs * self.all;
                let to = matrix + (first - self.outputs.start) * inputs + begin * N;
                #[allow(unsafe_code, reason = "output channels of a place interleave")]
                // SAFETY: no other task accesses these output channels.
                unsafe { self.to.part(to..to + count * N) }.copy_from_slice(&buffer[..count * N]);
            }
        }
    }
}
