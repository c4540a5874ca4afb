//! Reading of JSON files with limits on size and depth.

use std::io::Read;
use std::path::Path;

use fabric_core::json::{MAX_SETTINGS_MEMORY, from_slice_within};
use serde::de::DeserializeOwned;

use super::LoadError;
use super::safetensors_file::open_file;

/// Size limit for configurations (a scheduler's has 1 kB).
pub(crate) const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Size limit for indices of sharded weights, which have about 100 bytes for each of a few thousand tensors.
pub(super) const MAX_INDEX_BYTES: u64 = 16 << 20;

/// Reads a JSON object from a file of at most `limit` bytes, with Python's extensions ([`fabric_core::json`]). The
/// parser limits the nesting depth to 128, and the memory of all values to [`MAX_SETTINGS_MEMORY`], which suffices for
/// an index of a hundred thousand tensors.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, LoadError> {
    let mut text = Vec::new();
    let file = open_file(path)?;
    let check_length = |got: u64| {
        if got <= limit {
            return Ok(());
        }
        let expected = format!("at most {limit} bytes of JSON");
        Err(LoadError::malformed(path, "settings", "more", expected, "is this the right file?"))
    };
    check_length(file.metadata().map_err(|e| LoadError::io(path, "ask for its size", e))?.len())?;
    // What is no regular file has no length before it is read.
    file.take(limit + 1).read_to_end(&mut text).map_err(|e| LoadError::io(path, "read", e))?;
    check_length(text.len() as u64)?;
    let next = "get the file again, or mend it";
    let settings = from_slice_within(&text, MAX_SETTINGS_MEMORY).map_err(|e| {
        let expected = "the JSON that diffusers or transformers write";
        LoadError::malformed(path, "settings", e.to_string(), expected, next)
    })?;
    if fabric_core::json::is_list(&text) {
        return Err(LoadError::malformed(path, "settings", "a list", "a JSON object", next));
    }
    Ok(settings)
}
