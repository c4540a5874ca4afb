//! JSON files of limited size and depth.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::LoadError;
use super::safetensors_file::open_file;

/// Far more than any configuration needs (a scheduler's is 1 kB), far less than would hurt.
pub(crate) const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// An index names every tensor of a model: 100 bytes for each of a few thousand.
pub(super) const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Reads a JSON file of at most `limit` bytes, as Python may have written it ([`fabric_core::json`]). Nesting is
/// limited by the parser, to 128.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T, LoadError> {
    let mut text = Vec::new();
    open_file(path)?.take(limit + 1).read_to_end(&mut text).map_err(|e| LoadError::io(path, "read", e))?;
    if text.len() as u64 > limit {
        let expected = format!("at most {limit} bytes of JSON");
        return Err(LoadError::malformed(path, "settings", "more", expected, "is this the right file?"));
    }
    fabric_core::json::from_slice(&text).map_err(|e| {
        let expected = "the JSON that diffusers or transformers write";
        LoadError::malformed(path, "settings", e.to_string(), expected, "get the file again, or mend it")
    })
}
