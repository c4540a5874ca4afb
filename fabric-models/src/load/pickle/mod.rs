//! Reading of PyTorch files (`.ckpt`, `.bin`, `.pt`, `.pth`). A pickle is a program; only the instructions that
//! describe tensors are interpreted, and no code is executed.

mod container;
mod machine;
mod tensors;
mod values;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use fabric_core::printable;

use self::container::Places;
use self::machine::Fault;
use self::values::{Id, Value, Values, View};
use super::safetensors_file::{PositionedFile, open_file};
use super::{HostTensor, LoadError, TensorInfo, TensorSource};

/// PyTorch file, opened for reading (feature `pickle`).
///
/// If the file is a training checkpoint with a `state_dict`, only the tensors of the `state_dict` are presented,
/// without this prefix. Other objects in the file are ignored.
#[derive(Debug)]
pub(super) struct PickleFile {
    path: PathBuf,
    file: PositionedFile,
    tensors: BTreeMap<String, TensorInfo>,
    views: BTreeMap<String, View>,
    places: Places,
    /// Integers and texts at the top level of the file.
    notes: BTreeMap<String, String>,
}

impl PickleFile {
    /// Opens a file and reads its list of tensors.
    ///
    /// # Errors
    ///
    /// Returns an error if the file does not exist, is not a PyTorch file, contains no tensors, or contains a tensor
    /// that lies outside the file or is not dense (sparse, quantised).
    pub(super) fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        let refused = |fault| match fault {
            Fault::Io(source) => LoadError::io(path, "read", source),
            Fault::Broken(got) => malformed(path, got),
        };
        let mut file = open_file(path)?;
        let opened = container::open(&mut file).map_err(refused)?;
        let views = tensors::find(&opened.values, opened.root).map_err(|got| malformed(path, got))?;
        if views.is_empty() {
            let next = "is this a file of weights?";
            return Err(LoadError::malformed(path, "PyTorch file", "no tensors", "named tensors", next));
        }
        let info = |(name, view): (&String, &View)| Ok((name.clone(), tensors::info(name, view)?));
        let tensors = views.iter().map(info).collect::<Result<BTreeMap<_, _>, String>>();
        let tensors = tensors.map_err(|got| malformed(path, got))?;
        check_size(&tensors, &file).map_err(refused)?.map_err(|got| malformed(path, got))?;
        let places = opened.places(&views, &mut file).map_err(refused)?;
        for (name, view) in &views {
            let place = places.get(&view.storage.key);
            if place.is_none_or(|place| place.end - place.start < bytes_reached(view)) {
                let got = format!("tensor `{}` longer than its storage in the file", printable(name));
                return Err(malformed(path, got));
            }
        }
        let notes = notes(&opened.values, opened.root);
        Ok(Self { path: path.to_owned(), file: PositionedFile::new(file), tensors, views, places, notes })
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
        let (Some(info), Some(view)) = (self.tensors.get(name), self.views.get(name)) else {
            return Err(LoadError::NoSuchTensor { place: self.place(), tensor: name.to_owned() });
        };
        let size = view.dtype.bitsize() / 8;
        let first = (view.offset * size) as u64;
        let start = self.places[&view.storage.key].start + first;
        let mut stored = vec![0; (bytes_reached(view) - first) as usize];
        let read = self.file.read_exact_at(&mut stored, start);
        read.map_err(|e| LoadError::io(&self.path, format!("read tensor `{}`", printable(name)), e))?;
        let bytes = if is_contiguous(view) { stored } else { gathered(&stored, view, size) };
        Ok(HostTensor { info: info.clone(), bytes })
    }

    fn note(&self, name: &str) -> Option<String> {
        self.notes.get(name).cloned()
    }

    fn notes(&self) -> BTreeMap<String, String> {
        self.notes.clone()
    }
}

/// Rejects files whose tensors are much larger than the file. Tensors may share storages and repeat values, but a file
/// of 1 MB that describes gigabytes would exhaust memory.
fn check_size(tensors: &BTreeMap<String, TensorInfo>, file: &File) -> Result<Result<(), String>, Fault> {
    const ALLOWANCE: u64 = 64 << 20;
    let length = file.metadata()?.len();
    let bytes = |info: &TensorInfo| {
        let elements = info.shape.iter().fold(1_u64, |product, &side| product.saturating_mul(side as u64));
        elements.saturating_mul(info.dtype.bitsize() as u64 / 8)
    };
    let sum = tensors.values().fold(0_u64, |sum, info| sum.saturating_add(bytes(info)));
    let most = length.saturating_mul(4).saturating_add(ALLOWANCE);
    Ok(if sum > most { Err(format!("tensors of {sum} bytes in a file of {length} bytes")) } else { Ok(()) })
}

