//! Weights that are not finite, of another type or shape, missing, or more than a network has.

use std::fs;
use std::path::Path;

use fabric::core::models::ImageEncoder;
use fabric::ipadapter::IpAdapter;
use fabric::models::clip::{ClipVision, ClipVisionConfig};
use fabric::models::load::{LoadDtype, LoadOptions, LoadReport, load_into, open_weights};
use half::{bf16, f16};

use crate::case::{Case, Outcome, check, file, said};
use crate::models::{config_text, device, golden, image, pipeline, request};
use crate::tensor_file::{Stored, TensorFile};

pub(crate) const COUNT: usize = 65;

const NAME: &str = "model.safetensors";
const CLASS: &str = "vision_model.embeddings.class_embedding";
const PATCHES: &str = "vision_model.embeddings.patch_embedding.weight";
const NORM: &str = "vision_model.pre_layrnorm.weight";
const PROJECTION: &str = "visual_projection.weight";
const MLP: &str = "vision_model.encoder.layers.2.mlp.fc1.weight";

/// The image encoder's own weights.
fn good() -> TensorFile {
    TensorFile::read(&golden("image_encoder/model.safetensors"))
}

fn load(place: &Path, options: &LoadOptions) -> Result<(ClipVision, LoadReport), String> {
    let config = ClipVisionConfig::from_json(&config_text("image_encoder")).expect("a configuration");
    let source = open_weights(place.join(NAME)).map_err(|error| error.to_string())?;
    let network = config.init(&device()).expect("a network");
    load_into(network, &source, options).map_err(|error| error.to_string())
}

fn open(place: &Path) -> Outcome {
    load(place, &LoadOptions::default()).map(drop)
}

pub(crate) fn check_base() {
    let place = tempfile::tempdir().expect("a folder");
    fs::write(place.path().join(NAME), good().to_bytes()).expect("a written file");
    let (encoder, report) = load(place.path(), &LoadOptions::default()).expect("an encoder");
    assert!(report.is_complete() && finite_features(&encoder).is_ok());
    pipeline().generate(&request()).expect("an image");
}

/// A file that is refused.
fn refused(name: &str, tensors: TensorFile, words: &[&str]) -> Case {
    Case::refused(name, &[words, &[NAME]].concat(), file(NAME, tensors.to_bytes()), open)
}

/// A file that is loaded without `strict`.
fn lenient(name: &str, tensors: TensorFile, to: &str, holds: fn(&LoadReport) -> bool) -> Case {
    Case::falls_back(name, to, file(NAME, tensors.to_bytes()), move |place| {
        let (_, report) = load(place, &LoadOptions::default().with_strict(false))?;
        check(holds(&report), &report)
    })
}

/// Returns an error if the features of an image are not finite.
fn finite_features(encoder: &ClipVision) -> Outcome {
    let pixels = fabric::core::image::clip_batch(&[image()], encoder.image_size(), Default::default(), &device());
    let features: Vec<f32> =
        encoder.embed(pixels.expect("pixels")).into_data().convert::<f32>().iter::<f32>().collect();
    check(!features.is_empty() && features.iter().all(|value| value.is_finite()), format!("{features:?}"))
}

/// Replaces one value of a tensor of f32.
fn with_value(name: &str, index: usize, value: f32) -> TensorFile {
    good().changed(name, |stored| stored.bytes[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes()))
}

/// Replaces all values of a tensor.
fn with_values(name: &str, value: f32) -> TensorFile {
    good().changed(name, |stored| {
        stored.bytes.chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&value.to_le_bytes()));
    })
}

/// Converts a tensor to another type with a function from f32.
fn converted(name: &str, dtype: &str, convert: impl Fn(f32) -> Vec<u8>) -> TensorFile {
    good().changed(name, |stored| {
        let values = stored.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes")));
        *stored =
            Stored { dtype: dtype.to_owned(), shape: stored.shape.clone(), bytes: values.flat_map(&convert).collect() };
    })
}

fn length(name: &str) -> usize {
    good().tensors[name].shape.iter().product()
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = values();
    cases.extend(types());
    cases.extend(names());
    cases.extend(shapes());
    cases.extend(eight_bits());
    cases.extend(unusual());
    cases
}

