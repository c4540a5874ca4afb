//! What the tests of this folder share: a small module, and files written by hand.

mod applying;
mod broken_files;
mod clip_layouts;
mod control_files;
mod conversion;
mod converted;
mod folders;
mod int8;
mod matching;
mod pickles;
mod saving;
mod shards;
mod single_files;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use fabric_backends::{DeviceKind, device};
use safetensors::Dtype;

use super::{HostTensor, LoadError, PublishedNames, TensorInfo, TensorSource, write_safetensors};

/// The device of these tests: features may bring others, which `Device::default()` would prefer.
pub(super) fn cpu() -> Device {
    device(DeviceKind::Flex).expect("the CPU")
}

/// Two layers, one of which is called otherwise on disk.
#[derive(Module, Debug)]
pub(super) struct Tiny {
    entry: Matrix,
    blocks: Vec<Matrix>,
}

#[derive(Module, Debug)]
pub(super) struct Matrix {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Tiny {
    /// Parameters that fail the test when they are initialised.
    pub(super) fn untouchable() -> Self {
        Self { entry: Matrix::untouchable(3, 2), blocks: vec![Matrix::untouchable(2, 3), Matrix::untouchable(1, 2)] }
    }
}

impl Matrix {
    fn untouchable(rows: usize, columns: usize) -> Self {
        let weight = move |_: &Device, _| -> Tensor<2> { panic!("a weight of {rows}x{columns} was initialised") };
        let bias = move |_: &Device, _| -> Tensor<1> { panic!("a bias of {rows} was initialised") };
        Self {
            weight: Param::uninitialized(ParamId::new(), weight, cpu(), true, [rows, columns].into()),
            bias: Param::uninitialized(ParamId::new(), bias, cpu(), true, [rows].into()),
        }
    }
}

impl PublishedNames for Tiny {
    fn published_name(path: &str) -> String {
        path.replace("entry.", "net.0.proj.")
    }
}

/// The tensors of [`Tiny`], in f32, each filled with its own numbers.
pub(super) fn tiny_tensors() -> BTreeMap<String, HostTensor> {
    let shapes: [(&str, &[usize]); 6] = [
        ("net.0.proj.weight", &[3, 2]),
        ("net.0.proj.bias", &[3]),
        ("blocks.0.weight", &[2, 3]),
        ("blocks.0.bias", &[2]),
        ("blocks.1.weight", &[1, 2]),
        ("blocks.1.bias", &[1]),
    ];
    let tensors = shapes.iter().enumerate().map(|(i, (name, shape))| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|j| i as f32 - 0.25 * j as f32).collect();
        ((*name).to_owned(), floats(shape, &values))
    });
    tensors.collect()
}

pub(super) fn floats(shape: &[usize], values: &[f32]) -> HostTensor {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    HostTensor { info: TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() }, bytes }
}

/// Tensors that were never in a file.
#[derive(Debug)]
pub(super) struct InMemory {
    infos: BTreeMap<String, TensorInfo>,
    tensors: BTreeMap<String, HostTensor>,
    notes: BTreeMap<String, String>,
}

impl InMemory {
    pub(super) fn new(tensors: BTreeMap<String, HostTensor>) -> Self {
        let infos = tensors.iter().map(|(name, t)| (name.clone(), t.info.clone())).collect();
        Self { infos, tensors, notes: BTreeMap::new() }
    }

    /// The same with something said beside the tensors.
    pub(super) fn with_note(mut self, name: &str, text: &str) -> Self {
        self.notes.insert(name.to_owned(), text.to_owned());
        self
    }
}

impl TensorSource for InMemory {
    fn place(&self) -> String {
        "memory".into()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.infos
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        Ok(self.tensors[name].clone())
    }

    fn notes(&self) -> BTreeMap<String, String> {
        self.notes.clone()
    }
}

/// A file that is kept with the tests.
pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// Writes tensors as a safetensors file.
pub(super) fn write(path: &Path, tensors: &BTreeMap<String, HostTensor>) -> PathBuf {
    let infos: Vec<(String, TensorInfo)> = tensors.iter().map(|(name, t)| (name.clone(), t.info.clone())).collect();
    write_safetensors(path, &BTreeMap::new(), &infos, |name| Ok(tensors[name].clone())).expect("a written file");
    path.to_owned()
}

/// Every tensor of a source.
pub(super) fn read_all(source: &dyn TensorSource) -> BTreeMap<String, HostTensor> {
    source.tensors().keys().map(|name| (name.clone(), source.read(name).expect("a tensor"))).collect()
}

/// The message of an error, which must contain all of these.
#[track_caller]
pub(super) fn assert_says<T: std::fmt::Debug>(result: Result<T, LoadError>, parts: &[&str]) -> LoadError {
    let error = result.expect_err("an error");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    error
}
