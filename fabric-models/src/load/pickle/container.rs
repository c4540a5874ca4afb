//! Containers of a pickle and its storages: zip archives since PyTorch 1.6, and the legacy format before it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use fabric_core::printable;

use super::machine::{Fault, run};
use super::tensors::Tensors;
use super::values::{Id, Value, Values};

/// Maximum size of a pickle or of a zip directory; those of a checkpoint with its optimiser have a few MB.
const MAX_BYTES: u64 = 1 << 28;

/// Error text for files without a pickle.
pub(super) const NOT_PYTORCH: &str = "not a PyTorch checkpoint: neither a zip archive nor the form before it";

/// Magic number of the legacy format: an integer of 10 bytes in a pickle.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Opened file: the values of its pickle, and the information to locate its storages.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) values: Values,
    pub(super) root: Id,
    storages: Storages,
}

/// Byte ranges of storages in the file, by key.
pub(super) type Places = HashMap<Arc<str>, Range<u64>>;

#[derive(Debug)]
enum Storages {
    /// Entries of the zip archive by name, and the prefix of the model's entries.
    Zip { entries: HashMap<String, Entry>, folder: String },
    /// Legacy format: storage keys in file order, and the offset of the first storage.
    Sequence { keys: Vec<Arc<str>>, start: u64 },
}

/// Entry of a zip archive.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Compression method. PyTorch writes only 0 (uncompressed).
    method: u16,
    bytes: u64,
    /// Offset of the local header before the data.
    header: u64,
}

/// Reads everything except the storages.
pub(super) fn open(file: &mut File) -> Result<Opened, Fault> {
    let mut first = Vec::new();
    file.by_ref().take(64).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(0))?;
    if first.starts_with(b"PK\x03\x04") {
        open_zip(file)
    } else if first.windows(MAGIC.len()).any(|bytes| bytes == MAGIC) {
        open_sequence(file)
    } else {
        broken(NOT_PYTORCH)
    }
}

impl Opened {
    /// Locates the storages of these tensors in the file.
    pub(super) fn places(&self, tensors: &Tensors, file: &mut File) -> Result<Places, Fault> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut places = HashMap::new();
        match &self.storages {
            Storages::Zip { entries, folder } => {
                for view in tensors.values() {
                    let key = &view.storage.key;
                    if !places.contains_key(key) {
                        let place = place(file, entries, &format!("{folder}data/{key}"), length)?;
                        places.insert(key.clone(), place);
                    }
                }
            }
            Storages::Sequence { keys, start } => {
                // Each storage is a count followed by the values; the pickle gives their type.
                let sizes = self.values.storages();
                let mut at = *start;
                for key in keys {
                    let Some(dtype) = sizes.get(&**key) else {
                        return broken(format!("a storage `{}` that nothing describes", printable(key)));
                    };
                    // All storages after one of unknown length would be read from wrong offsets.
                    let Some(dtype) = dtype else {
                        return broken(format!("a storage `{}` of a type that is not known", printable(key)));
                    };
                    file.seek(SeekFrom::Start(at))?;
                    let mut count = [0; 8];
                    file.read_exact(&mut count)?;
                    let size = (dtype.bitsize() / 8) as u64;
                    let from = at + 8;
                    let Some(to) =
                        u64::from_le_bytes(count).checked_mul(size).and_then(|bytes| from.checked_add(bytes))
                    else {
                        return broken("a storage larger than any file");
                    };
                    if to > length {
                        return broken(format!("a storage that ends at byte {to} of {length}"));
                    }
                    places.insert(key.clone(), from..to);
                    at = to;
                }
            }
        }
        Ok(places)
    }
}

fn open_zip(file: &mut File) -> Result<Opened, Fault> {
    let length = file.seek(SeekFrom::End(0))?;
    let entries = directory(file, length)?;
    let is_pickle = |name: &&String| **name == "data.pkl" || name.ends_with("/data.pkl");
    // If the archive contains several, the outermost is taken.
    let Some(name) = entries.keys().filter(is_pickle).min_by_key(|name| (name.matches('/').count(), (*name).clone()))
    else {
        return broken("a zip archive without `data.pkl`");
    };
    let folder = name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let mut read = |name: &str| -> Result<Vec<u8>, Fault> {
        let place = place(file, &entries, name, length)?;
        if place.end - place.start > MAX_BYTES {
            return broken(format!("`{}` with more than {MAX_BYTES} bytes", printable(name)));
        }
        let mut bytes = vec![0; (place.end - place.start) as usize];
        file.seek(SeekFrom::Start(place.start))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let order = format!("{folder}byteorder");
    if entries.contains_key(&order) && read(&order)? != b"little" {
        return broken(BIG_ENDIAN);
    }
    let (values, root) = run(&mut Cursor::new(read(name)?))?;
    Ok(Opened { values, root, storages: Storages::Zip { entries, folder } })
}

const BIG_ENDIAN: &str = "a file from a machine with another order of bytes";

/// Reads the central directory at the end of a zip archive.
fn directory(file: &mut File, length: u64) -> Result<HashMap<String, Entry>, Fault> {
    const END: usize = 22;
    const LOCATOR: usize = 20;
    // The end record may be followed by a comment of at most 64 kB.
    let tail_length = length.min((END + LOCATOR + 0xffff) as u64);
    let mut tail = vec![0; tail_length as usize];
    file.seek(SeekFrom::Start(length - tail_length))?;
    file.read_exact(&mut tail)?;
    let Some(end) = (0..=tail.len().saturating_sub(END)).rev().find(|at| tail[*at..].starts_with(b"PK\x05\x06")) else {
        return broken("a zip archive without its end, as of a download that was broken off");
    };
    let fields = Fields(&tail[end..]);
    let (mut size, mut start) = (u64::from(fields.u32(12)?), u64::from(fields.u32(16)?));
    // Archives of more than 4 GB have an additional zip64 end record.
    let locator = end.checked_sub(LOCATOR).map(|at| &tail[at..end]).filter(|bytes| bytes.starts_with(b"PK\x06\x07"));
    if let Some(locator) = locator {
        let mut record = [0; 56];
        file.seek(SeekFrom::Start(Fields(locator).u64(8)?))?;
        file.read_exact(&mut record)?;
        if !record.starts_with(b"PK\x06\x06") {
            return broken("a zip archive without its second end");
        }
        (size, start) = (Fields(&record).u64(40)?, Fields(&record).u64(48)?);
    }
    if size > MAX_BYTES || start.checked_add(size).is_none_or(|end| end > length) {
        return broken("a zip archive whose list of entries lies outside of it");
    }
    let mut list = vec![0; size as usize];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut list)?;

    let mut entries = HashMap::new();
    let mut rest = &list[..];
    while rest.starts_with(b"PK\x01\x02") {
        let fields = Fields(rest);
        let sizes = [28, 30, 32].map(|at| fields.u16(at));
        let [Ok(name), Ok(extra), Ok(comment)] = sizes.map(|size| size.map(usize::from)) else {
            return broken("an entry that ends too early");
        };
        let (from, to) = (46 + name, 46 + name + extra);
        let (Some(name), Some(extra)) = (rest.get(46..from), rest.get(from..to)) else {
            return broken("an entry that ends too early");
        };
        let mut entry =
            Entry { method: fields.u16(10)?, bytes: fields.u32(24)?.into(), header: fields.u32(42)?.into() };
        large_entry(&mut entry, fields.u32(20)?, extra)?;
        entries.insert(String::from_utf8_lossy(name).into_owned(), entry);
        rest = rest.get(to + comment..).unwrap_or_default();
    }
    Ok(entries)
}

