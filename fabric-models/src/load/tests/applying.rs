//! What loading into a network reports and refuses.

use std::sync::{Arc, Mutex};

use burn::tensor::{DType, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;

use super::*;
use crate::load::{LoadDtype, LoadOptions, load_into};
use crate::unet::UNetConfig;

fn stored(dtype: Dtype, values: &[f32]) -> HostTensor {
    let encode = |x: f32| match dtype {
        Dtype::F64 => f64::from(x).to_le_bytes().to_vec(),
        Dtype::F32 => x.to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    };
    let info = TensorInfo { dtype, shape: vec![values.len()] };
    HostTensor { info, bytes: values.iter().flat_map(|x| encode(*x)).collect() }
}

fn converted(tensor: HostTensor, dtype: LoadDtype) -> Result<TensorData, LoadError> {
    tensor.into_data(dtype, true, "file", "weight")
}

#[test]
fn a_file_fills_every_parameter_and_initialises_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = tiny_tensors();
    let file =
        crate::load::SafetensorsFile::open(write(&folder.path().join("a.safetensors"), &tensors)).expect("opens");
    let (tiny, report) = load_into(Tiny::untouchable(), &file, &LoadOptions::default()).expect("loads");
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.applied.len(), tensors.len());
    assert_eq!(report.bytes, tensors.values().map(|t| t.bytes.len() as u64).sum::<u64>());
    for (name, got) in [
        ("net.0.proj.weight", tiny.entry.weight.val().into_data()),
        ("net.0.proj.bias", tiny.entry.bias.val().into_data()),
        ("blocks.0.weight", tiny.blocks[0].weight.val().into_data()),
        ("blocks.1.bias", tiny.blocks[1].bias.val().into_data()),
    ] {
        assert_eq!(HostTensor::from_data(&got), tensors[name], "{name}");
    }
}

#[test]
fn every_stored_type_becomes_every_type_asked_for() {
    // More than one block of the conversion, and not a multiple of one; exact in every type.
    let values: Vec<f32> = (0..10_001).map(|i| (i % 200) as f32 * 0.25 - 25.0).collect();
    for stored_as in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
        for (asked, expected) in [
            (LoadDtype::F32, DType::F32),
            (LoadDtype::F16, DType::F16),
            (LoadDtype::BF16, DType::BF16),
            (
                LoadDtype::Keep,
                match stored_as {
                    Dtype::F16 => DType::F16,
                    Dtype::BF16 => DType::BF16,
                    _ => DType::F32,
                },
            ),
        ] {
            let data = converted(stored(stored_as, &values), asked).expect("converts");
            assert_eq!(data.dtype(), expected, "{stored_as:?} as {asked:?}");
            let got = data.convert::<f32>().try_to_vec::<f32>().expect("floats");
            // bf16 has 8 bits: a quarter of a number below 64 fits.
            assert_eq!(got, values, "{stored_as:?} as {asked:?}");
        }
    }
}

#[test]
fn every_half_precision_number_keeps_its_value() {
    let bits: Vec<u16> = (0..=u16::MAX).filter(|bits| f16::from_bits(*bits).is_finite()).collect();
    let bytes: Vec<u8> = bits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensor = HostTensor { info: TensorInfo { dtype: Dtype::F16, shape: vec![bits.len()] }, bytes };
    let wide = converted(tensor.clone(), LoadDtype::F32).expect("f32").try_to_vec::<f32>().expect("f32");
    assert!(wide.iter().zip(&bits).all(|(x, b)| x.to_bits() == f16::from_bits(*b).to_f32().to_bits()));
    let kept = HostTensor::from_data(&converted(tensor.clone(), LoadDtype::Keep).expect("kept"));
    assert_eq!(kept, tensor);
}

#[test]
fn a_number_that_is_not_finite_is_found_and_named() {
    let mut values = vec![1.0; 9000];
    values[8191] = f32::INFINITY;
    values[8500] = f32::NAN;
    for stored_as in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16] {
        for asked in [LoadDtype::Keep, LoadDtype::F32, LoadDtype::F16, LoadDtype::BF16] {
            let parts = ["file", "`weight`", "inf", "8191", "finite"];
            let error = assert_says(converted(stored(stored_as, &values), asked), &parts);
            assert!(matches!(error, LoadError::NotFinite { index: 8191, .. }));
        }
    }
    let unchecked = stored(Dtype::F32, &values).into_data(LoadDtype::F32, false, "", "").expect("no check");
    assert!(unchecked.try_to_vec::<f32>().expect("floats")[8500].is_nan());
}

#[test]
fn a_number_too_large_for_f16_is_an_error_and_not_infinity() {
    let error = assert_says(converted(stored(Dtype::F32, &[1.0, 1e5]), LoadDtype::F16), &["100000", "f16", "bf16"]);
    assert!(matches!(error, LoadError::TooLargeForType { index: 1, .. }));
    assert!(converted(stored(Dtype::F32, &[1.0, 1e5]), LoadDtype::BF16).is_ok());
    assert!(converted(stored(Dtype::F64, &[65504.0]), LoadDtype::F16).is_ok());
}

