//! Saving of networks in the diffusers layout.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::device::guarded;
use super::int8::{Int8Part, is_saved_as_int8};
use super::parameters::ModulePath;
use super::write::{json_text, write_json, write_safetensors, write_text};
use super::{HostTensor, LoadDtype, LoadError, PublishedNames, TensorInfo};

/// Type of the weights in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveDtype {
    /// The type in memory.
    Keep,
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats; weights beyond 65504 are an error.
    F16,
    /// bfloat16: the range of f32 with 8 bits of precision.
    BF16,
    /// 8-bit integers with one scale per output channel, for the weights of linear layers and convolutions with at
    /// least 4096 values; 16-bit floats for embedding tables, biases, norms and all other parameters.
    ///
    /// A weight differs from its original by at most 1/254 of the largest absolute value of its output channel. The
    /// layout is that of optimum-quanto (`X._data` with `X._scale`), whose `QuantizedDiffusersModel` and
    /// `QuantizedTransformersModel` read folders that [`save_component`] writes. diffusers' own `from_pretrained` does
    /// not: it expects floats in convolutions.
    Int8,
}

impl SaveDtype {
    /// Type of the parameters that are saved as floats.
    fn float(self) -> LoadDtype {
        match self {
            Self::Keep => LoadDtype::Keep,
            Self::F32 => LoadDtype::F32,
            Self::F16 | Self::Int8 => LoadDtype::F16,
            Self::BF16 => LoadDtype::BF16,
        }
    }
}

impl From<LoadDtype> for SaveDtype {
    fn from(dtype: LoadDtype) -> Self {
        match dtype {
            LoadDtype::Keep => Self::Keep,
            LoadDtype::F32 => Self::F32,
            LoadDtype::F16 => Self::F16,
            LoadDtype::BF16 => Self::BF16,
        }
    }
}

/// Options for saving weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaveOptions {
    /// Type of the weights in the file (default f32).
    pub dtype: SaveDtype,
    /// Maximum size of one file in bytes (diffusers uses 10 GB); larger weights are sharded. `None` writes one file.
    pub max_shard_bytes: Option<u64>,
}

/// Saves a network in the layout of diffusers and transformers: `config.json` and weights under their published names.
///
/// The folder is created if it does not exist. Tensors are copied to the host one at a time. Each file is written to
/// a temporary name and renamed, so that a crash leaves no partial file. Parameters that are not initialised yet
/// are initialised. With [`SaveDtype::Int8`], `quanto_qmap.json` lists the layers with 8-bit weights. Files of an
/// earlier save that would be read instead of the new ones, or together with them, are removed.
///
/// # Errors
///
/// Returns an error if a file cannot be written or removed, a weight overflows in the requested type, or the device
/// fails.
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
    let mut stored = list(module, options.dtype);
    let int8_layers = int8_layers(&stored);
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
        write_stored(&folder.join(&file), &part)?;
        weight_map.extend(part.into_iter().map(|stored| (stored.name, json!(file))));
    }
    let index = folder.join(format!("{stem}.safetensors.index.json"));
    if count > 1 {
        write_json(&index, &json!({ "metadata": {}, "weight_map": weight_map }))?;
        remove(&folder.join(format!("{stem}.safetensors")))?;
    } else {
        remove(&index)?;
    }
    let int8_map = folder.join("quanto_qmap.json");
    if int8_layers.is_empty() {
        remove(&int8_map)?;
    } else {
        write_json(&int8_map, &Value::Object(int8_layers))?;
    }
    write_text(&config_path, &config_text)
}

/// Removes a file of an earlier save, if there is one.
fn remove(path: &Path) -> Result<(), LoadError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(LoadError::io(path, "remove the file of an earlier save", error))
        }
        _ => Ok(()),
    }
}

/// Saves the weights of a network under their published names as one `.safetensors` file, without a configuration.
///
/// # Errors
///
/// Same as [`save_component`].
pub fn save_weights<M: Module + PublishedNames>(
    module: &M,
    path: impl AsRef<Path>,
    dtype: impl Into<SaveDtype>,
) -> Result<(), LoadError> {
    write_stored(path.as_ref(), &list(module, dtype.into()))
}

