//! Conversion of f16 and bf16 to f32.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::like;

/// Elements per task: enough to be worth a task, few enough to stay in the L1 cache.
const TASK: usize = 1 << 12;

/// Converts f16 or bf16 to f32.
pub(super) fn widened(x: FlexTensor) -> FlexTensor {
    let x = x.to_contiguous();
    match x.dtype() {
        DType::F16 => {
            let halves: &[f16] = x.as_slice().expect("f16 in one piece");
            like(&x, |out| each(halves, out, HalfFloatSliceExt::convert_to_f32_slice))
        }
        _ => {
            let halves: &[bf16] = x.as_slice().expect("bf16 in one piece");
            like(&x, |out| each(halves, out, HalfFloatSliceExt::convert_to_f32_slice))
        }
    }
}

fn each<T: Sync>(from: &[T], to: &mut [f32], convert: impl Fn(&[T], &mut [f32]) + Sync) {
    to.par_chunks_mut(TASK).zip(from.par_chunks(TASK)).for_each(|(to, from)| convert(from, to));
}
