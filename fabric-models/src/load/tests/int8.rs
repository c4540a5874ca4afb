//! 8-bit weights: their layout, their accuracy, and the files of optimum-quanto.

use std::fs;
use std::sync::Arc;

use half::f16;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::load::int8::{Int8Part, is_saved_as_int8};
use crate::load::int8_source::with_float_weights;
use crate::load::{
    ComponentFolder, LoadDtype, LoadOptions, SafetensorsFile, SaveDtype, SaveOptions, load_into, open_weights,
    save_component,
};

const INT8: SaveOptions = SaveOptions { dtype: SaveDtype::Int8, max_shard_bytes: None };

/// The weight of [`tensors`] that is saved with 8 bits, of shape [64, 80].
const WEIGHT: &str = "net.0.proj.weight";

/// Tensors of a network with a large weight, a small one, and a large one with a single output channel.
fn tensors() -> BTreeMap<String, HostTensor> {
    let shapes: [(&str, &[usize]); 6] = [
        (WEIGHT, &[64, 80]),
        ("net.0.proj.bias", &[64]),
        ("blocks.0.weight", &[2, 3]),
        ("blocks.0.bias", &[2]),
        ("blocks.1.weight", &[1, 8192]),
        ("blocks.1.bias", &[1]),
    ];
    let waves = |count: usize| -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.7).sin() * (1.0 + (i / 80) as f32 * 0.1)).collect()
    };
    let tensors = shapes.iter().map(|(name, shape)| {
        let values = waves(shape.iter().product());
        ((*name).to_owned(), floats(shape, &values))
    });
    tensors.collect()
}

/// Saves the network with these tensors.
fn save(tensors: BTreeMap<String, HostTensor>, options: &SaveOptions) -> Result<TempDir, LoadError> {
    let network = Tiny {
        entry: Matrix::untouchable(64, 80),
        blocks: vec![Matrix::untouchable(2, 3), Matrix::untouchable(1, 8192)],
    };
    let unchecked = LoadOptions { check_finite: false, ..LoadOptions::default() };
    let (network, _) = load_into(network, &InMemory::new(tensors), &unchecked).expect("loads");
    let folder = tempfile::tempdir().expect("a folder");
    save_component(&network, folder.path(), &json!({ "_class_name": "UNet2DConditionModel" }), options)?;
    Ok(folder)
}

fn weights(folder: &TempDir) -> Arc<dyn TensorSource> {
    ComponentFolder::open(folder.path(), None).expect("opens").weights().expect("weights")
}

fn json_in(folder: &TempDir, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.path().join(name)).expect("a file")).expect("JSON")
}

fn values(tensor: HostTensor) -> Vec<f32> {
    let data = tensor.into_data(LoadDtype::F32, true, "", "").expect("floats");
    data.try_to_vec::<f32>().expect("f32")
}

fn integers(shape: &[usize], values: &[i8]) -> HostTensor {
    let bytes = values.iter().map(|x| x.cast_unsigned()).collect();
    HostTensor { info: TensorInfo { dtype: Dtype::I8, shape: shape.to_vec() }, bytes }
}

fn halves(shape: &[usize], values: &[f32]) -> HostTensor {
    let bytes = values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
    HostTensor { info: TensorInfo { dtype: Dtype::F16, shape: shape.to_vec() }, bytes }
}

/// The network [`Tiny`] as optimum-quanto stores it, with a channel of zeros and a weight with one output channel.
fn quanto_tensors() -> BTreeMap<String, HostTensor> {
    let mut tensors = tiny_tensors();
    for layer in ["net.0.proj", "blocks.0", "blocks.1"] {
        tensors.remove(&format!("{layer}.weight"));
        for scale in ["input_scale", "output_scale"] {
            tensors.insert(format!("{layer}.{scale}"), halves(&[], &[1.0]));
        }
    }
    let pairs = [
        ("net.0.proj.weight._data", integers(&[3, 2], &[1, -2, 3, -128, 0, 0])),
        ("net.0.proj.weight._scale", halves(&[3, 1], &[0.5, 0.25, 0.0])),
        ("blocks.0.weight._data", integers(&[2, 3], &[1, 2, 3, -4, 5, -6])),
        ("blocks.0.weight._scale", floats(&[2, 1], &[0.1, 3.0])),
        ("blocks.1.weight._data", integers(&[1, 2], &[10, -20])),
        ("blocks.1.weight._scale", halves(&[], &[0.125])),
    ];
    tensors.extend(pairs.map(|(name, tensor)| (name.to_owned(), tensor)));
    tensors
}