/// Values that are not finite, at each place of a tensor.
fn values() -> Vec<Case> {
    let mut cases = Vec::new();
    let signalling = f32::from_bits(0x7f80_0001);
    let kinds = [
        ("NaN", f32::NAN),
        ("a signalling NaN", signalling),
        ("infinity", f32::INFINITY),
        ("-infinity", f32::NEG_INFINITY),
    ];
    for (kind, value) in kinds {
        let word = if value.is_nan() { "the value NaN" } else { "inf at index" };
        for (place, name, index) in [
            ("the first weight", PATCHES, 0),
            ("a weight in the middle", MLP, length(MLP) / 2),
            ("the last weight", PROJECTION, length(PROJECTION) - 1),
        ] {
            let at = format!("at index {index}");
            let words = [name, word, &at, "get it again"];
            cases.push(refused(&format!("{kind} as {place}"), with_value(name, index, value), &words));
        }
    }
    cases
}

/// Types that weights do not have, and values beyond a type.
fn types() -> Vec<Case> {
    let wrong = "expected F32, F16, BF16 or F64";
    let mut cases: Vec<Case> =
        [("I64", 8), ("I32", 4), ("I16", 2), ("I8", 1), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1), ("C64", 8)]
            .into_iter()
            .map(|(dtype, size)| {
                let tensors = converted(NORM, dtype, move |_| vec![0; size]);
                refused(&format!("a weight of type {dtype}"), tensors, &[NORM, &format!("has type {dtype}"), wrong])
            })
            .collect();
    let half = converted(NORM, "F16", |value| f16::from_f32(value).to_le_bytes().to_vec());
    let infinite = converted(NORM, "F16", |_| f16::INFINITY.to_le_bytes().to_vec());
    let nan = converted(NORM, "BF16", |_| bf16::NAN.to_le_bytes().to_vec());
    let large = converted(NORM, "F64", |_| 1e300_f64.to_le_bytes().to_vec());
    cases.extend([
        refused("an infinite weight in f16", infinite, &[NORM, "the value inf", "get it again"]),
        refused("a NaN in bf16", nan, &[NORM, "the value NaN", "get it again"]),
        refused("a weight beyond f32 in f64", large, &[NORM, "the value inf", "get it again"]),
        Case::refused(
            "a weight beyond f16 that is loaded as f16",
            // The first tensor that is loaded, so that a device without f16 is not asked.
            &[CLASS, "the value 1000000", "too large for f16", "load as bf16 or f32", NAME],
            file(NAME, with_value(CLASS, 3, 1e6).to_bytes()),
            |place| load(place, &LoadOptions::default().with_dtype(LoadDtype::F16)).map(drop),
        ),
        Case::falls_back(
            "one weight in f16 among f32",
            "weights of several types are converted to one",
            file(NAME, half.to_bytes()),
            |place| finite_features(&load(place, &LoadOptions::default())?.0),
        ),
    ]);
    cases
}

