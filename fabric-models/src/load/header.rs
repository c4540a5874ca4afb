//! Reading and validation of safetensors headers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use fabric_core::printable;
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use super::{LoadError, TensorInfo};

/// Bytes before the header: its length, u64 little-endian.
const LENGTH_BYTES: u64 = 8;

/// Limit that the format specifies.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Maximum number of tensors. A whole checkpoint of Stable Diffusion XL has about 2,500, and every tensor takes a few
/// hundred bytes of memory.
const MAX_TENSORS: usize = 1 << 17;

/// Maximum length of a tensor's name; published names have up to 90 bytes.
const MAX_NAME_BYTES: usize = 1024;

/// Maximum number of axes of a tensor; no weights have more than five.
const MAX_AXES: usize = 8;

const GET_AGAIN: &str = "the file is damaged or incomplete: get it again";

/// Validated header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, TensorInfo>,
    /// Offset of each tensor from the start of the file.
    pub(super) offsets: BTreeMap<String, u64>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Entry of one tensor in the header.
#[derive(Deserialize)]
struct Described {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Header before validation. serde's maps would silently keep the last of two equal names, so it has its own
/// `Deserialize`.
#[derive(Default)]
struct Written {
    tensors: BTreeMap<String, Described>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor descriptions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
                let mut written = Written::default();
                let mut metadata_seen = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if std::mem::replace(&mut metadata_seen, true) {
                            return Err(A::Error::custom("`__metadata__` appears twice"));
                        }
                        written.metadata = map.next_value()?;
                        continue;
                    }
                    if written.tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    match written.tensors.entry(name) {
                        Entry::Vacant(entry) => {
                            entry.insert(map.next_value()?);
                        }
                        Entry::Occupied(entry) => {
                            let name = printable(entry.key());
                            return Err(A::Error::custom(format_args!("tensor `{name}` appears twice")));
                        }
                    }
                }
                Ok(written)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Reads and validates the header at the start of `file`.
pub(super) fn read_header(path: &Path, file: &mut File) -> Result<Header, LoadError> {
    let file_bytes = file.metadata().map_err(|e| LoadError::io(path, "ask for its size", e))?.len();
    let malformed = |what: &str, got: String, expected: String| {
        LoadError::malformed(path, what, got, expected, sniff(path).unwrap_or(GET_AGAIN))
    };
    if file_bytes < LENGTH_BYTES {
        let got = if file_bytes == 0 { "an empty file".to_owned() } else { format!("{file_bytes} bytes") };
        return Err(malformed("safetensors file", got, "8 bytes with the header's length first".into()));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| LoadError::io(path, "read the header's length", e))?;
    let header_bytes = u64::from_le_bytes(length);
    let room = file_bytes - LENGTH_BYTES;
    if header_bytes > room.min(MAX_HEADER_BYTES) {
        let expected = format!("at most {} (the file has {file_bytes} bytes)", room.min(MAX_HEADER_BYTES));
        return Err(malformed("length of the safetensors header", format!("{header_bytes} bytes"), expected));
    }
    let mut text = vec![0; header_bytes as usize];
    file.read_exact(&mut text).map_err(|e| LoadError::io(path, "read the header", e))?;
    let written =
        checked(&text, room - header_bytes).map_err(|fault| malformed(&fault.what, fault.got, fault.expected))?;
    let start = LENGTH_BYTES + header_bytes;
    let offsets = written.tensors.iter().map(|(name, t)| (name.clone(), start + t.data_offsets.0)).collect();
    let tensors =
        written.tensors.into_iter().map(|(name, t)| (name, TensorInfo { dtype: t.dtype, shape: t.shape })).collect();
    Ok(Header { tensors, offsets, metadata: written.metadata })
}

