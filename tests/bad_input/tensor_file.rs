//! Writer of safetensors files that checks nothing, so that it can write invalid ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Tensor as a file stores it.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Contents of a safetensors file.
#[derive(Clone, Default)]
pub(crate) struct TensorFile {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

impl TensorFile {
    /// Reads a valid file.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("a file");
        let (length, rest) = bytes.split_first_chunk::<8>().expect("the length of a header");
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header: Map<String, Value> = serde_json::from_slice(header).expect("a header");
        let tensors = header.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, entry)| {
            let shape = entry["shape"].as_array().expect("a shape").iter().map(number).collect();
            let [from, to] = [0_usize, 1].map(|end| number(&entry["data_offsets"][end]));
            let dtype = entry["dtype"].as_str().expect("a type").to_owned();
            (name.clone(), Stored { dtype, shape, bytes: data[from..to].to_vec() })
        });
        Self { metadata: BTreeMap::new(), tensors: tensors.collect() }
    }

    /// Adds or replaces a tensor of f32.
    pub(crate) fn with(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.with_bytes(name, "F32", shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// Adds or replaces a tensor of zeros in f32.
    pub(crate) fn with_zeros(self, name: &str, shape: &[usize]) -> Self {
        let count = shape.iter().product::<usize>();
        self.with(name, shape, &vec![0.0; count])
    }

    /// Adds or replaces a tensor.
    pub(crate) fn with_bytes(mut self, name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>) -> Self {
        let stored = Stored { dtype: dtype.to_owned(), shape: shape.to_vec(), bytes };
        self.tensors.insert(name.to_owned(), stored);
        self
    }

    /// Removes a tensor.
    pub(crate) fn without(mut self, name: &str) -> Self {
        assert!(self.tensors.remove(name).is_some(), "a tensor `{name}`");
        self
    }

    /// Changes a tensor.
    pub(crate) fn changed(mut self, name: &str, change: impl FnOnce(&mut Stored)) -> Self {
        change(self.tensors.get_mut(name).unwrap_or_else(|| panic!("a tensor `{name}`")));
        self
    }

    /// Renames a tensor.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Self {
        let stored = self.tensors.remove(from).unwrap_or_else(|| panic!("a tensor `{from}`"));
        self.tensors.insert(to.to_owned(), stored);
        self
    }

    /// Adds an entry of the metadata.
    pub(crate) fn with_metadata(mut self, name: &str, text: &str) -> Self {
        self.metadata.insert(name.to_owned(), text.to_owned());
        self
    }

    /// Returns the bytes of the file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut header = Map::new();
        if !self.metadata.is_empty() {
            header.insert("__metadata__".to_owned(), json!(self.metadata));
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, Stored { dtype, shape, bytes }) in &self.tensors {
            let offsets = [data.len(), data.len() + bytes.len()];
            header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
            data.extend_from_slice(bytes);
        }
        let header = Value::Object(header).to_string();
        [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), &data].concat()
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a number") as usize
}

/// Returns a file with this header and as many zeros as data.
pub(crate) fn with_header(header: &str, data: usize) -> Vec<u8> {
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), &vec![0; data]].concat()
}
