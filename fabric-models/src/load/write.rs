//! Atomic writing of safetensors, JSON and text files: to a temporary name beside the target, then renamed.

use std::collections::BTreeMap;
use std::fs::{DirEntry, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fabric_core::json::{MAX_SETTINGS_MEMORY, from_str_within};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::header::check_header;
use super::json::{MAX_CONFIG_BYTES, MAX_INDEX_BYTES};
use super::{HostTensor, LoadError, TensorInfo};

/// Writes a `.safetensors` file, calling `read` for one tensor at a time.
///
/// Wider types come first, so that every tensor is aligned; otherwise the order is that of `tensors`. The file
/// appears under its name only when it is complete and on disk.
///
/// # Errors
///
/// Returns an error if the file cannot be written, would be invalid when read again, or `read` fails.
///
/// # Panics
///
/// Panics if a name occurs twice, or `read` returns another type or shape than `tensors` lists.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    metadata: &BTreeMap<String, String>,
    tensors: &[(String, TensorInfo)],
    mut read: impl FnMut(&str) -> Result<HostTensor, LoadError>,
) -> Result<(), LoadError> {
    let path = path.as_ref();
    let mut ordered: Vec<&(String, TensorInfo)> = tensors.iter().collect();
    ordered.sort_by_key(|(_, info)| std::cmp::Reverse(info.dtype.bitsize()));
    let header = header(metadata, &ordered);
    check_header(path, &header, ordered.iter().map(|(_, info)| info.bytes() as u64).sum())?;
    let partial = Partial::beside(path)?;
    let io = |error| LoadError::io(path, "write", error);
    let mut out = BufWriter::new(File::create_new(partial.path()).map_err(io)?);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    out.write_all(header.as_bytes()).map_err(io)?;
    for (name, info) in ordered {
        let tensor = read(name)?;
        assert_eq!(&tensor.info, info, "type and shape of tensor `{name}`");
        assert_eq!(tensor.bytes.len(), info.bytes(), "bytes of tensor `{name}`");
        out.write_all(&tensor.bytes).map_err(io)?;
    }
    out.into_inner().map_err(|error| io(error.into_error()))?.sync_all().map_err(io)?;
    partial.rename(path)
}

fn header(metadata: &BTreeMap<String, String>, tensors: &[&(String, TensorInfo)]) -> String {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut offset = 0;
    for (name, info) in tensors {
        let end = offset + info.bytes();
        let entry = json!({ "dtype": info.dtype, "shape": info.shape, "data_offsets": [offset, end] });
        assert!(entries.insert(name.clone(), entry).is_none(), "tensor `{name}` is given twice");
        offset = end;
    }
    let mut header = Value::Object(entries).to_string();
    // Padding aligns the start of the data for the widest type; the format allows trailing spaces.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(Dtype::F64.bitsize() / 8) - header.len()));
    header
}

/// Writes indented JSON as diffusers does, atomically.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), LoadError> {
    write_text(path, &json_text(path, value)?)
}

/// Formats the text of a JSON file. Returns an error if the text is longer or nested deeper than readers accept.
pub(super) fn json_text(path: &Path, value: &Value) -> Result<String, LoadError> {
    let text = format!("{value:#}\n");
    let limit = if path.to_string_lossy().ends_with(".index.json") { MAX_INDEX_BYTES } else { MAX_CONFIG_BYTES };
    let refused = |got: String| {
        let expected = format!("at most {limit} bytes of JSON, nested less than 128 levels deep");
        LoadError::malformed(path, "settings to write", got, expected, "give shorter or flatter settings")
    };
    if text.len() as u64 > limit {
        return Err(refused(format!("{} bytes", text.len())));
    }
    from_str_within::<Value>(&text, MAX_SETTINGS_MEMORY).map_err(|error| refused(error.to_string()))?;
    Ok(text)
}

/// Writes a text file atomically.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), LoadError> {
    let partial = Partial::beside(path)?;
    let io = |error| LoadError::io(path, "write", error);
    let mut file = File::create_new(partial.path()).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    partial.rename(path)
}

/// Part of a temporary name between the target's name and the unique number.
const PARTIAL: &str = ".partial-";
/// Digits of the unique number, which is written in base 16.
const UNIQUE_DIGITS: usize = 16;

/// Age from which on a temporary file or folder counts as left by a process that was stopped. No write takes a
/// day, and every new file in a folder renews its time; a day also allows for clocks that differ.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Temporary file or folder that is removed when dropped, unless it was renamed to its target.
#[derive(Debug)]
pub(crate) struct Partial(PathBuf);

impl Partial {
    /// Chooses a unique temporary name in the folder of `path`. It does not collide with other threads, with processes
    /// on this or another machine that shares the folder, or with files left by a crash. Those that crashes left for
    /// the same `path` more than a day ago are removed.
    pub(crate) fn beside(path: &Path) -> Result<Self, LoadError> {
        let Some(name) = path.file_name() else {
            let next = "give a path that ends with a name";
            return Err(LoadError::malformed(path, "path to write to", "no name at its end", "one", next));
        };
        let name = name.to_string_lossy();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        sweep(folder.unwrap_or(Path::new(".")), |target| target == name);
        // A process id is not unique: threads share it, and in containers it is often 1. `RandomState` has random keys.
        let unique = RandomState::new().hash_one(std::process::id());
        Ok(Self(path.with_file_name(format!(".{name}{PARTIAL}{unique:016x}"))))
    }

    /// Like [`Self::beside`], but creates an empty folder of that name, with its parents.
    pub(crate) fn folder_beside(path: &Path) -> Result<Self, LoadError> {
        let partial = Self::beside(path)?;
        std::fs::create_dir_all(partial.path())
            .map_err(|error| LoadError::io(partial.path(), "make the folder", error))?;
        Ok(partial)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn rename(self, path: &Path) -> Result<(), LoadError> {
        std::fs::rename(&self.0, path).map_err(|error| LoadError::io(path, "put the written file into place", error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename nothing is left to remove. After a failure, an error here would hide the original one.
        let _ = if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}

/// Removes the temporary files and folders that processes left in a folder more than a day ago, for targets whose names
/// satisfy `is_target`. Whatever cannot be listed or removed stays.
pub(crate) fn sweep(folder: &Path, is_target: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        if target_of(&entry.file_name().to_string_lossy()).is_some_and(&is_target) && is_stale(&entry) {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            let _ = if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// Returns the name of the target of a temporary name that [`Partial::beside`] chose; `None` for other names.
fn target_of(name: &str) -> Option<&str> {
    let (target, unique) = name.strip_prefix('.')?.rsplit_once(PARTIAL)?;
    let is_unique = unique.len() == UNIQUE_DIGITS && unique.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_unique.then_some(target)
}

/// Returns whether an entry of a folder was last written more than a day ago.
pub(crate) fn is_stale(entry: &DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    // A time in the future, as of a machine with another clock, is no age.
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > STALE))
}