#[test]
fn large_weights_have_8_bits_and_all_other_parameters_are_f16() {
    let folder = save(tensors(), &INT8).expect("saves");
    let file = SafetensorsFile::open(folder.path().join("diffusion_pytorch_model.safetensors")).expect("opens");
    let stored: Vec<(&str, Dtype, &[usize])> =
        file.tensors().iter().map(|(name, info)| (name.as_str(), info.dtype, info.shape.as_slice())).collect();
    let expected: [(&str, Dtype, &[usize]); 7] = [
        ("blocks.0.bias", Dtype::F16, &[2]),
        ("blocks.0.weight", Dtype::F16, &[2, 3]),
        ("blocks.1.bias", Dtype::F16, &[1]),
        ("blocks.1.weight", Dtype::F16, &[1, 8192]),
        ("net.0.proj.bias", Dtype::F16, &[64]),
        ("net.0.proj.weight._data", Dtype::I8, &[64, 80]),
        ("net.0.proj.weight._scale", Dtype::F32, &[64, 1]),
    ];
    assert_eq!(stored, expected);
    let map = json!({ "net.0.proj": { "weights": "qint8", "activations": "none" } });
    assert_eq!(json_in(&folder, "quanto_qmap.json"), map);
    assert_eq!(json_in(&folder, "config.json"), json!({ "_class_name": "UNet2DConditionModel" }));
    let half = save(tensors(), &SaveOptions { dtype: SaveDtype::F16, ..INT8 }).expect("saves");
    assert!(!half.path().join("quanto_qmap.json").exists(), "a map without 8-bit weights");
}

#[test]
fn linear_layers_and_convolutions_have_8_bits_and_tables_norms_and_biases_do_not() {
    let cases: [(&str, &[usize], bool); 9] = [
        ("mid_block.attentions.0.proj_in.weight", &[64, 64], true),
        ("conv_in.weight", &[128, 4, 3, 3], true),
        ("time_embedding.linear_1.weight", &[256, 64], true),
        ("vision_model.embeddings.patch_embedding.weight", &[192, 3, 8, 8], true),
        ("text_model.embeddings.position_embedding.weight", &[77, 128], false),
        ("mid_block.attentions.0.proj_in.weight", &[63, 65], false),
        ("norm.weight", &[8192], false),
        ("image_proj.latents", &[1, 16, 768], false),
        ("head.weight", &[1, 8192], false),
    ];
    for (name, shape, expected) in cases {
        assert_eq!(is_saved_as_int8(name, shape), expected, "{name} {shape:?}");
    }
}

#[test]
fn a_weight_with_8_bits_is_off_by_at_most_half_a_level() {
    let folder = save(tensors(), &INT8).expect("saves");
    let source = weights(&folder);
    assert!(source.tensors().keys().eq(tensors().keys()), "{:?}", source.tensors().keys());
    assert_eq!(source.tensors()[WEIGHT], TensorInfo { dtype: Dtype::F32, shape: vec![64, 80] });
    let [got, expected] = [source.read(WEIGHT).expect("a weight"), tensors()[WEIGHT].clone()].map(values);
    assert_ne!(got, expected);
    for (got, expected) in got.chunks(80).zip(expected.chunks(80)) {
        let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        // The product of integer and scale is rounded to f32.
        let most = largest / 254.0 * 1.00001;
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() <= most), "{got:?}");
    }
}

#[test]
fn integers_times_a_power_of_two_keep_their_values() {
    // Every channel has the largest integer, except for one of zeros.
    let integer = |channel: usize, at: usize| match (channel, at) {
        (7, _) => 0.0,
        (_, 0) => 127.0,
        _ => ((channel * 80 + at) * 31 % 255) as f32 - 127.0,
    };
    let weight: Vec<f32> = (0..64 * 80).map(|i| integer(i / 80, i % 80) / 64.0).collect();
    let mut tensors = tensors();
    tensors.insert(WEIGHT.to_owned(), floats(&[64, 80], &weight));
    let folder = save(tensors, &INT8).expect("saves");
    assert_eq!(values(weights(&folder).read(WEIGHT).expect("a weight")), weight);
}

