//! Saving of tensors in another type, without knowing the network that they belong to.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use super::convert::is_float;
use super::int8::{Int8Part, is_saved_as_int8};
use super::{HostTensor, LoadDtype, LoadError, SaveDtype, TensorInfo, TensorSource, write_safetensors};

/// Tensor source that presents the tensors of another source as they are saved with a [`SaveDtype`].
///
/// With [`SaveDtype::Keep`], all tensors are unchanged. Otherwise floats are converted, and other tensors, such as
/// `position_ids`, are unchanged. With [`SaveDtype::Int8`], the matrices of LoRAs become f16, because LoRA files are
/// read as floats.
///
/// ```no_run
/// use fabric_models::load::{ConvertedSource, SaveDtype, open_weights};
///
/// let weights = ConvertedSource::new(open_weights("vae.ckpt")?, SaveDtype::F16);
/// weights.save("vae.safetensors")?;
/// # Ok::<(), fabric_models::load::LoadError>(())
/// ```
#[derive(Debug)]
pub struct ConvertedSource<S> {
    source: S,
    dtype: SaveDtype,
    tensors: BTreeMap<String, TensorInfo>,
    /// The stored weight of each tensor of an 8-bit weight, and which of its two tensors this is.
    parts: BTreeMap<String, (String, Int8Part)>,
}

impl<S: TensorSource> ConvertedSource<S> {
    /// Creates a source. No values are read.
    pub fn new(source: S, dtype: SaveDtype) -> Self {
        let (mut tensors, mut parts) = (BTreeMap::new(), BTreeMap::new());
        for (name, info) in source.tensors() {
            for (saved, info, part) in saved_as(name, info, dtype) {
                parts.extend(part.map(|part| (saved.clone(), (name.clone(), part))));
                tensors.insert(saved, info);
            }
        }
        Self { source, dtype, tensors, parts }
    }

    /// Writes all tensors, and the metadata of the source, to one `.safetensors` file.
    ///
    /// Tensors are read and converted one at a time. The file appears under its name only when it is complete.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor cannot be read, a value to convert is not finite or too large for the type, or the
    /// file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LoadError> {
        let mut metadata = self.notes();
        metadata.insert("format".to_owned(), "pt".to_owned());
        let infos: Vec<(String, TensorInfo)> =
            self.tensors.iter().map(|(name, info)| (name.clone(), info.clone())).collect();
        write_safetensors(path, &metadata, &infos, |name| self.read(name))
    }
}

impl<S: TensorSource> TensorSource for ConvertedSource<S> {
    fn place(&self) -> String {
        self.source.place()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let place = self.place();
        if !self.tensors.contains_key(name) {
            return Err(LoadError::NoSuchTensor { place, tensor: name.to_owned() });
        }
        if let Some((weight, part)) = self.parts.get(name) {
            let tensor = self.source.read(weight)?;
            let shape = tensor.info.shape.clone();
            let data = tensor.into_data(LoadDtype::F32, true, &place, weight)?;
            let values = data.as_slice::<f32>().expect("values of the type that was asked for");
            return Ok(part.quantise(values, &shape));
        }
        let tensor = self.source.read(name)?;
        match float(self.dtype) {
            Some((dtype, _)) if is_float(tensor.info.dtype) => {
                Ok(HostTensor::from_data(&tensor.into_data(dtype, true, &place, name)?))
            }
            _ => Ok(tensor),
        }
    }

    fn note(&self, name: &str) -> Option<String> {
        self.source.note(name)
    }

    fn notes(&self) -> BTreeMap<String, String> {
        self.source.notes()
    }
}

/// Returns the types and shapes with which the tensors of a network are saved.
pub(crate) fn saved_tensors(tensors: &BTreeMap<String, TensorInfo>, dtype: SaveDtype) -> BTreeMap<String, TensorInfo> {
    let saved = tensors.iter().flat_map(|(name, info)| saved_as(name, info, dtype));
    saved.map(|(name, info, _)| (name, info)).collect()
}

/// Returns the tensors that are written for a stored tensor: the tensor itself, or the two tensors of an 8-bit weight.
fn saved_as(name: &str, info: &TensorInfo, dtype: SaveDtype) -> Vec<(String, TensorInfo, Option<Int8Part>)> {
    let float = float(dtype).map(|(_, float)| float).filter(|_| is_float(info.dtype));
    let is_low_rank = name.contains("lora");
    if float.is_some() && dtype == SaveDtype::Int8 && !is_low_rank && is_saved_as_int8(name, &info.shape) {
        return Int8Part::BOTH.map(|part| (part.name_of(name), part.info(&info.shape), Some(part))).into();
    }
    vec![(name.to_owned(), TensorInfo { dtype: float.unwrap_or(info.dtype), shape: info.shape.clone() }, None)]
}

/// Type to which floats are converted; `None` if all tensors are unchanged.
fn float(dtype: SaveDtype) -> Option<(LoadDtype, Dtype)> {
    match dtype {
        SaveDtype::Keep => None,
        SaveDtype::F32 => Some((LoadDtype::F32, Dtype::F32)),
        SaveDtype::F16 | SaveDtype::Int8 => Some((LoadDtype::F16, Dtype::F16)),
        SaveDtype::BF16 => Some((LoadDtype::BF16, Dtype::BF16)),
    }
}
