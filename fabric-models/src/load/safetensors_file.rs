//! Reading of single `.safetensors` files, one tensor at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use fabric_core::printable;
use rayon::prelude::*;

use super::header::{Header, read_header};
use super::{HostTensor, LoadError, TensorInfo, TensorSource};

/// Bytes per read call: large enough that calls cost little, small enough to split a tensor over threads.
const PIECE: usize = 4 << 20;

/// `.safetensors` file, opened for reading.
///
/// The header is read and validated when the file is opened; values are read on demand. The file is not
/// memory-mapped: if another process truncates a mapped file, this process is killed (SIGBUS), whereas a read
/// returns an error. Tensors are presented as they are stored; [`open_weights`](super::open_weights) presents 8-bit
/// weights as floats.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: PositionedFile,
    header: Header,
}

impl SafetensorsFile {
    /// Opens a file and validates its header: limits, types, tensor sizes that match their shapes, no gaps, no
    /// overlaps, no duplicate names, and no data outside the file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not exist or violates the format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let mut file = open_file(path)?;
        let header = read_header(path, &mut file)?;
        Ok(Self { path: path.to_owned(), file: PositionedFile::new(file), header })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Free-text metadata of the header (`__metadata__`), in which trainers store their settings.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }
}

impl TensorSource for SafetensorsFile {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.header.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        let (Some(info), Some(&offset)) = (self.header.tensors.get(name), self.header.offsets.get(name)) else {
            return Err(LoadError::NoSuchTensor { place: self.place(), tensor: name.to_owned() });
        };
        // The allocation is bounded: the size was checked against the size of the file.
        let mut bytes = vec![0; info.bytes()];
        bytes
            .par_chunks_mut(PIECE)
            .enumerate()
            .try_for_each(|(i, piece)| self.file.read_exact_at(piece, offset + (i * PIECE) as u64))
            .map_err(|e| LoadError::io(&self.path, format!("read tensor `{}`", printable(name)), e))?;
        Ok(HostTensor { info: info.clone(), bytes })
    }

    fn note(&self, name: &str) -> Option<String> {
        self.metadata().get(name).cloned()
    }

    fn notes(&self) -> BTreeMap<String, String> {
        self.metadata().clone()
    }
}

/// Opens a regular file. The error message says whether the path is a folder, a device or a pipe instead.
pub(super) fn open_file(path: &Path) -> Result<File, LoadError> {
    let kind = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => LoadError::NotFound {
            what: "such file".into(),
            path: path.to_owned(),
            next: "check the path, or get the model's files again".into(),
        },
        _ => LoadError::io(path, "open", e),
    })?;
    if !kind.is_file() {
        let got = if kind.is_dir() { "a folder" } else { "a device or a pipe" };
        let next = "give the path of the weights inside it, or open a model folder with `ModelFolder`";
        return Err(LoadError::malformed(path, "weights", got, "a file", next));
    }
    File::open(path).map_err(|e| LoadError::io(path, "open", e))
}

/// File that several threads can read at the same time.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct PositionedFile(File);

#[cfg(unix)]
impl PositionedFile {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, offset)
    }
}

/// File that several threads can read, one at a time.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct PositionedFile(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl PositionedFile {
    pub(super) fn new(file: File) -> Self {
        Self(std::sync::Mutex::new(file))
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        // A poisoned lock is safe to use: the seek below sets the only state.
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}