#[test]
fn halves_round_to_the_even_integer_and_channels_of_zeros_have_a_scale() {
    let weight = [127.0, 0.5, 1.5, -2.5, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(Int8Part::Data.quantise(&weight, &[2, 4]), integers(&[2, 4], &[127, 0, 2, -2, 0, 0, 0, 0]));
    assert_eq!(Int8Part::Scale.quantise(&weight, &[2, 4]), floats(&[2, 1], &[1.0, f32::MIN_POSITIVE]));
    assert_eq!(Int8Part::Scale.info(&[8, 4, 3, 3]).shape, [8, 1, 1, 1]);
}

#[test]
fn both_tensors_of_a_weight_may_be_in_different_shards() {
    let one = save(tensors(), &INT8).expect("saves");
    let several = save(tensors(), &SaveOptions { max_shard_bytes: Some(5200), ..INT8 }).expect("saves");
    let index = json_in(&several, "diffusion_pytorch_model.safetensors.index.json");
    let [data, scale] = Int8Part::BOTH.map(|part| index["weight_map"][part.name_of(WEIGHT)].clone());
    assert!(data.is_string() && scale.is_string() && data != scale, "{index}");
    assert_eq!(read_all(&weights(&several)), read_all(&weights(&one)));
}

#[test]
fn a_weight_that_is_not_finite_is_not_saved() {
    let mut tensors = tensors();
    let weight = tensors.get_mut(WEIGHT).expect("a weight");
    weight.bytes[40..44].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = assert_says(save(tensors, &INT8), &["`net.0.proj.weight`", "NaN at index 10"]);
    assert!(matches!(error, LoadError::NotFinite { .. }), "{error:?}");
}

#[test]
fn files_of_optimum_quanto_load_under_the_names_of_their_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = open_weights(write(&folder.path().join("a.safetensors"), &quanto_tensors())).expect("opens");
    assert!(source.tensors().keys().eq(tiny_tensors().keys()), "{:?}", source.tensors().keys());
    let error = source.read("blocks.0.weight._data").expect_err("a part of a weight");
    assert!(matches!(error, LoadError::NoSuchTensor { .. }), "{error:?}");
    for dtype in [LoadDtype::F32, LoadDtype::F16] {
        let options = LoadOptions::default().with_dtype(dtype);
        let (tiny, report) = load_into(Tiny::untouchable(), &source, &options).expect("loads");
        assert!(report.is_complete() && report.ignored.is_empty(), "{report}");
        assert!(report.applied.iter().all(|name| tiny_tensors().contains_key(name)), "{:?}", report.applied);
        let weights = [&tiny.entry, &tiny.blocks[0], &tiny.blocks[1]]
            .map(|layer| values(HostTensor::from_data(&layer.weight.val().into_data())));
        let expected = [
            vec![0.5, -1.0, 0.75, -32.0, 0.0, 0.0],
            vec![0.1, 2.0 * 0.1, 3.0 * 0.1, -12.0, 15.0, -18.0],
            vec![1.25, -2.5],
        ];
        let rounded = |x: f32| if dtype == LoadDtype::F16 { f16::from_f32(x).to_f32() } else { x };
        assert_eq!(weights, expected.map(|values| values.into_iter().map(rounded).collect::<Vec<f32>>()));
    }
}

#[test]
fn opening_reads_no_weights_and_leaves_sources_of_floats_as_they_are() {
    // Reading a tensor would fail the test: there are names and shapes only.
    let without_values = |tensors| -> Arc<dyn TensorSource> {
        Arc::new(InMemory { tensors: BTreeMap::new(), ..InMemory::new(tensors) })
    };
    let floats = without_values(tiny_tensors());
    let opened = with_float_weights(Arc::clone(&floats)).expect("floats");
    assert!(std::ptr::addr_eq(Arc::as_ptr(&floats), Arc::as_ptr(&opened)), "another source: {opened:?}");
    let mut int8 = quanto_tensors();
    int8.retain(|name, _| !name.ends_with("put_scale"));
    let opened = with_float_weights(without_values(int8)).expect("8-bit weights");
    assert!(opened.tensors().keys().eq(tiny_tensors().keys()), "{:?}", opened.tensors().keys());
}

#[test]
fn weights_without_values_or_without_axes_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = [
        ("none.weight._data", integers(&[0, 3], &[])),
        ("none.weight._scale", floats(&[0, 1], &[])),
        ("narrow.weight._data", integers(&[2, 0], &[])),
        ("narrow.weight._scale", floats(&[2, 1], &[1.0, 1.0])),
        ("number.weight._data", integers(&[], &[3])),
        ("number.weight._scale", floats(&[], &[0.5])),
    ];
    let tensors = BTreeMap::from(tensors.map(|(name, tensor)| (name.to_owned(), tensor)));
    let source = open_weights(write(&folder.path().join("a.safetensors"), &tensors)).expect("opens");
    let expected = [
        ("none.weight", floats(&[0, 3], &[])),
        ("narrow.weight", floats(&[2, 0], &[])),
        ("number.weight", floats(&[], &[1.5])),
    ];
    assert_eq!(read_all(&source), BTreeMap::from(expected.map(|(name, tensor)| (name.to_owned(), tensor))));
}

