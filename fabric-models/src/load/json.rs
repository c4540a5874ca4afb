//! Reading of JSON files with limits on size and depth.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::LoadError;
use super::safetensors_file::open_file;

/// Size limit for configurations (a scheduler's has 1 kB).
pub(crate) const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Size limit for indices of sharded weights, which have about 100 bytes for each of a few thousand tensors.
pub(super) const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Reads a JSON object from a file of at most `limit` bytes, with Python's extensions ([`fabric_core::json`]). The
/// parser limits the nesting depth to 128.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, LoadError> {
    let mut text = Vec::new();
    open_file(path)?.take(limit + 1).read_to_end(&mut text).map_err(|e| LoadError::io(path, "read", e))?;
    if text.len() as u64 > limit {
        let expected = format!("at most {limit} bytes of JSON");
        return Err(LoadError::malformed(path, "settings", "more", expected, "is this the right file?"));
    }
    let next = "get the file again, or mend it";
    let settings = fabric_core::json::from_slice(&text).map_err(|e| {
        let expected = "the JSON that diffusers or transformers write";
        LoadError::malformed(path, "settings", e.to_string(), expected, next)
    })?;
    if fabric_core::json::is_list(&text) {
        return Err(LoadError::malformed(path, "settings", "a list", "a JSON object", next));
    }
    Ok(settings)
}
