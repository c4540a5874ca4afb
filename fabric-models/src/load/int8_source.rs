//! Reading of 8-bit weights in the layout of optimum-quanto.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fabric_core::{InvalidValue, printable};
use safetensors::Dtype;

use super::convert::is_float;
use super::int8::{Int8Part, dequantise};
use super::{HostTensor, LoadDtype, LoadError, TensorInfo, TensorSource};

/// Suffix of the zero points of weights with 2 or 4 bits, which are not supported.
const SHIFT: &str = "._shift";

/// Names of the scales of a layer's input and output. They are 1 where only weights are quantised.
const ACTIVATION_SCALES: [&str; 2] = ["input_scale", "output_scale"];

/// Tensor source that presents each pair `X._data` and `X._scale` of another source as one f32 tensor `X`.
#[derive(Debug)]
struct Int8Source {
    source: Arc<dyn TensorSource>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Names of the 8-bit weights among the tensors.
    weights: BTreeSet<String>,
}

/// Presents 8-bit weights as f32 tensors under the names of the weights. Returns a source without 8-bit weights
/// unchanged.
///
/// Scales of activations are left out if they are 1, as optimum-quanto stores them for layers whose weights alone are
/// quantised.
///
/// # Errors
///
/// Returns [`LoadError::Quantised`] if a tensor of a weight is missing or of an unexpected type or shape, or if
/// activations are quantised, too.
pub(super) fn with_float_weights(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>, LoadError> {
    let stored = source.tensors();
    let suffixes = [Int8Part::Data.suffix(), Int8Part::Scale.suffix(), SHIFT];
    if !stored.keys().any(|name| suffixes.iter().any(|suffix| name.ends_with(suffix))) {
        return Ok(source);
    }
    if let Some(name) = stored.keys().find(|name| name.ends_with(SHIFT)) {
        let got = format!("weights of 2 or 4 bits (tensor `{}`)", printable(name));
        return Err(refused(&*source, "quantised weights".to_owned(), got, "weights of 8 bits"));
    }
    let mut tensors = BTreeMap::new();
    let mut weights = BTreeSet::new();
    for (name, info) in stored {
        if let Some(weight) = name.strip_suffix(Int8Part::Data.suffix()) {
            check_pair(&*source, weight, info)?;
            weights.insert(weight.to_owned());
            tensors.insert(weight.to_owned(), TensorInfo { dtype: Dtype::F32, shape: info.shape.clone() });
        } else if let Some(weight) = name.strip_suffix(Int8Part::Scale.suffix()) {
            let data = Int8Part::Data.name_of(weight);
            if !stored.contains_key(&data) {
                let what = format!("tensor `{}`", printable(&data));
                return Err(refused(&*source, what, "none", "8-bit integers, because the file has their scale"));
            }
        } else if name.rsplit('.').next().is_some_and(|last| ACTIVATION_SCALES.contains(&last)) {
            check_activation_scale(&*source, name, info)?;
        } else {
            tensors.insert(name.clone(), info.clone());
        }
    }
    Ok(Arc::new(Int8Source { source, tensors, weights }))
}

/// Checks the types and shapes of both tensors of a weight.
fn check_pair(source: &dyn TensorSource, weight: &str, data: &TensorInfo) -> Result<(), LoadError> {
    let [data_name, scale_name] = Int8Part::BOTH.map(|part| part.name_of(weight));
    if data.dtype != Dtype::I8 {
        let what = format!("type of tensor `{}`", printable(&data_name));
        return Err(refused(source, what, format!("{:?}", data.dtype), "I8"));
    }
    if source.tensors().contains_key(weight) {
        let what = format!("tensor `{}`", printable(weight));
        return Err(refused(source, what, "floats and 8-bit integers", "one of them"));
    }
    let what = |property: &str| format!("{property}tensor `{}`", printable(&scale_name));
    let Some(scale) = source.tensors().get(&scale_name) else {
        return Err(refused(source, what(""), "none", "the scale of each output channel"));
    };
    if !is_float(scale.dtype) {
        return Err(refused(source, what("type of "), format!("{:?}", scale.dtype), "F32, F16, BF16 or F64"));
    }
    let expected = Int8Part::Scale.info(&data.shape).shape;
    // optimum-quanto stores one scale without axes for a weight with one output channel.
    let is_scalar = scale.shape.is_empty() && data.shape.first().is_none_or(|&out| out == 1);
    if scale.shape != expected && !is_scalar {
        let expected = format!("{expected:?}, one for each output channel");
        return Err(refused(source, what("shape of "), format!("{:?}", scale.shape), expected));
    }
    Ok(())
}

/// Checks that the scale of a layer's input or output is 1.
fn check_activation_scale(source: &dyn TensorSource, name: &str, info: &TensorInfo) -> Result<(), LoadError> {
    let got = if info.elements() == 1 && is_float(info.dtype) {
        let values = floats(source, name)?;
        if values == [1.0] {
            return Ok(());
        }
        format!("{values:?}")
    } else {
        format!("{:?} values of shape {:?}", info.dtype, info.shape)
    };
    let expected = "1, because quantised activations are not supported";
    Err(refused(source, format!("tensor `{}`", printable(name)), got, expected))
}

/// Reads a tensor of floats as f32.
fn floats(source: &dyn TensorSource, name: &str) -> Result<Vec<f32>, LoadError> {
    let data = source.read(name)?.into_data(LoadDtype::F32, false, &source.place(), name)?;
    Ok(data.iter::<f32>().collect())
}

/// Creates [`LoadError::Quantised`].
fn refused(source: &dyn TensorSource, what: String, got: impl ToString, expected: impl Into<String>) -> LoadError {
    let next = "get the file again, or its f16 or f32 version";
    LoadError::Quantised { place: source.place(), value: InvalidValue::new(what, got, expected, next) }
}

impl TensorSource for Int8Source {
    fn place(&self) -> String {
        self.source.place()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        if !self.tensors.contains_key(name) {
            return Err(LoadError::NoSuchTensor { place: self.place(), tensor: name.to_owned() });
        }
        if !self.weights.contains(name) {
            return self.source.read(name);
        }
        let [data_name, scale_name] = Int8Part::BOTH.map(|part| part.name_of(name));
        let scales = floats(&*self.source, &scale_name)?;
        // optimum-quanto stores a scale of 0 for a channel of zeros.
        if let Some(index) = scales.iter().position(|scale| !scale.is_finite() || *scale < 0.0) {
            let what = format!("tensor `{}`", printable(&scale_name));
            let got = format!("{} at index {index}", scales[index]);
            return Err(refused(&*self.source, what, got, "finite numbers of at least 0"));
        }
        Ok(dequantise(self.source.read(&data_name)?, &scales))
    }

    fn note(&self, name: &str) -> Option<String> {
        self.source.note(name)
    }

    fn notes(&self) -> BTreeMap<String, String> {
        self.source.notes()
    }
}
