//! `.ckpt`, `.bin`, `.pt`, `.pth`: PyTorch's pickles, read by burn-store's reader, which executes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn_store::pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use fabric_backends::catch_panic;
use safetensors::Dtype;

use super::safetensors_file::open_file;
use super::{HostTensor, LoadError, TensorInfo, TensorSource};

/// A PyTorch pickle file (feature `pickle`).
///
/// Where the file is a training checkpoint with a `state_dict`, only that is presented, without the prefix.
/// The reader interprets the pickle's few harmless instructions itself; nothing of it is run.
#[derive(Debug)]
pub struct PickleFile {
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
    stored: BTreeMap<String, Tensor>,
}

impl PickleFile {
    /// Opens a file and reads its list of tensors.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is no PyTorch file, or holds no tensors.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        drop(open_file(path)?);
        let tensors = || PytorchReader::new(path).map(|reader| reader.into_tensors().into_iter().collect());
        let mut stored: BTreeMap<String, Tensor> =
            catch_panic(tensors).map_err(|message| panicked(path, &message))?.map_err(|error| refused(path, error))?;
        const TOP: &str = "state_dict.";
        if stored.keys().any(|name| name.starts_with(TOP)) {
            stored = stored
                .into_iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(TOP)?.to_owned(), tensor)))
                .collect();
        }
        if stored.is_empty() {
            let next = "is this a file of weights?";
            return Err(LoadError::malformed(path, "PyTorch file", "no tensors", "named tensors", next));
        }
        let tensors = stored
            .iter()
            .map(|(name, tensor)| {
                let dtype = dtype(tensor.dtype());
                (name.clone(), TensorInfo { dtype, shape: tensor.shape().to_vec() })
            })
            .collect();
        Ok(Self { path: path.to_owned(), tensors, stored })
    }
}

impl TensorSource for PickleFile {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let Some(tensor) = self.stored.get(name) else {
            return Err(LoadError::NoSuchTensor { place: self.place(), tensor: name.to_owned() });
        };
        let mut bytes = catch_panic(|| tensor.read())
            .map_err(|message| panicked(&self.path, &message))?
            .map_err(|e| LoadError::io(&self.path, format!("read tensor `{name}`"), e))?;
        let info = self.tensors[name].clone();
        if cfg!(target_endian = "big") {
            // The reader gives the machine's order, this trait is little-endian.
            bytes.chunks_exact_mut(tensor.dtype().size()).for_each(<[u8]>::reverse);
        }
        Ok(HostTensor { info, bytes })
    }
}

/// A reader that panics tells of the file.
fn panicked(path: &Path, message: &str) -> LoadError {
    let wanted = "a dictionary of dense tensors as torch.save writes it";
    let next = "get the file again, or its safetensors version";
    LoadError::malformed(path, "PyTorch file", format!("what makes its reader panic: {message}"), wanted, next)
}

fn refused(path: &Path, error: PytorchError) -> LoadError {
    match error {
        PytorchError::Io(source) => LoadError::io(path, "read", source),
        other => LoadError::malformed(
            path,
            "PyTorch file",
            other.to_string(),
            "a dictionary of dense tensors as torch.save writes it",
            "get the file again, or its safetensors version",
        ),
    }
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