/// Tensors that are missing, that no network has, or that have other names.
fn names() -> Vec<Case> {
    let counts = |missing: usize, unexpected: usize| format!("{missing} missing, {unexpected} unexpected");
    let (one_missing, one_more, both) = (counts(1, 0), counts(0, 1), counts(1, 1));
    let typo = "visual_projectoin.weight";
    let layer = "vision_model.encoder.layers.3.";
    let mut without_layer = good();
    without_layer.tensors.retain(|name, _| !name.starts_with(layer));
    let mut one_only = good();
    one_only.tensors.retain(|name, _| name == PATCHES);
    let prefixed = good().tensors.into_iter().map(|(name, stored)| (format!("module.{name}"), stored)).collect();
    let prefixed = TensorFile { tensors: prefixed, ..TensorFile::default() };
    let many = (0..1000).fold(good(), |tensors, at| tensors.with_zeros(&format!("extra.{at}"), &[1]));
    let long = good().with_zeros(&"x".repeat(1000), &[1]);
    vec![
        refused("a tensor that is missing", good().without(PATCHES), &[&one_missing, &format!("missing `{PATCHES}`")]),
        refused("a layer that is missing", without_layer, &["16 missing, 0 unexpected", layer]),
        refused("one tensor alone", one_only, &["missing, 0 unexpected", "check that the file and its config.json"]),
        refused(
            "a tensor too many",
            good().with_zeros("vision_model.extra", &[1]),
            &[&one_more, "`vision_model.extra`"],
        ),
        refused("a thousand tensors too many", many, &["1000 unexpected", "unexpected `extra.0`", "and 992 more"]),
        refused("a tensor too many with a long name", long, &[&one_more, "unexpected `xxx"]),
        refused(
            "a tensor with a typing error in its name",
            good().renamed(MLP, &format!("{MLP}s")),
            &[&both, "the file has"],
        ),
        refused("a tensor in capitals", good().renamed(MLP, &MLP.to_uppercase()), &[&both]),
        refused("all names behind a prefix", prefixed, &["missing, 72 unexpected"]),
        // Without its projection, an encoder is one of another published class.
        refused("a projection with a typing error", good().renamed(PROJECTION, typo), &["1 unexpected", typo]),
        lenient(
            "a tensor that is missing, not strict",
            good().without(PATCHES),
            "the parameter keeps its initial values and is reported",
            |report| report.missing.len() == 1 && report.missing[0].name == PATCHES,
        ),
        lenient(
            "a tensor too many, not strict",
            good().with_zeros("extra", &[1]),
            "the tensor is left out and is reported",
            |report| report.unexpected == ["extra"],
        ),
        lenient(
            "position ids as older files have them",
            good().with_bytes("vision_model.embeddings.position_ids", "I64", &[1, 17], vec![0; 8 * 17]),
            "tensors without information are ignored",
            |report| report.is_complete() && report.ignored.len() == 1,
        ),
    ]
}

/// Shapes that differ from those of the network.
fn shapes() -> Vec<Case> {
    let of = |name: &str, shape: &[usize]| {
        let shape = shape.to_vec();
        good().changed(name, |stored| {
            stored.bytes.resize(4 * shape.iter().product::<usize>(), 0);
            stored.shape = shape;
        })
    };
    let got = |shape: &str| format!("`{MLP}`: expected [80, 40], got {shape}");
    let one = "1 of another shape";
    let pooled = of(PATCHES, &[40, 3, 7, 7]);
    vec![
        refused("a matrix transposed", of(MLP, &[40, 80]), &[one, &got("[40, 80]")]),
        refused("a matrix flattened", of(MLP, &[3200]), &[one, &got("[3200]")]),
        refused("a matrix with another axis", of(MLP, &[80, 40, 1]), &[one, &got("[80, 40, 1]")]),
        refused("a matrix of another width", of(MLP, &[81, 40]), &[one, &got("[81, 40]")]),
        refused("a matrix without values", of(MLP, &[0, 40]), &[one, &got("[0, 40]")]),
        refused("a matrix that is a number", of(MLP, &[]), &[one, &got("[]")]),
        refused("a kernel of another size", pooled, &[one, "expected [40, 3, 14, 14], got [40, 3, 7, 7]"]),
        refused(
            "positions of another image size",
            of("vision_model.embeddings.position_embedding.weight", &[50, 40]),
            &[one, "got [50, 40]"],
        ),
        lenient(
            "a matrix transposed, not strict",
            of(MLP, &[40, 80]),
            "the parameter keeps its initial values and is reported",
            |report| report.mismatched.len() == 1 && report.mismatched[0].got == [40, 80],
        ),
    ]
}

