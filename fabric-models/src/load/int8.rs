//! 8-bit weights in the layout of optimum-quanto, the library behind diffusers' `QuantoConfig`: names, shapes and
//! rounding.
//!
//! A weight `X` of shape `[out, ..]` is stored as a pair of tensors: `X._data`, 8-bit integers of the same shape, and
//! `X._scale`, floats of shape `[out, 1, ..]`. The weight is the product of both.

use rayon::prelude::*;
use safetensors::Dtype;

use super::{HostTensor, TensorInfo};

/// Weights with fewer values are saved as floats: together they are a small part of a network.
const MIN_VALUES: usize = 4096;

/// Largest integer that is written. The smallest is its negative, so that a weight and its negative have equal errors.
const MAX_LEVEL: f32 = 127.0;

/// One of the two tensors of an 8-bit weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Int8Part {
    /// 8-bit integers.
    Data,
    /// Scale of each output channel.
    Scale,
}

impl Int8Part {
    /// Both tensors of a weight.
    pub(super) const BOTH: [Self; 2] = [Self::Data, Self::Scale];

    /// Suffix that follows the name of the weight.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Data => "._data",
            Self::Scale => "._scale",
        }
    }

    /// Returns the name of this part of a weight.
    pub(super) fn name_of(self, weight: &str) -> String {
        format!("{weight}{}", self.suffix())
    }

    /// Returns the type and shape of this part of a weight of shape `shape`.
    pub(super) fn info(self, shape: &[usize]) -> TensorInfo {
        match self {
            Self::Data => TensorInfo { dtype: Dtype::I8, shape: shape.to_vec() },
            Self::Scale => {
                let sides = shape.iter().enumerate().map(|(axis, &side)| if axis == 0 { side } else { 1 });
                TensorInfo { dtype: Dtype::F32, shape: sides.collect() }
            }
        }
    }

    /// Quantises a weight of shape `shape` and returns this part. Integers are rounded to the nearest, halves to even.
    pub(super) fn quantise(self, values: &[f32], shape: &[usize]) -> HostTensor {
        let row = values.len() / shape[0];
        let scales: Vec<f32> = values.par_chunks(row).map(scale_of).collect();
        let bytes = match self {
            Self::Scale => scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
            Self::Data => {
                let mut levels = vec![0_u8; values.len()];
                let channels = levels.par_chunks_mut(row).zip(values.par_chunks(row)).zip(&scales);
                channels.for_each(|((levels, values), scale)| {
                    for (level, value) in levels.iter_mut().zip(values) {
                        let rounded = (value / scale).round_ties_even().clamp(-MAX_LEVEL, MAX_LEVEL);
                        *level = (rounded as i8).cast_unsigned();
                    }
                });
                levels
            }
        };
        HostTensor { info: self.info(shape), bytes }
    }
}

/// Returns the scale of an output channel with these weights: the largest absolute value, divided by 127. The scale of
/// a channel of zeros is the smallest normal number, so that nothing is divided by 0.
fn scale_of(channel: &[f32]) -> f32 {
    let largest = channel.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    (largest / MAX_LEVEL).max(f32::MIN_POSITIVE)
}

/// Returns whether a parameter is saved with 8 bits: the weight of a linear layer or of a convolution with at least
/// 4096 values.
///
/// Embedding tables stay floats, because optimum-quanto has no 8-bit embedding. So do weights with one output channel,
/// for which it stores the scale in another shape.
pub(super) fn is_saved_as_int8(name: &str, shape: &[usize]) -> bool {
    let Some(layer) = name.strip_suffix(".weight") else { return false };
    let is_table = shape.len() == 2 && layer.ends_with("_embedding");
    shape.len() >= 2 && shape[0] > 1 && !is_table && shape.iter().product::<usize>() >= MIN_VALUES
}

/// Multiplies 8-bit integers by the scale of their output channel; `scales` has one scale for each. Returns f32 values,
/// which are exact for scales that were stored in f16 or bf16.
pub(super) fn dequantise(data: HostTensor, scales: &[f32]) -> HostTensor {
    let HostTensor { info, bytes: levels } = data;
    let row = (levels.len() / scales.len().max(1)).max(1);
    let mut bytes = vec![0_u8; levels.len() * size_of::<f32>()];
    let channels = bytes.par_chunks_mut(row * size_of::<f32>()).zip(levels.par_chunks(row)).zip(scales);
    channels.for_each(|((out, levels), scale)| {
        for (out, level) in out.as_chunks_mut::<4>().0.iter_mut().zip(levels) {
            *out = (f32::from(level.cast_signed()) * scale).to_le_bytes();
        }
    });
    HostTensor { info: TensorInfo { dtype: Dtype::F32, shape: info.shape }, bytes }
}
