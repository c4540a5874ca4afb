//! Saving of networks in the diffusers layout.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::device::guarded;
use super::parameters::ModulePath;
use super::write::{json_text, write_json, write_safetensors, write_text};
use super::{HostTensor, LoadDtype, LoadError, PublishedNames, TensorInfo};

/// Options for saving weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaveOptions {
    /// Type of the weights in the file; [`LoadDtype::Keep`] writes them as they are in memory.
    pub dtype: LoadDtype,
    /// Maximum size of one file in bytes (diffusers uses 10 GB); larger weights are sharded. `None` writes one file.
    pub max_shard_bytes: Option<u64>,
}

/// Saves a network in the layout of diffusers and transformers: `config.json` and weights under their published names.
///
/// The folder is created if it does not exist. Tensors are copied to the host one at a time. Each file is written to
/// a temporary name and renamed, so that a crash leaves no partial file. Parameters that are not initialised yet
/// are initialised.
///
/// # Errors
///
/// Returns an error if a file cannot be written, a weight overflows in the requested type, or the device fails.
pub fn save_component<M: Module + PublishedNames>(
    module: &M,
    folder: impl AsRef<Path>,
    config: &Value,
    options: &SaveOptions,
) -> Result<(), LoadError> {
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|error| LoadError::io(folder, "make the folder", error))?;
    // The configuration is checked before any weights that were saved in this folder earlier are replaced.
    let config_path = folder.join("config.json");
    let config_text = json_text(&config_path, config)?;
    let mut lister = Lister { path: ModulePath::default(), name: M::published_name, dtype: options.dtype, got: vec![] };
    module.visit(&mut lister);
    let mut stored: Vec<Stored> = lister.got;
    let shards = split(&stored, options.max_shard_bytes);
    // Only diffusers' configurations have `_class_name`; the weights of transformers' models have another file name.
    let stem = if config.get("_class_name").is_some() { "diffusion_pytorch_model" } else { "model" };
    let mut weight_map = Map::new();
    let count = shards.len();
    for (i, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => format!("{stem}.safetensors"),
            _ => format!("{stem}-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let part: Vec<Stored> = stored.drain(..shard).collect();
        write_stored(&folder.join(&file), &part, options.dtype)?;
        weight_map.extend(part.into_iter().map(|stored| (stored.name, json!(file))));
    }
    if count > 1 {
        let index = json!({ "metadata": {}, "weight_map": weight_map });
        write_json(&folder.join(format!("{stem}.safetensors.index.json")), &index)?;
    }
    write_text(&config_path, &config_text)
}

/// Saves the weights of a network under their published names as one `.safetensors` file, without a configuration.
///
/// # Errors
///
/// Same as [`save_component`].
pub fn save_weights<M: Module + PublishedNames>(
    module: &M,
    path: impl AsRef<Path>,
    dtype: LoadDtype,
) -> Result<(), LoadError> {
    let mut lister = Lister { path: ModulePath::default(), name: M::published_name, dtype, got: vec![] };
    module.visit(&mut lister);
    write_stored(path.as_ref(), &lister.got, dtype)
}

/// Writes parameters to one file.
fn write_stored(path: &Path, part: &[Stored], dtype: LoadDtype) -> Result<(), LoadError> {
    let tensors: Vec<(String, TensorInfo)> = part.iter().map(|s| (s.name.clone(), s.info.clone())).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let place = path.display().to_string();
    write_safetensors(path, &metadata, &tensors, |name| {
        let one = part.iter().find(|stored| stored.name == name);
        one.map_or_else(
            || Err(LoadError::NoSuchTensor { place: place.clone(), tensor: name.to_owned() }),
            |stored| stored.host(dtype, &place),
        )
    })
}

/// Number of consecutive tensors in each shard.
fn split(stored: &[Stored], max_bytes: Option<u64>) -> Vec<usize> {
    let mut counts = vec![0];
    let mut bytes = 0;
    for tensor in stored {
        let size = tensor.info.bytes() as u64;
        let last = counts.len() - 1;
        if counts[last] > 0 && max_bytes.is_some_and(|max| bytes + size > max) {
            counts.push(1);
            bytes = size;
        } else {
            counts[last] += 1;
            bytes += size;
        }
    }
    counts
}

/// Parameter to write.
struct Stored {
    name: String,
    info: TensorInfo,
    /// Copies the values to the host; until it is called, only a handle of the device tensor is held.
    fetch: Box<dyn Fn() -> TensorData>,
}

impl Stored {
    fn host(&self, dtype: LoadDtype, place: &str) -> Result<HostTensor, LoadError> {
        let data = guarded(place, &self.name, &self.fetch)?;
        let held = HostTensor::from_data(&data);
        if held.info == self.info {
            return Ok(held);
        }
        let converted = held.into_data(dtype, true, place, &self.name)?;
        Ok(HostTensor::from_data(&converted))
    }
}

struct Lister<F> {
    path: ModulePath,
    name: F,
    dtype: LoadDtype,
    got: Vec<Stored>,
}

impl<F: Fn(&str) -> String> ModuleVisitor for Lister<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let stored = self.dtype.dtype().unwrap_or_else(|| param.val().dtype());
        let info = TensorInfo { dtype: dtype(stored), shape: param.lazy_shape().to_vec() };
        let param = param.clone();
        let fetch = Box::new(move || param.val().into_data());
        self.got.push(Stored { name: (self.name)(&self.path.join()), info, fetch });
    }
}

impl HostTensor {
    /// Converts burn's host tensor to bytes without changing its type.
    ///
    /// # Panics
    ///
    /// Panics if the values are not floats of 16, 32 or 64 bits.
    pub fn from_data(data: &TensorData) -> Self {
        fn encode<T: burn::tensor::Element + Copy, const N: usize>(data: &TensorData, f: fn(T) -> [u8; N]) -> Vec<u8> {
            let values = data.as_slice::<T>().expect("values of the type that the data says");
            let mut bytes = vec![0; values.len() * N];
            for (out, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
                *out = f(*value);
            }
            bytes
        }
        let bytes = match data.dtype() {
            DType::F64 => encode(data, f64::to_le_bytes),
            DType::F32 | DType::Flex32 => encode(data, f32::to_le_bytes),
            DType::F16 => encode(data, half::f16::to_le_bytes),
            DType::BF16 => encode(data, half::bf16::to_le_bytes),
            other => panic!("{other:?}: expected floats, got a tensor of this type"),
        };
        Self { info: TensorInfo { dtype: dtype(data.dtype()), shape: data.shape().to_vec() }, bytes }
    }
}

/// Converts burn's type to the type of safetensors.
fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 | DType::Flex32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        other => panic!("{other:?}: expected floats, got a parameter of this type"),
    }
}