/// Validates a header before it is written, so that every written file can be read again.
pub(super) fn check_header(path: &Path, text: &str, data_bytes: u64) -> Result<(), LoadError> {
    let refused = |what: &str, got: String, expected: String| {
        LoadError::malformed(path, format!("{what}, to be written"), got, expected, "give fewer tensors or other names")
    };
    if text.len() as u64 > MAX_HEADER_BYTES {
        let expected = format!("at most {MAX_HEADER_BYTES}");
        return Err(refused("length of the safetensors header", format!("{} bytes", text.len()), expected));
    }
    checked(text.as_bytes(), data_bytes).map_err(|fault| refused(&fault.what, fault.got, fault.expected))?;
    Ok(())
}

/// Parses and validates a header.
fn checked(text: &[u8], data_bytes: u64) -> Result<Written, Fault> {
    let written = serde_json::from_slice(text).map_err(|error| Fault {
        what: "safetensors header".into(),
        got: error.to_string(),
        expected: "JSON that describes each tensor once".into(),
    })?;
    check_layout(&written, data_bytes)?;
    Ok(written)
}

struct Fault {
    what: String,
    got: String,
    expected: String,
}

/// Checks the name and the axes of every tensor, that its size matches its shape, and that the tensors cover the data
/// without gap or overlap.
fn check_layout(written: &Written, data_bytes: u64) -> Result<(), Fault> {
    let mut in_order: Vec<(&String, &Described)> = written.tensors.iter().collect();
    in_order.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut end = 0;
    for (name, tensor) in in_order {
        let fault = |what: &str, got: String, expected: String| Fault {
            what: format!("{what} of tensor `{}`", printable(name)),
            got,
            expected,
        };
        // Names are shown and compared, and a terminal would execute control characters.
        if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            let got = format!("{} bytes", name.len());
            return Err(fault("name", got, format!("at most {MAX_NAME_BYTES} bytes without control characters")));
        }
        if tensor.shape.len() > MAX_AXES {
            let got = format!("{} axes", tensor.shape.len());
            return Err(fault("shape", got, format!("at most {MAX_AXES} axes")));
        }
        let (from, to) = tensor.data_offsets;
        let bits = tensor
            .shape
            .iter()
            .try_fold(tensor.dtype.bitsize() as u64, |product, side| product.checked_mul(*side as u64))
            .filter(|bits| bits % 8 == 0)
            .ok_or_else(|| fault("shape", format!("{:?}", tensor.shape), "a size that can be addressed".into()))?;
        if to.checked_sub(from) != Some(bits / 8) {
            let expected = format!("{} bytes for {:?} values of shape {:?}", bits / 8, tensor.dtype, tensor.shape);
            return Err(fault("offsets", format!("{from}..{to}"), expected));
        }
        if from != end {
            let expected = format!("a start at {end}, where the tensor before it ends (no gap, no overlap)");
            return Err(fault("offsets", format!("{from}..{to}"), expected));
        }
        end = to;
    }
    if end != data_bytes {
        return Err(Fault {
            what: "size of the data".into(),
            got: format!("{data_bytes} bytes"),
            expected: format!("{end} bytes, the sum of all tensors"),
        });
    }
    Ok(())
}

/// Guesses the actual format of a file that is not a safetensors file, and returns advice for the error message.
fn sniff(path: &Path) -> Option<&'static str> {
    let mut first = [0; 16];
    let mut file = File::open(path).ok()?;
    let count = file.read(&mut first).ok()?;
    let first = &first[..count];
    let is = |magic: &[u8]| first.starts_with(magic);
    if is(b"version https://") {
        Some("this is a Git LFS pointer, not the file itself: run `git lfs pull`")
    } else if is(b"PK\x03\x04") || is(b"\x80\x02") {
        Some("this is a PyTorch pickle file: name it `.ckpt` or `.bin` and read it with the feature `pickle`")
    } else if is(b"GGUF") {
        Some("this is a GGUF file, which is not supported: get the safetensors version")
    } else if is(b"<") {
        Some("this is a web page, probably a failed download: get the file again")
    } else {
        None
    }
}