/// Weights of 8 bits that lack a part, or have a wrong one.
fn eight_bits() -> Vec<Case> {
    let (data, scale) = (format!("{MLP}._data"), format!("{MLP}._scale"));
    let levels = || good().without(MLP).with_bytes(&data, "I8", &[80, 40], vec![1; 80 * 40]);
    let whole = |scales: &[f32]| levels().with(&scale, &[80, 1], scales);
    let with = |index: usize, value: f32| {
        let mut scales = [0.01; 80];
        scales[index] = value;
        whole(&scales)
    };
    let tensor_scale = format!("tensor `{scale}`");
    let both = whole(&[0.01; 80]).with_zeros(MLP, &[80, 40]);
    let input = "vision_model.encoder.layers.2.mlp.fc1.input_scale";
    vec![
        refused("integers without a scale", levels(), &[&tensor_scale, "the scale of each output channel, got none"]),
        refused(
            "a scale without integers",
            good().without(MLP).with(&scale, &[80, 1], &[0.01; 80]),
            &[&format!("tensor `{data}`"), "8-bit integers, because the file has their scale"],
        ),
        refused(
            "integers of 16 bits",
            whole(&[0.01; 80]).with_bytes(&data, "I16", &[80, 40], vec![0; 6400]),
            &["type of tensor", "expected I8, got I16"],
        ),
        refused("integers and floats of one weight", both, &[&format!("tensor `{MLP}`"), "expected one of them"]),
        refused(
            "a scale that is no float",
            levels().with_bytes(&scale, "I32", &[80, 1], vec![0; 320]),
            &["type of", &tensor_scale, "got I32"],
        ),
        refused(
            "one scale for all channels",
            levels().with(&scale, &[1], &[0.01]),
            &["shape of", &tensor_scale, "[80, 1], one for each"],
        ),
        refused("a scale that is NaN", with(7, f32::NAN), &[&tensor_scale, "NaN at index 7"]),
        refused("a scale that is infinite", with(0, f32::INFINITY), &[&tensor_scale, "inf at index 0"]),
        refused("a scale below zero", with(79, -0.01), &[&tensor_scale, "-0.01 at index 79"]),
        refused(
            "quantised activations",
            whole(&[0.01; 80]).with(input, &[], &[0.5]),
            &[input, "expected 1", "got [0.5]"],
        ),
    ]
}

/// Finite weights that no training gives.
fn unusual() -> Vec<Case> {
    let finite = |name: &str, tensors: TensorFile, to: &str| {
        Case::falls_back(name, to, file(NAME, tensors.to_bytes()), |place| {
            finite_features(&load(place, &LoadOptions::default())?.0)
        })
    };
    let adapter = |value: f32| {
        let weights = TensorFile::read(&golden("ip_adapter/base.safetensors"));
        weights.changed("image_proj.proj.weight", |stored| {
            stored.bytes.chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&value.to_le_bytes()));
        })
    };
    let generate = |place: &Path| {
        let encoder = ClipVision::open(golden("image_encoder"), &device()).expect("an encoder");
        let adapter = IpAdapter::open(place.join(NAME), &device()).map_err(|error| error.to_string())?;
        said(pipeline().generate(&request().with(adapter.with_encoder(encoder).prompt(image()))))
    };
    vec![
        finite("a matrix of zeros", with_values(MLP, 0.0), "norms of constants are finite"),
        finite("patches of zeros", with_values(PATCHES, 0.0), "norms of constants are finite"),
        finite("a norm of negative zeros", with_values(NORM, -0.0), "norms of constants are finite"),
        finite("a matrix of denormal numbers", with_values(PROJECTION, 1e-40), "denormal weights are read as they are"),
        finite(
            "patches of the smallest number",
            with_values(PATCHES, f32::from_bits(1)),
            "denormal weights are read as they are",
        ),
        Case::refused(
            "an adapter of the largest numbers",
            &["prediction of the U-Net at evaluation 1", "expected finite values", "the network overflowed"],
            file(NAME, adapter(f32::MAX).to_bytes()),
            generate,
        ),
        Case::falls_back(
            "an adapter of denormal numbers",
            "denormal weights are read as they are",
            file(NAME, adapter(1e-40).to_bytes()),
            generate,
        ),
        Case::refused(
            "a file that is cut short after it was opened",
            &[NAME, "cannot read tensor"],
            file(NAME, good().to_bytes()),
            |place| {
                let config = ClipVisionConfig::from_json(&config_text("image_encoder")).expect("a configuration");
                let source = open_weights(place.join(NAME)).map_err(|error| error.to_string())?;
                let opened = fs::OpenOptions::new().write(true).open(place.join(NAME)).expect("the file");
                opened.set_len(20_000).expect("a shorter file");
                said(load_into(config.init(&device()).expect("a network"), &source, &LoadOptions::default()))
            },
        ),
    ]
}
