use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fabric_core::{printable, printable_value};
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use super::json::{MAX_INDEX_BYTES, read_json};
use super::open::{is_pickle, open_pickle};
use super::safetensors_file::open_file;
use super::{HostTensor, LoadError, SafetensorsFile, TensorInfo, TensorSource};

/// Sharded weights: several `.safetensors` files with a `*.safetensors.index.json`; or, with the feature `pickle`,
/// several `.bin` files with a `*.bin.index.json`.
///
/// The index is untrusted input: shard names that are more than a plain file name (absolute, with `..` or any
/// separator) are rejected. Symbolic links are followed to any target, because Hugging Face's cache consists of
/// them.
#[derive(Debug)]
pub(super) struct ShardedSafetensors {
    index: PathBuf,
    shards: BTreeMap<String, Arc<dyn TensorSource>>,
    shard_of: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// The fields of the index that are read.
#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Map from tensor name to file name. serde's maps would silently keep the last of two equal names.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut names = BTreeMap::new();
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    match names.entry(tensor) {
                        Entry::Vacant(entry) => entry.insert(file),
                        Entry::Occupied(entry) => {
                            let name = printable(entry.key());
                            return Err(A::Error::custom(format_args!("tensor `{name}` appears twice")));
                        }
                    };
                }
                Ok(WeightMap(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl ShardedSafetensors {
    /// Opens an index and all shards that it lists.
    ///
    /// # Errors
    ///
    /// Returns an error if the index is invalid or lists anything other than files in its own folder, if a shard is
    /// missing or damaged, or if a tensor is not in exactly the shard that the index gives for it.
    pub(super) fn open(index: impl AsRef<Path>) -> Result<Self, LoadError> {
        let index = index.as_ref();
        let Index { weight_map: WeightMap(shard_of) } = read_json(index, MAX_INDEX_BYTES)?;
        let folder = index.parent().unwrap_or(Path::new(""));
        let mut shards = BTreeMap::new();
        for name in shard_of.values() {
            if shards.contains_key(name) {
                continue;
            }
            check_shard_name(index, name)?;
            let path = folder.join(name);
            if !path.exists() {
                let what = format!("shard `{}`, which {} names", printable(name), printable_value(index.display()));
                return Err(LoadError::NotFound { what, path, next: "get the missing file".into() });
            }
            let is_pickle = is_pickle(&name.to_lowercase());
            let shard = if is_pickle { open_pickle(&path)? } else { Arc::new(SafetensorsFile::open(path)?) };
            shards.insert(name.clone(), shard);
        }
        let tensors = collect(index, &shard_of, &shards)?;
        Ok(Self { index: index.to_owned(), shards, shard_of, tensors })
    }
}

/// Returns the names of the shards that an index lists, without opening them.
///
/// # Errors
///
/// Returns an error if the index is invalid or lists anything other than plain file names.
#[cfg(feature = "hub")]
pub(crate) fn shard_names(index: &Path) -> Result<std::collections::BTreeSet<String>, LoadError> {
    let Index { weight_map: WeightMap(shard_of) } = read_json(index, MAX_INDEX_BYTES)?;
    shard_of.into_values().map(|name| check_shard_name(index, &name).map(|()| name)).collect()
}

/// Checks that a shard's name is a plain file name.
fn check_shard_name(index: &Path, name: &str) -> Result<(), LoadError> {
    if is_plain_file_name(name) {
        return Ok(());
    }
    let got = format!("`{}`", printable(name));
    let expected = "the plain name of a file in the same folder";
    let next = "do not use this index: it points outside its folder";
    Err(LoadError::malformed(index, "shard name", got, expected, next))
}

/// Collects the tensors of all shards and checks that each is in the shard that the index gives.
fn collect(
    index: &Path,
    shard_of: &BTreeMap<String, String>,
    shards: &BTreeMap<String, Arc<dyn TensorSource>>,
) -> Result<BTreeMap<String, TensorInfo>, LoadError> {
    let next = "the index and the files do not belong together: get all of them again";
    let mut tensors = BTreeMap::new();
    for (shard, file) in shards {
        for (name, info) in file.tensors() {
            if shard_of.get(name) != Some(shard) {
                let within = |shard: &String| format!("it in `{}`", printable(shard));
                let expected = shard_of.get(name).map_or("it in no shard".into(), within);
                let what = format!("place of tensor `{}`", printable(name));
                return Err(LoadError::malformed(index, what, within(shard), expected, next));
            }
            tensors.insert(name.clone(), info.clone());
        }
    }
    if let Some((name, shard)) = shard_of.iter().find(|(name, _)| !tensors.contains_key(*name)) {
        let what = format!("place of tensor `{}`", printable(name));
        let expected = format!("it in `{}`", printable(shard));
        return Err(LoadError::malformed(index, what, "it nowhere", expected, next));
    }
    Ok(tensors)
}

impl TensorSource for ShardedSafetensors {
    fn place(&self) -> String {
        self.index.display().to_string()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        match self.shard_of.get(name).and_then(|shard| self.shards.get(shard)) {
            Some(file) => file.read(name),
            None => Err(LoadError::NoSuchTensor { place: self.place(), tensor: name.to_owned() }),
        }
    }
}

/// Returns the size in bytes of a file of weights, or of all shards that an index lists.
///
/// # Errors
///
/// Returns an error if a file does not exist, or the index is invalid.
pub fn weights_bytes(path: impl AsRef<Path>) -> Result<u64, LoadError> {
    let path = path.as_ref();
    let size = |path: &Path| -> Result<u64, LoadError> {
        let metadata = open_file(path)?.metadata();
        Ok(metadata.map_err(|error| LoadError::io(path, "ask for its size", error))?.len())
    };
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        return size(path);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let index = ShardedSafetensors::open(path)?;
    index.shards.keys().map(|shard| size(&folder.join(shard))).sum()
}

/// Returns whether a name is a plain file name on every system: no separators, no drive, not `.` or `..`.
pub(super) fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}