#[test]
fn weights_with_8_bits_are_renamed_and_reshaped_like_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = BTreeMap::from([
        ("encoder.mid_block.attentions.0.query.weight._data".to_owned(), integers(&[2, 1, 1, 1], &[3, 4])),
        ("encoder.mid_block.attentions.0.query.weight._scale".to_owned(), floats(&[2, 1, 1, 1], &[1.0, 0.5])),
    ]);
    let source = open_weights(write(&folder.path().join("a.safetensors"), &tensors)).expect("opens");
    let query = "encoder.mid_block.attentions.0.to_q.weight".to_owned();
    assert_eq!(read_all(&source), BTreeMap::from([(query, floats(&[2, 1], &[3.0, 2.0]))]));
}

#[test]
fn quantised_files_that_break_the_layout_are_refused_by_name() {
    type Damage = fn(&mut BTreeMap<String, HostTensor>);
    fn put(tensors: &mut BTreeMap<String, HostTensor>, name: &str, tensor: HostTensor) {
        tensors.insert(name.to_owned(), tensor);
    }
    let damages: [(&[&str], Damage); 12] = [
        (&["tensor `blocks.0.weight._scale`: expected the scale of each output channel, got none"], |tensors| {
            tensors.remove("blocks.0.weight._scale");
        }),
        (&["shape of tensor `blocks.0.weight._scale`: expected [2, 1]", "got [2];"], |tensors| {
            put(tensors, "blocks.0.weight._scale", floats(&[2], &[1.0, 1.0]));
        }),
        (&["shape of tensor `blocks.0.weight._scale`: expected [2, 1]", "got [];"], |tensors| {
            put(tensors, "blocks.0.weight._scale", floats(&[], &[1.0]));
        }),
        (&["type of tensor `blocks.0.weight._scale`", "got I8;"], |tensors| {
            put(tensors, "blocks.0.weight._scale", integers(&[2, 1], &[1, 1]));
        }),
        (&["type of tensor `blocks.0.weight._data`: expected I8, got U8;"], |tensors| {
            tensors.get_mut("blocks.0.weight._data").expect("integers").info.dtype = Dtype::U8;
        }),
        (&["type of tensor `blocks.0.weight._data`: expected I8, got F8_E4M3;"], |tensors| {
            tensors.get_mut("blocks.0.weight._data").expect("integers").info.dtype = Dtype::F8_E4M3;
        }),
        (&["type of tensor `blocks.0.weight._data`: expected I8, got I16;"], |tensors| {
            let info = TensorInfo { dtype: Dtype::I16, shape: vec![2, 3] };
            put(tensors, "blocks.0.weight._data", HostTensor { info, bytes: vec![0; 12] });
        }),
        (&["tensor `blocks.0.weight._data`", "because the file has their scale, got none"], |tensors| {
            tensors.remove("blocks.0.weight._data");
        }),
        (&["tensor `blocks.0.weight`: expected one of them, got floats and 8-bit integers"], |tensors| {
            put(tensors, "blocks.0.weight", floats(&[2, 3], &[0.0; 6]));
        }),
        (&["tensor `blocks.0.input_scale`", "quantised activations are not supported", "got [0.5];"], |tensors| {
            put(tensors, "blocks.0.input_scale", floats(&[], &[0.5]));
        }),
        (&["tensor `blocks.0.output_scale`", "got F32 values of shape [2];"], |tensors| {
            put(tensors, "blocks.0.output_scale", floats(&[2], &[1.0, 1.0]));
        }),
        (&["expected weights of 8 bits", "2 or 4 bits (tensor `blocks.0.weight._shift`)"], |tensors| {
            put(tensors, "blocks.0.weight._shift", floats(&[2, 1], &[1.0, 1.0]));
        }),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (parts, damage) in damages {
        let mut tensors = quanto_tensors();
        damage(&mut tensors);
        let error = assert_says(open_weights(write(&folder.path().join("a.safetensors"), &tensors)), parts);
        assert!(matches!(error, LoadError::Quantised { .. }), "{error:?}");
        assert_says::<()>(Err(error), &["a.safetensors: ", "get the file again, or its f16 or f32 version"]);
    }
}

#[test]
fn a_scale_that_is_negative_or_not_finite_is_refused_when_its_weight_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    for (scale, said) in [(f32::NAN, "got NaN at"), (f32::INFINITY, "got inf at"), (-0.5, "got -0.5 at")] {
        let mut tensors = quanto_tensors();
        tensors.insert("blocks.0.weight._scale".to_owned(), floats(&[2, 1], &[1.0, scale]));
        let source = open_weights(write(&folder.path().join("a.safetensors"), &tensors)).expect("opens");
        let parts = ["tensor `blocks.0.weight._scale`: expected finite numbers", said, "index 1"];
        let error = assert_says(source.read("blocks.0.weight"), &parts);
        assert!(matches!(error, LoadError::Quantised { .. }), "{error:?}");
    }
}