#[test]
fn integers_are_not_weights() {
    let mut tensors = tiny_tensors();
    let info = TensorInfo { dtype: Dtype::I8, shape: vec![3] };
    tensors.insert("net.0.proj.bias".into(), HostTensor { info, bytes: vec![1, 2, 3] });
    let source = InMemory::new(tensors);
    let result = load_into(Tiny::untouchable(), &source, &LoadOptions::default());
    assert_says(result, &["memory", "`net.0.proj.bias`", "I8", "F16", "quantised"]);
}

#[test]
fn everything_that_does_not_fit_is_one_error_with_the_nearest_names() {
    let mut tensors = tiny_tensors();
    let bias = tensors.remove("net.0.proj.bias").expect("it is there");
    tensors.insert("net.0.proj.bais".into(), bias);
    tensors.insert("blocks.1.weight".into(), floats(&[2, 1], &[0.0; 2]));
    let source = InMemory::new(tensors);
    let strict = load_into(Tiny::untouchable(), &source, &LoadOptions::default());
    let parts = [
        "1 missing, 1 unexpected, 1 of another shape",
        "missing `net.0.proj.bias` [3] (the file has `net.0.proj.bais`)",
        "unexpected `net.0.proj.bais`",
        "`blocks.1.weight`: expected [1, 2], got [2, 1]",
    ];
    assert_says(strict, &parts);

    let options = LoadOptions::default().with_strict(false);
    let (_, report) = load_into(Tiny::untouchable(), &source, &options).expect("loads what fits");
    assert!(!report.is_complete());
    assert_eq!(report.applied.len(), 4);
    assert_eq!(report.missing[0].nearest.as_deref(), Some("net.0.proj.bais"));
    assert_eq!(report.unexpected, ["net.0.proj.bais"]);
    assert_eq!(report.mismatched[0].got, [2, 1]);
}

#[test]
fn position_ids_are_ignored_and_reported() {
    let mut tensors = tiny_tensors();
    let info = TensorInfo { dtype: Dtype::I64, shape: vec![1, 2] };
    let ids = HostTensor { info, bytes: vec![0; 16] };
    tensors.insert("text_model.embeddings.position_ids".into(), ids);
    let (_, report) =
        load_into(Tiny::untouchable(), &InMemory::new(tensors), &LoadOptions::default()).expect("still strict");
    assert_eq!(report.ignored, ["text_model.embeddings.position_ids"]);
    assert!(report.is_complete());
}

#[test]
fn progress_rises_to_the_whole() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let options = LoadOptions::default().with_dtype(LoadDtype::BF16).with_progress(move |progress| {
        told.lock().expect("a lock").push((progress.tensor.to_owned(), progress.done_bytes, progress.total_bytes));
    });
    let (_, report) = load_into(Tiny::untouchable(), &InMemory::new(tiny_tensors()), &options).expect("loads");
    let seen = seen.lock().expect("a lock");
    let names: Vec<String> = seen.iter().map(|(name, ..)| name.clone()).collect();
    assert_eq!(names, report.applied);
    assert!(seen.is_sorted_by(|a, b| a.1 < b.1));
    assert!(seen.iter().all(|(.., total)| *total == report.bytes));
    assert_eq!(seen.last().expect("some").1, report.bytes);
}

#[test]
fn a_network_of_another_family_is_recognised() {
    let names_of = |config: UNetConfig| {
        let unet = config.init(&cpu()).expect("a network");
        let tensors = crate::load::parameters(&unet).into_iter().map(|parameter| {
            let info = TensorInfo { dtype: Dtype::F16, shape: parameter.shape };
            // Never read: names and shapes are compared first.
            (parameter.name, HostTensor { info, bytes: Vec::new() })
        });
        InMemory::new(tensors.collect())
    };
    let sd15 = || UNetConfig::sd15().init(&cpu()).expect("a network");
    let xl = load_into(sd15(), &names_of(UNetConfig::sdxl()), &LoadOptions::default());
    assert_says(xl.map(|_| ()), &["looks like the U-Net of Stable Diffusion XL", "add_embedding", "and "]);
    let sd2 = load_into(sd15(), &names_of(UNetConfig::sd21()), &LoadOptions::default());
    assert_says(
        sd2.map(|_| ()),
        &["looks like the U-Net of Stable Diffusion 2", "expected [320, 768], got [320, 1024]"],
    );
}

#[test]
fn a_progress_callback_that_panics_is_an_error_of_its_own() {
    let source = InMemory::new(tiny_tensors());
    let options = LoadOptions::default().with_progress(|_| panic!("the window is closed"));
    let error = assert_says(
        load_into(Tiny::untouchable(), &source, &options),
        &["memory: the progress callback panicked: the window is closed"],
    );
    assert!(matches!(error, LoadError::Callback { .. }), "{error:?}");
    load_into(Tiny::untouchable(), &source, &LoadOptions::default()).expect("loads without it");
}
