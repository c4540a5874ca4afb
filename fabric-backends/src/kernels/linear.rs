//! Linear layers.

use rayon::prelude::*;

use super::gemm::{Start, Strides, product};
use super::lanes::{GRAIN, add_up, vectorised};

/// Linear layer on `[rows, inputs]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Linear {
    /// Computes `out = x · weightᵀ + bias`; an empty slice means no bias.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let Self { inputs, outputs } = *self;
        let sizes = [x.len() / inputs, outputs, inputs];
        let weight = (weight, Strides::rows(inputs).transposed());
        let start = if bias.is_empty() { Start::Nothing } else { Start::Row(bias) };
        product(sizes, out, (x, Strides::rows(inputs)), weight, start);
    }

    /// Writes the gradient of `x` to `out`.
    pub(crate) fn input_gradient(&self, weight: &[f32], gradient: &[f32], out: &mut [f32]) {
        let Self { inputs, outputs } = *self;
        let sizes = [out.len() / inputs, inputs, outputs];
        let gradient = (gradient, Strides::rows(outputs));
        product(sizes, out, gradient, (weight, Strides::rows(inputs)), Start::Nothing);
    }

    /// Writes the gradient of the weight to `out`.
    pub(crate) fn weight_gradient(&self, x: &[f32], gradient: &[f32], out: &mut [f32]) {
        let Self { inputs, outputs } = *self;
        let rows = x.len() / inputs;
        if rows == 0 {
            out.fill(0.0);
        } else {
            let gradient = (gradient, Strides::rows(outputs).transposed());
            product([outputs, inputs, rows], out, gradient, (x, Strides::rows(inputs)), Start::Nothing);
        }
    }

    /// Returns the gradient of the bias.
    pub(crate) fn bias_gradient(&self, gradient: &[f32]) -> Vec<f32> {
        let outputs = self.outputs;
        let task = (4 * GRAIN / outputs).max(1) * outputs;
        let parts: Vec<Vec<f32>> = gradient
            .par_chunks(task)
            .map(|gradient| {
                let mut sums = vec![0.0_f32; outputs];
                vectorised(
                    #[inline(always)]
                    || {
                        for row in gradient.chunks_exact(outputs) {
                            for (sum, x) in sums.iter_mut().zip(row) {
                                *sum += x;
                            }
                        }
                    },
                );
                sums
            })
            .collect();
        add_up(&parts, outputs)
    }
}