/// Collects integers and texts at the top level of a training checkpoint.
fn notes(values: &Values, root: Id) -> BTreeMap<String, String> {
    // Longer texts are not settings, and a malicious file may refer to the same text a million times.
    const LONGEST: usize = 256;
    const MOST: usize = 1024;
    let text = |id: Id| match &values[id] {
        Value::Int(number) => Some(number.to_string()),
        Value::Text(text) if text.len() <= LONGEST => Some(text.to_string()),
        _ => None,
    };
    let name = |id: Id| values.text(id).filter(|name| name.len() <= LONGEST).map(|name| name.to_string());
    let entries = values.entries(root).unwrap_or_default().iter().take(MOST);
    entries.filter_map(|&(key, value)| Some((name(key)?, text(value)?))).collect()
}

/// End of a tensor's values in its storage, in bytes. It was checked when the file was opened.
fn bytes_reached(view: &View) -> u64 {
    let end = tensors::end(view).expect("a tensor within its storage");
    end as u64 * (view.dtype.bitsize() / 8) as u64
}

/// Returns whether the values are contiguous in row-major order.
fn is_contiguous(view: &View) -> bool {
    if view.shape.contains(&0) {
        return true;
    }
    let mut step = 1;
    view.shape.iter().zip(&view.stride).rev().all(|(side, stride)| {
        let fits = *side == 1 || *stride == step;
        step *= (*side).max(1);
        fits
    })
}

/// Copies the values of a strided tensor (transposed or sliced) to contiguous memory.
fn gathered(stored: &[u8], view: &View, size: usize) -> Vec<u8> {
    let count: usize = view.shape.iter().product();
    let mut bytes = Vec::with_capacity(count * size);
    let mut index = vec![0; view.shape.len()];
    for _ in 0..count {
        let at: usize = index.iter().zip(&view.stride).map(|(i, stride)| i * stride).sum();
        bytes.extend_from_slice(&stored[at * size..][..size]);
        for (i, side) in index.iter_mut().zip(&view.shape).rev() {
            *i += 1;
            if *i < *side {
                break;
            }
            *i = 0;
        }
    }
    bytes
}

fn malformed(path: &Path, got: impl ToString) -> LoadError {
    let expected = "a dictionary of dense tensors as torch.save writes it";
    LoadError::malformed(path, "PyTorch file", got, expected, "get the file again, or its safetensors version")
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    #[test]
    fn tensors_much_larger_than_their_file_are_refused() {
        let file = tempfile::tempfile().expect("a file");
        let check = |count: usize, shape: &[usize]| {
            let info = TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() };
            let tensors = (0..count).map(|at| (at.to_string(), info.clone())).collect();
            check_size(&tensors, &file).expect("the length of the file")
        };
        assert_eq!(check(16, &[1024, 1024]), Ok(()), "64 MB may share and repeat what there is");
        let message = check(17, &[1024, 1024]).expect_err("more than that");
        assert!(message.contains("tensors of 71303168 bytes in a file of 0 bytes"), "{message}");
        assert!(check(1, &[usize::MAX, usize::MAX]).is_err(), "a product beyond all numbers");
        file.set_len(4 << 20).expect("a longer file");
        assert_eq!(check(20, &[1024, 1024]), Ok(()));
    }

    #[test]
    fn notes_are_short_and_few_whatever_a_file_holds() {
        let mut values = Values::default();
        let long = "x".repeat(257);
        let mut entries = Vec::new();
        let mut add = |name: &str, value: Value| {
            let name = values.add(Value::Text(name.into()));
            let value = values.add(value);
            entries.push((name, value));
        };
        add("global_step", Value::Int(5));
        add("long", Value::Text(long.as_str().into()));
        add(&long, Value::Int(1));
        (0..3000).for_each(|i| add(&format!("note {i}"), Value::Int(i)));
        let root = values.add(Value::Dict(entries));
        let notes = notes(&values, root);
        assert_eq!(notes["global_step"], "5");
        assert_eq!(notes["note 0"], "0");
        assert!(notes.len() <= 1024, "{} notes", notes.len());
        assert!(notes.iter().all(|(name, note)| name.len() <= 256 && note.len() <= 256));
        assert!(!notes.contains_key("long"), "a text of 257 bytes was kept");
    }
}
