//! Parallel conversion of stored bytes to the requested type, in one pass over the values.

use burn::tensor::TensorData;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::{HostTensor, LoadDtype, LoadError};

/// Values per task; a block fits into the L1 cache.
const BLOCK: usize = 4096;

impl HostTensor {
    /// Converts the tensor to another type; with `check_finite`, NaN and infinity are errors.
    ///
    /// `place` and `name` are used in error messages.
    ///
    /// # Errors
    ///
    /// Returns an error if the stored type is not a float, or if `check_finite` is set and a value is not finite or
    /// overflows in the requested type.
    pub fn into_data(
        self,
        dtype: LoadDtype,
        check_finite: bool,
        place: &str,
        name: &str,
    ) -> Result<TensorData, LoadError> {
        let stored = self.info.dtype;
        let target = match (dtype, stored) {
            (LoadDtype::Keep, Dtype::F16) => LoadDtype::F16,
            (LoadDtype::Keep, Dtype::BF16) => LoadDtype::BF16,
            (LoadDtype::Keep, _) => LoadDtype::F32,
            (expected, _) => expected,
        };
        let wrong_type = || LoadError::WrongType { place: place.to_owned(), tensor: name.to_owned(), got: stored };
        if !is_float(stored) {
            return Err(wrong_type());
        }
        let count = self.info.elements();
        assert_eq!(self.bytes.len(), self.info.bytes(), "bytes of tensor `{name}` of {place}");
        let shape = self.info.shape.clone();
        // `vec![0; n]` returns pages that the system has not mapped yet, so the threads that fill them share the cost
        // of the page faults.
        let (data, bad) = match target {
            LoadDtype::F32 | LoadDtype::Keep => {
                let mut values = vec![0_f32; count];
                let bad = fill(&mut values, &self, |bytes, out| widen(stored, bytes, out), |x| !x.is_finite());
                (TensorData::new(values, shape), bad)
            }
            LoadDtype::F16 => {
                let mut bits = vec![0_u16; count];
                let bad = fill(&mut bits, &self, |bytes, out| to_f16(stored, bytes, out), |x| x & 0x7c00 == 0x7c00);
                (TensorData::new(bits.reinterpret_into::<f16>(), shape), bad)
            }
            LoadDtype::BF16 => {
                let mut bits = vec![0_u16; count];
                let bad = fill(&mut bits, &self, |bytes, out| to_bf16(stored, bytes, out), |x| x & 0x7f80 == 0x7f80);
                (TensorData::new(bits.reinterpret_into::<bf16>(), shape), bad)
            }
        };
        match bad {
            Some(index) if check_finite => Err(self.blame(index, target, place, name)),
            _ => Ok(data),
        }
    }

    /// Creates the error for a value `index` that is not finite after conversion.
    fn blame(&self, index: usize, target: LoadDtype, place: &str, name: &str) -> LoadError {
        let size = self.info.dtype.bitsize() / 8;
        let bytes = &self.bytes[index * size..(index + 1) * size];
        let mut value = [0.0];
        widen(self.info.dtype, bytes, &mut value);
        let [value] = value;
        let (place, tensor) = (place.to_owned(), name.to_owned());
        let dtype = match target {
            LoadDtype::F16 => "f16",
            LoadDtype::BF16 => "bf16",
            LoadDtype::F32 | LoadDtype::Keep => "f32",
        };
        if value.is_finite() {
            LoadError::TooLargeForType { place, tensor, index, value, dtype }
        } else {
            LoadError::NotFinite { place, tensor, index, value }
        }
    }
}

/// Returns whether weights of this type can be read.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

/// Converts a tensor into `out` in parallel blocks and returns the index of the first value for which `bad` is true.
fn fill<T: Copy + Send + Sync>(
    out: &mut [T],
    tensor: &HostTensor,
    convert: impl Fn(&[u8], &mut [T]) + Sync,
    bad: impl Fn(T) -> bool + Sync,
) -> Option<usize> {
    let size = tensor.info.dtype.bitsize() / 8;
    out.par_chunks_mut(BLOCK)
        .zip(tensor.bytes.par_chunks(BLOCK * size))
        .enumerate()
        .filter_map(|(block, (out, bytes))| {
            convert(bytes, out);
            // A fold without early exit is vectorized; the position is searched only if there is a bad value.
            let any = out.iter().fold(false, |any, x| any | bad(*x));
            if any { out.iter().position(|x| bad(*x)).map(|i| block * BLOCK + i) } else { None }
        })
        .min()
}

/// Converts little-endian floats of any type to f32.
fn widen(stored: Dtype, bytes: &[u8], out: &mut [f32]) {
    match stored {
        Dtype::F32 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
        Dtype::F64 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *x = f64::from_le_bytes(*b) as f32;
            }
        }
        Dtype::F16 | Dtype::BF16 => {
            let mut bits = [0_u16; BLOCK];
            let bits = &mut bits[..out.len()];
            copy_bits(bytes, bits);
            if stored == Dtype::F16 {
                bits.reinterpret_cast::<f16>().convert_to_f32_slice(out);
            } else {
                bits.reinterpret_cast::<bf16>().convert_to_f32_slice(out);
            }
        }
        other => unreachable!("{other:?} is no float, and was refused before"),
    }
}

fn to_f16(stored: Dtype, bytes: &[u8], out: &mut [u16]) {
    if stored == Dtype::F16 {
        copy_bits(bytes, out);
    } else {
        let mut wide = [0.0; BLOCK];
        let wide = &mut wide[..out.len()];
        widen(stored, bytes, wide);
        out.reinterpret_cast_mut::<f16>().convert_from_f32_slice(wide);
    }
}

fn to_bf16(stored: Dtype, bytes: &[u8], out: &mut [u16]) {
    if stored == Dtype::BF16 {
        copy_bits(bytes, out);
    } else {
        let mut wide = [0.0; BLOCK];
        let wide = &mut wide[..out.len()];
        widen(stored, bytes, wide);
        out.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(wide);
    }
}

fn copy_bits(bytes: &[u8], out: &mut [u16]) {
    for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *x = u16::from_le_bytes(*b);
    }
}