/// Reads numbers that do not fit into 32 bits from the zip64 extra field.
fn large_entry(entry: &mut Entry, packed: u32, mut extra: &[u8]) -> Result<(), Fault> {
    const LARGE: u64 = u32::MAX as u64;
    while extra.len() >= 4 {
        let (kind, size) = (Fields(extra).u16(0)?, usize::from(Fields(extra).u16(2)?));
        let Some(field) = extra.get(4..4 + size) else { return broken("an entry that ends too early") };
        if kind == 1 {
            let mut at = 0;
            let mut next = || {
                at += 8;
                Fields(field).u64(at - 8)
            };
            if entry.bytes == LARGE {
                entry.bytes = next()?;
            }
            if u64::from(packed) == LARGE {
                next()?;
            }
            if entry.header == LARGE {
                entry.header = next()?;
            }
            return Ok(());
        }
        extra = &extra[4 + size..];
    }
    Ok(())
}

/// Locates the data of an entry.
fn place(file: &mut File, entries: &HashMap<String, Entry>, name: &str, length: u64) -> Result<Range<u64>, Fault> {
    let shown = printable(name);
    let Some(entry) = entries.get(name) else {
        return broken(format!("a zip archive without `{shown}`"));
    };
    if entry.method != 0 {
        return broken(format!("`{shown}` compressed, which PyTorch's files are not: pack the archive without"));
    }
    let mut header = [0; 30];
    file.seek(SeekFrom::Start(entry.header))?;
    file.read_exact(&mut header)?;
    let before = 30 + u64::from(Fields(&header).u16(26)?) + u64::from(Fields(&header).u16(28)?);
    let start = entry.header.checked_add(before);
    match start.and_then(|start| Some(start..start.checked_add(entry.bytes)?)) {
        Some(place) if header.starts_with(b"PK\x03\x04") && place.end <= length => Ok(place),
        _ => broken(format!("`{shown}` that lies outside of the archive")),
    }
}

/// Reader of little-endian numbers at given offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Fault> {
        match self.0.get(at..).and_then(|bytes| bytes.first_chunk()) {
            Some(bytes) => Ok(*bytes),
            None => broken("a zip archive that ends too early"),
        }
    }

    fn u16(&self, at: usize) -> Result<u16, Fault> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, Fault> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, Fault> {
        self.array(at).map(u64::from_le_bytes)
    }
}

/// Opens the legacy format, used before PyTorch 1.6: pickles of magic number, version, system information, values and
/// storage keys, followed by the storages.
fn open_sequence(file: &mut File) -> Result<Opened, Fault> {
    let mut input = BufReader::new(file).take(MAX_BYTES);
    run(&mut input)?;
    let (version, root) = run(&mut input)?;
    if version.size(root) != Some(1001) {
        return broken("a version of PyTorch's older form that is not 1001");
    }
    let (machine, root) = run(&mut input)?;
    let little_endian = machine.entry(root, "little_endian").map(|value| &machine[value]);
    if matches!(little_endian, Some(Value::Plain("False"))) {
        return broken(BIG_ENDIAN);
    }
    let (values, root) = run(&mut input)?;
    let (list, keys) = run(&mut input)?;
    let key = |id: &Id| match &list[*id] {
        Value::Text(key) => Some(key.clone()),
        Value::Int(key) => Some(key.to_string().into()),
        _ => None,
    };
    let keys = list.list(keys).map(|keys| keys.iter().map(key).collect::<Option<Vec<_>>>());
    let Some(Some(keys)) = keys else { return broken("a list of storages that is none") };
    let start = input.get_mut().stream_position()?;
    Ok(Opened { values, root, storages: Storages::Sequence { keys, start } })
}

fn broken<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Broken(what.into()))
}