/// Lists the tensors to write for the parameters of a network.
fn list<M: Module + PublishedNames>(module: &M, dtype: SaveDtype) -> Vec<Stored> {
    let mut lister = Lister { path: ModulePath::default(), name: M::published_name, dtype, got: Vec::new() };
    module.visit(&mut lister);
    lister.got
}

/// Layers with 8-bit weights and their types, as optimum-quanto's `quanto_qmap.json` contains them.
fn int8_layers(stored: &[Stored]) -> Map<String, Value> {
    let weights = stored.iter().filter(|stored| stored.form == Form::Int8(Int8Part::Data));
    let layers = weights.filter_map(|stored| stored.parameter.strip_suffix(".weight"));
    layers.map(|layer| (layer.to_owned(), json!({ "weights": "qint8", "activations": "none" }))).collect()
}

/// Writes tensors to one file.
fn write_stored(path: &Path, part: &[Stored]) -> Result<(), LoadError> {
    let tensors: Vec<(String, TensorInfo)> = part.iter().map(|s| (s.name.clone(), s.info.clone())).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let place = path.display().to_string();
    write_safetensors(path, &metadata, &tensors, |name| {
        let one = part.iter().find(|stored| stored.name == name);
        one.map_or_else(
            || Err(LoadError::NoSuchTensor { place: place.clone(), tensor: name.to_owned() }),
            |stored| stored.host(&place),
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

/// Tensor to write: a parameter, or one of the two tensors of an 8-bit weight.
struct Stored {
    /// Name in the file.
    name: String,
    info: TensorInfo,
    /// Published name of the parameter.
    parameter: String,
    form: Form,
    /// Copies the values to the host; until it is called, only a handle of the device tensor is held.
    fetch: Box<dyn Fn() -> TensorData>,
}

/// Relation of a stored tensor to its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The parameter as floats of this type.
    Float(LoadDtype),
    /// One of the two tensors of an 8-bit weight. Each computes the scales, so that neither is held until the other is
    /// written.
    Int8(Int8Part),
}

impl Stored {
    fn host(&self, place: &str) -> Result<HostTensor, LoadError> {
        let held = HostTensor::from_data(&guarded(place, &self.parameter, &self.fetch)?);
        match self.form {
            Form::Float(_) if held.info == self.info => Ok(held),
            Form::Float(dtype) => Ok(HostTensor::from_data(&held.into_data(dtype, true, place, &self.parameter)?)),
            Form::Int8(part) => {
                let shape = held.info.shape.clone();
                let data = held.into_data(LoadDtype::F32, true, place, &self.parameter)?;
                let values = data.as_slice::<f32>().expect("values of the type that was asked for");
                Ok(part.quantise(values, &shape))
            }
        }
    }
}

struct Lister<F> {
    path: ModulePath,
    name: F,
    dtype: SaveDtype,
    got: Vec<Stored>,
}

impl<F> Lister<F> {
    fn push<const D: usize>(&mut self, param: &Param<Tensor<D>>, form: Form, parameter: String) {
        let shape = param.lazy_shape().to_vec();
        let (name, info) = match form {
            Form::Float(float) => {
                let dtype = dtype(float.dtype().unwrap_or_else(|| param.val().dtype()));
                (parameter.clone(), TensorInfo { dtype, shape })
            }
            Form::Int8(part) => (part.name_of(&parameter), part.info(&shape)),
        };
        let param = param.clone();
        let fetch = Box::new(move || param.val().into_data());
        self.got.push(Stored { name, info, parameter, form, fetch });
    }
}

impl<F: Fn(&str) -> String> ModuleVisitor for Lister<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = (self.name)(&self.path.join());
        if self.dtype == SaveDtype::Int8 && is_saved_as_int8(&name, &param.lazy_shape()) {
            for part in Int8Part::BOTH {
                self.push(param, Form::Int8(part), name.clone());
            }
        } else {
            self.push(param, Form::Float(self.dtype.float()), name);
        }
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
