//! A small network with every kind of weight that a LoRA changes.

mod bad_input;
mod laws;
mod layouts;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use fabric_backends::{DeviceKind, device};
use safetensors::Dtype;

use super::*;
use crate::load::{
    HostTensor, LoadError, ParameterInfo, PublishedNames, TensorInfo, TensorSource, parameters, write_safetensors,
};
use crate::unet::{UNet, UNetConfig};

fn cpu() -> Device {
    device(DeviceKind::Flex).unwrap()
}

/// Two levels, attention in the outer one and in the middle.
fn tiny_unet() -> UNet {
    let config = r#"{"block_out_channels": [8, 16], "layers_per_block": 1, "cross_attention_dim": 6,
        "attention_head_dim": 2, "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}"#;
    UNetConfig::from_json(config).unwrap().init(&cpu()).unwrap()
}

/// The weights of a network that a LoRA can change: matrices and kernels.
fn adaptable<M: Module + PublishedNames>(module: &M) -> Vec<ParameterInfo> {
    parameters(module).into_iter().filter(|parameter| parameter.shape.len() > 1).collect()
}

/// Numbers between -0.5 and 0.5 that look random.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// A file that was never on disk.
#[derive(Debug, Clone, Default)]
struct Memory {
    tensors: BTreeMap<String, TensorInfo>,
    bytes: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    fn with(mut self, name: impl Into<String>, shape: &[usize], values: &[f32]) -> Self {
        let name = name.into();
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        self.tensors.insert(name.clone(), TensorInfo { dtype: Dtype::F32, shape: shape.to_vec() });
        self.bytes.insert(name, values.iter().flat_map(|x| x.to_le_bytes()).collect());
        self
    }

    /// A tensor that is one integer.
    fn with_integer(mut self, name: &str, dtype: Dtype, bytes: &[u8]) -> Self {
        self.tensors.insert(name.to_owned(), TensorInfo { dtype, shape: vec![] });
        self.bytes.insert(name.to_owned(), bytes.to_vec());
        self
    }

    /// Writes the file with this header.
    fn write(&self, path: &Path, metadata: &BTreeMap<String, String>) {
        let list: Vec<_> = self.tensors.clone().into_iter().collect();
        write_safetensors(path, metadata, &list, |name| self.read(name)).unwrap();
    }

    /// A pair of matrices for a weight of this shape.
    fn with_pair(self, keys: [String; 2], shape: &[usize], rank: usize, seed: u64) -> Self {
        let [down, up] = keys;
        let down_shape: Vec<usize> = std::iter::once(rank).chain(shape[1..].iter().copied()).collect();
        let up_shape: &[usize] = if shape.len() == 4 { &[shape[0], rank, 1, 1] } else { &[shape[0], rank] };
        let down_values = noise(down_shape.iter().product(), seed);
        self.with(down, &down_shape, &down_values).with(up, up_shape, &noise(shape[0] * rank, seed + 1))
    }

    fn read_lora(&self) -> Result<LoraFile, LoraError> {
        LoraFile::read(self, &BTreeMap::new())
    }
}

impl TensorSource for Memory {
    fn place(&self) -> String {
        "memory.safetensors".to_owned()
    }

    fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<HostTensor, LoadError> {
        Ok(HostTensor { info: self.tensors[name].clone(), bytes: self.bytes[name].clone() })
    }
}

fn peft_keys(module: &str) -> [String; 2] {
    ["A", "B"].map(|side| format!("unet.{module}.lora_{side}.weight"))
}

fn kohya_keys(module: &str) -> [String; 2] {
    let module = module.replace('.', "_");
    ["down", "up"].map(|side| format!("lora_unet_{module}.lora_{side}.weight"))
}

/// A LoRA for every weight of a U-Net for which `wanted` holds.
fn lora_for(unet: &UNet, seed: u64, keys: fn(&str) -> [String; 2], expected: fn(&str) -> bool) -> Memory {
    let weights = adaptable(unet).into_iter().enumerate().filter(|(_, weight)| expected(&weight.name));
    weights.fold(Memory::default(), |file, (index, weight)| {
        let module = weight.name.strip_suffix(".weight").unwrap();
        file.with_pair(keys(module), &weight.shape, 1 + index % 3, seed + 2 * index as u64)
    })
}

/// Every parameter as it is used, by its published name.
fn weights<M: Module + PublishedNames>(module: &M) -> BTreeMap<String, Vec<f32>> {
    struct Collector {
        names: std::vec::IntoIter<ParameterInfo>,
        got: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Collector {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.names.next().unwrap().name;
            self.got.insert(name, param.val().into_data().iter::<f32>().collect());
        }
    }
    let mut collector = Collector { names: parameters(module).into_iter(), got: BTreeMap::new() };
    module.visit(&mut collector);
    collector.got
}

/// The largest difference of two sets of weights.
fn distance(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f32 {
    assert!(a.keys().eq(b.keys()));
    a.iter().flat_map(|(name, x)| x.iter().zip(&b[name]).map(|(x, y)| (x - y).abs())).fold(0.0, f32::max)
}

/// Equal to the last bit, zeros' signs included.
fn same_bits(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> bool {
    let bits = |weights: &BTreeMap<String, Vec<f32>>| -> Vec<u32> {
        weights.values().flatten().map(|x| x.to_bits()).collect()
    };
    bits(a) == bits(b)
}
