//! Shared code of the golden tests: finds and reads golden files, and records the largest error of each.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// The folder of golden files: `FABRIC_GOLDENS`, or the copy in the repository.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("FABRIC_GOLDENS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")), PathBuf::from)
}

/// The folder of golden files that exist only in this repository.
pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))
}

/// Reads a JSON file of the golden folder.
pub(crate) fn json(name: &str) -> serde_json::Value {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The device under test (`FABRIC_DEVICE`, or the default one).
pub(crate) fn device() -> Device {
    fabric::default_device().expect("a device to test on")
}

/// Largest error allowed, relative to the largest value of the expected tensor.
///
/// In f32, two correct implementations differ by about 3e-6 after nine guided steps. 1e-4 allows other summation orders
/// but no mistakes, on every CPU backend. On CUDA, matrix products run in TF32 (10 bits of mantissa), hence 1e-2.
pub(crate) fn tolerance() -> f64 {
    if std::env::var("FABRIC_DEVICE").is_ok_and(|name| name.starts_with("cuda")) { 1e-2 } else { 1e-4 }
}

/// One golden file, with a record of the tensors that were read and the errors that were measured.
pub(crate) struct Golden {
    name: String,
    bytes: Vec<u8>,
    read: RefCell<BTreeSet<String>>,
    errors: RefCell<BTreeMap<String, f64>>,
}

impl Golden {
    /// Reads `NAME.safetensors`.
    pub(crate) fn open(name: &str) -> Self {
        Self::open_in(&folder(), name)
    }

    /// Reads `NAME.safetensors` of `tests/fixtures`: diffusers' results for cases that the golden files lack.
    pub(crate) fn fixture(name: &str) -> Self {
        Self::open_in(&fixtures(), name)
    }

    fn open_in(folder: &std::path::Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { name: name.to_owned(), bytes, read: RefCell::default(), errors: RefCell::default() }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("a safetensors file")
    }

    /// Names of all tensors, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.file().names().into_iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    }

    /// The distinct first components (`case` of `case/...`) of all keys with at least one `/`.
    pub(crate) fn cases(&self) -> Vec<String> {
        let cases: BTreeSet<String> =
            self.keys().iter().filter_map(|key| key.split_once('/').map(|(case, _)| case.to_owned())).collect();
        cases.into_iter().collect()
    }

    /// The distinct components that follow `prefix/`, numbers in their order.
    pub(crate) fn cases_under(&self, prefix: &str) -> Vec<String> {
        let keys = self.keys();
        let rest = keys.iter().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix('/'));
        let cases: BTreeSet<&str> = rest.filter_map(|rest| rest.split('/').next()).collect();
        let mut cases: Vec<String> = cases.into_iter().map(ToString::to_string).collect();
        cases.sort_by_key(|case| case.parse::<usize>().unwrap_or(0));
        cases
    }

    /// Whether the file has this tensor.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.file().tensor(key).is_ok()
    }

    /// The tensor's shape.
    pub(crate) fn shape(&self, key: &str) -> Vec<usize> {
        self.file().tensor(key).unwrap_or_else(|e| panic!("{}/{key}: {e}", self.name)).shape().to_vec()
    }

    /// The tensor's values, whatever their type, as f64.
    pub(crate) fn values(&self, key: &str) -> Vec<f64> {
        let file = self.file();
        let view = file.tensor(key).unwrap_or_else(|e| panic!("{}/{key}: {e}", self.name));
        self.read.borrow_mut().insert(key.to_owned());
        let data = view.data();
        match view.dtype() {
            Dtype::F64 => data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F16 => data.as_chunks::<2>().0.iter().map(|b| f64::from(half::f16::from_le_bytes(*b))).collect(),
            Dtype::I64 => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            Dtype::I32 => data.as_chunks::<4>().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
            Dtype::U8 => data.iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{}/{key}: a golden of type {other:?}", self.name),
        }
    }

    /// The tensor as floats on the device.
    pub(crate) fn tensor<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D> {
        let values: Vec<f32> = self.values(key).into_iter().map(|x| x as f32).collect();
        Tensor::from_data(TensorData::new(values, self.shape(key)), device)
    }

    /// Compares with the golden tensor `key` and records the error; shapes must be equal.
    pub(crate) fn compare<const D: usize>(&self, key: &str, got: Tensor<D>) {
        assert_eq!(got.dims().to_vec(), self.shape(key), "{}/{key}: shape", self.name);
        let got: Vec<f32> = got.into_data().convert::<f32>().try_to_vec().expect("f32 data");
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        self.compare_values(key, &got);
    }

    /// Compares plain values with the golden tensor `key` and records the error.
    pub(crate) fn compare_values(&self, key: &str, got: &[f64]) {
        let expected = self.values(key);
        self.note(key, relative_error(got, &expected));
    }

    /// Records an error that was measured elsewhere.
    pub(crate) fn note(&self, key: &str, error: f64) {
        self.errors.borrow_mut().insert(key.to_owned(), error);
    }

    /// Returns the recorded error of this tensor.
    pub(crate) fn error(&self, key: &str) -> f64 {
        self.errors.borrow()[key]
    }

    /// Compares with a tensor that may have been compared before, and records the larger error.
    pub(crate) fn compare_also<const D: usize>(&self, key: &str, got: Tensor<D>) {
        let before = self.errors.borrow().get(key).copied().unwrap_or(0.0);
        self.compare(key, got);
        self.note(key, before.max(self.error(key)));
    }

    /// Prints the worst error, and fails if it is too large or if some of the file was never read.
    pub(crate) fn finish(&self) {
        let read = self.read.borrow();
        let unread: Vec<String> = self.keys().into_iter().filter(|key| !read.contains(key)).collect();
        assert!(unread.is_empty(), "{}: never read: {unread:?}", self.name);
        let errors = self.errors.borrow();
        let (key, worst) = errors.iter().max_by(|a, b| a.1.total_cmp(b.1)).expect("at least one comparison");
        // Writes to stderr directly: the test harness captures the output of passing tests.
        let line = format!("golden {:<10} {:>4} comparisons, worst {worst:.1e} ({key})\n", self.name, errors.len());
        let _ = std::io::stderr().write_all(line.as_bytes());
        let failed: Vec<String> = errors
            .iter()
            .filter(|(_, error)| **error > tolerance())
            .map(|(key, error)| format!("{key}: {error:.2e}"))
            .collect();
        assert!(failed.is_empty(), "{}: beyond {:.0e}: {failed:#?}", self.name, tolerance());
    }
}

/// Returns the description of a tensor in the golden folder's README, which contains the settings of some tensors.
/// `fallback` is the description in this repository, for folders without one.
pub(crate) fn meaning(file: &str, key: &str, fallback: &str) -> String {
    let Ok(readme) = std::fs::read_to_string(folder().join("README.md")) else { return fallback.to_owned() };
    let section = readme.split("\n## ").find(|section| section.lines().next() == Some(file)).unwrap_or_default();
    let row = section.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
    let said = row.and_then(|row| row.split('|').nth(4)).map(str::trim).filter(|said| !said.is_empty());
    said.unwrap_or(fallback).to_owned()
}

/// Returns all numbers in a text, in order.
pub(crate) fn numbers(text: &str) -> Vec<f64> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').filter_map(|word| word.parse().ok()).collect()
}

/// Largest difference divided by the largest expected value; NaN counts as infinitely wrong.
pub(crate) fn relative_error(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "number of values");
    let scale = expected.iter().fold(1e-12_f64, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0.0, |worst, (a, b)| {
        let error = (a - b).abs() / scale;
        if error.is_nan() { f64::INFINITY } else { worst.max(error) }
    })
}
