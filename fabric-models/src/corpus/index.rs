//! The index file: embeddings of images, with the paths, stamps and content hashes of their files.
//!
//! It is a safetensors file with the encoder's fingerprint, the embeddings, and the list of files as JSON. Like all
//! files of this library it is written under a temporary name and renamed. A digest in its metadata ensures that a
//! damaged file is not used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use fabric_core::image::ContentHash;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rows::Row;
use super::stamp::Stamp;
use crate::load::{
    Dtype, HostTensor, LoadError, SafetensorsFile, TensorInfo, TensorSource, write_safetensors, write_text,
};

/// Format and version. A new version is needed if images are decoded in another way, because embeddings depend on it.
const FORMAT: &str = "fabric-corpus 1";

/// Names of the tensors: the encoder's fingerprint, the embeddings, and the files.
const NAMES: [&str; 3] = ["probes", "embeddings", "files"];

/// Embedding of one image file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Name of the file in the index, see [`super::walk::Found::key`].
    pub(super) key: Option<String>,
    /// Length and modification time of the file; `None` if they do not tell whether it changed.
    pub(super) stamp: Option<Stamp>,
    /// Hash of the pixels.
    pub(super) hash: ContentHash,
    /// The normalised embedding.
    pub(super) row: Row,
}

/// Content of an index file.
#[derive(Debug)]
pub(super) struct Index {
    /// Fingerprint of the encoder.
    pub(super) probes: Vec<Row>,
    pub(super) entries: Vec<Entry>,
}

/// Description of a file in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    path: Option<String>,
    stamp: Option<Stamp>,
    image: ContentHash,
}

/// Reads an index. Returns `None` if there is no file, and the reason if it cannot be used.
pub(super) fn read(path: &Path) -> Result<Option<Index>, String> {
    let file = match SafetensorsFile::open(path) {
        Ok(file) => file,
        Err(LoadError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if file.metadata().get("format").map(String::as_str) != Some(FORMAT) {
        return Err(format!("it is not in the format `{FORMAT}`"));
    }
    let tensor = |name: &str| file.read(name).map_err(|error| error.to_string());
    let [probes, embeddings, files] = NAMES;
    let tensors = [tensor(probes)?, tensor(embeddings)?, tensor(files)?];
    if file.metadata().get("sha256") != Some(&digest(&tensors)) {
        return Err("its bytes are not those that were written".to_owned());
    }
    let [probes, embeddings, files] = tensors;
    let (probes, rows) = (matrix(&probes)?, matrix(&embeddings)?);
    let records: Vec<Record> = serde_json::from_slice(&files.bytes).map_err(|error| error.to_string())?;
    let dim = probes.first().map(|probe| probe.len());
    if records.len() != rows.len() || rows.iter().any(|row| Some(row.len()) != dim) {
        return Err("its parts have different sizes".to_owned());
    }
    let entry = |(record, row): (Record, Row)| Entry { key: record.path, stamp: record.stamp, hash: record.image, row };
    let entries = records.into_iter().zip(rows).map(entry).collect();
    Ok(Some(Index { probes, entries }))
}

/// Returns the rows of a matrix of floats.
fn matrix(tensor: &HostTensor) -> Result<Vec<Row>, String> {
    match (tensor.info.dtype, tensor.info.shape.as_slice()) {
        (Dtype::F32, &[_, dim]) if dim > 0 => {
            let floats = |row: &[[u8; 4]]| -> Row { row.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect() };
            Ok(tensor.bytes.as_chunks::<4>().0.chunks_exact(dim).map(floats).collect())
        }
        (dtype, shape) => Err(format!("it has embeddings of type {dtype:?} and shape {shape:?}")),
    }
}

/// Writes an index, which replaces an existing one when it is complete.
pub(super) fn write(path: &Path, probes: &[Row], entries: &[&Entry]) -> Result<(), LoadError> {
    let dim = probes[0].len();
    let record = |entry: &&Entry| Record { path: entry.key.clone(), stamp: entry.stamp, image: entry.hash };
    let records: Vec<Record> = entries.iter().map(record).collect();
    let json = serde_json::to_vec(&records).expect("strings and numbers are valid JSON");
    let tensors = [
        floats(probes.iter(), dim),
        floats(entries.iter().map(|entry| &entry.row), dim),
        HostTensor { info: TensorInfo { dtype: Dtype::U8, shape: vec![json.len()] }, bytes: json },
    ];
    let metadata = [("format", FORMAT.to_owned()), ("sha256", digest(&tensors))];
    let metadata = BTreeMap::from(metadata.map(|(name, value)| (name.to_owned(), value)));
    let mut tensors: BTreeMap<&str, HostTensor> = NAMES.into_iter().zip(tensors).collect();
    let infos: Vec<(String, TensorInfo)> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.info.clone())).collect();
    // Removed instead of cloned: the embeddings may have hundreds of megabytes.
    write_safetensors(path, &metadata, &infos, |name| Ok(tensors.remove(name).expect("each tensor is written once")))
}

/// Returns rows of length `dim` as a matrix.
fn floats<'a>(rows: impl ExactSizeIterator<Item = &'a Row>, dim: usize) -> HostTensor {
    let shape = vec![rows.len(), dim];
    let mut bytes = Vec::with_capacity(rows.len() * dim * 4);
    for row in rows {
        bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
    }
    HostTensor { info: TensorInfo { dtype: Dtype::F32, shape }, bytes }
}

/// Returns an error if no index can be written at `path`, so that this shows before hours of work.
pub(super) fn check_writable(path: &Path) -> Result<(), LoadError> {
    if path.is_dir() {
        return Err(LoadError::malformed(path, "path of the index", "a folder", "a file", "add a file name"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let trial = path.with_file_name(format!(".{name}.trial"));
    write_text(&trial, "")?;
    // Best effort: an empty file that remains is no harm.
    let _ = fs::remove_file(trial);
    Ok(())
}

/// Returns the path that an index of another encoder is renamed to: that of the index, with `.old` added.
pub(super) fn old_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".old");
    path.with_file_name(name)
}

/// Renames an index to [`old_path`], which replaces an older file of that name.
pub(super) fn set_aside(path: &Path) -> Result<(), LoadError> {
    let old = old_path(path);
    match fs::rename(path, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::io(&old, "rename the index of another encoder to this path", error))
        }
        _ => Ok(()),
    }
}

/// Returns the SHA-256 of shapes and values in hex.
fn digest(tensors: &[HostTensor; 3]) -> String {
    let mut digest = Sha256::new();
    for tensor in tensors {
        digest.update(format!("{:?}", tensor.info.shape));
        digest.update(&tensor.bytes);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
