//! Tensors of any source, saved in another type.

use std::fs;

use half::f16;

use super::*;
use crate::load::{
    ConvertedSource, LoadDtype, LoadOptions, SafetensorsFile, SaveDtype, SaveOptions, load_into, open_weights,
    save_component, weights_bytes,
};

/// Tensors of several types.
fn mixed() -> BTreeMap<String, HostTensor> {
    let mut tensors = tiny_tensors();
    let ids = TensorInfo { dtype: Dtype::I64, shape: vec![2] };
    let bytes = [0_i64, 1].iter().flat_map(|x| x.to_le_bytes()).collect();
    tensors.insert("position_ids".to_owned(), HostTensor { info: ids, bytes });
    let wide = TensorInfo { dtype: Dtype::F64, shape: vec![] };
    tensors.insert("scale".to_owned(), HostTensor { info: wide, bytes: 0.1_f64.to_le_bytes().to_vec() });
    tensors
}

fn saved(source: &InMemory, dtype: SaveDtype) -> (SafetensorsFile, BTreeMap<String, HostTensor>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let converted = ConvertedSource::new(source, dtype);
    converted.save(&path).expect("a written file");
    let file = SafetensorsFile::open(&path).expect("opens");
    assert_eq!(file.tensors(), converted.tensors(), "{dtype:?}: what was announced");
    let tensors = read_all(&file);
    assert_eq!(read_all(&converted), tensors, "{dtype:?}");
    (file, tensors)
}

#[test]
fn floats_are_converted_and_other_tensors_and_metadata_stay() {
    let source = InMemory::new(mixed()).with_note("global_step", "5");
    for (dtype, stored) in [(SaveDtype::F32, Dtype::F32), (SaveDtype::F16, Dtype::F16), (SaveDtype::BF16, Dtype::BF16)]
    {
        let (file, tensors) = saved(&source, dtype);
        assert_eq!(tensors["position_ids"], source.tensors["position_ids"]);
        assert!(tensors.iter().all(|(name, tensor)| name == "position_ids" || tensor.info.dtype == stored));
        let expected = [("format", "pt"), ("global_step", "5")].map(|(name, note)| (name.to_owned(), note.to_owned()));
        assert_eq!(file.notes(), BTreeMap::from(expected));
    }
    let (_, halves) = saved(&source, SaveDtype::F16);
    let expected: Vec<u8> = [3.0_f32, 2.75].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
    assert_eq!(halves["blocks.0.bias"].bytes, expected);
    let (_, kept) = saved(&source, SaveDtype::Keep);
    assert_eq!(kept, source.tensors);
}

#[test]
fn large_weights_have_8_bits_and_the_matrices_of_loras_do_not() {
    let values: Vec<f32> = (0..64 * 80).map(|i| (i as f32 * 0.7).sin()).collect();
    let names = ["a.weight", "lora_unet_a.lora_down.weight", "a.processor.to_q_lora.up.weight"];
    let mut tensors: BTreeMap<String, HostTensor> =
        names.iter().map(|name| ((*name).to_owned(), floats(&[64, 80], &values))).collect();
    tensors.insert("a.bias".to_owned(), floats(&[2], &[1.0, 2.0]));
    let (_, stored) = saved(&InMemory::new(tensors), SaveDtype::Int8);
    let types: Vec<(&str, Dtype)> = stored.iter().map(|(name, tensor)| (name.as_str(), tensor.info.dtype)).collect();
    let expected = [
        ("a.bias", Dtype::F16),
        ("a.processor.to_q_lora.up.weight", Dtype::F16),
        ("a.weight._data", Dtype::I8),
        ("a.weight._scale", Dtype::F32),
        ("lora_unet_a.lora_down.weight", Dtype::F16),
    ];
    assert_eq!(types, expected);
    let folder = tempfile::tempdir().expect("a folder");
    let read = open_weights(write(&folder.path().join("a.safetensors"), &stored)).expect("opens");
    let read = read.read("a.weight").expect("a tensor").into_data(LoadDtype::F32, true, "", "").expect("floats");
    let apart = read.iter::<f32>().zip(&values).map(|(got, value)| (got - value).abs()).fold(0.0, f32::max);
    assert!(apart > 0.0 && apart < 1.001 / 254.0, "{apart}");
}

#[test]
fn values_that_cannot_be_converted_are_errors_that_leave_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let with = |value: f32| InMemory::new(BTreeMap::from([("x".to_owned(), floats(&[2], &[1.0, value]))]));
    for (value, said) in [(f32::NAN, "NaN"), (1e6, "too large for f16")] {
        let source = with(value);
        assert_says(ConvertedSource::new(&source, SaveDtype::F16).save(&path), &["memory", "`x`", said]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "{value}");
        let (_, kept) = saved(&source, SaveDtype::Keep);
        assert_eq!(kept["x"].bytes, source.tensors["x"].bytes, "{value}");
    }
    let unknown = ConvertedSource::new(with(1.0), SaveDtype::F32).read("y");
    assert_says(unknown, &["there is no tensor `y`"]);
}

#[test]
fn the_size_of_sharded_weights_is_that_of_all_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    let (tiny, _) =
        load_into(Tiny::untouchable(), &InMemory::new(tiny_tensors()), &LoadOptions::default()).expect("loads");
    let options = SaveOptions { dtype: SaveDtype::F32, max_shard_bytes: Some(40) };
    save_component(&tiny, folder.path(), &serde_json::json!({}), &options).expect("saves");
    let (mut shards, mut sum) = (0, 0);
    for entry in fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let size = fs::metadata(&path).expect("a file").len();
            assert_eq!(weights_bytes(&path).expect("a size"), size);
            (shards, sum) = (shards + 1, sum + size);
        }
    }
    assert_eq!(shards, 3);
    assert_eq!(weights_bytes(folder.path().join("model.safetensors.index.json")).expect("a size"), sum);
    assert_says(weights_bytes(folder.path().join("none.safetensors")), &["none.safetensors", "there is no such file"]);
}
