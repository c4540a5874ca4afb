//! Whole models, converted to folders in the diffusers layout.

use std::fs;

use fabric_core::image::Image;
use fabric_core::pipeline::{Request, Settings};
use serde_json::Value;

use super::single_files::{SmallCheckpoint, small_checkpoints};
use super::*;
use crate::load::{Family, LoadDtype, ModelFolder, SafetensorsFile, SaveDtype};
use crate::{ConvertOptions, LoraChoice, ModelConversion, ModelOptions, load_model};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models")
}

/// An image of 32x32 pixels that a model makes.
fn image(model: &Path, options: &ModelOptions) -> Image {
    let (pipeline, _) = load_model(model, &cpu(), options).expect("a pipeline");
    let settings = Settings { width: Some(32), height: Some(32), steps: 2, ..Settings::default() };
    let request = Request::new("a red star").with_seeds([3]).with_settings(settings);
    pipeline.generate(&request).expect("an image").images.remove(0)
}

/// Paths of all files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Converts a model and checks that exactly the planned files, with the planned tensors, are written.
fn converted(model: &Path, folder: &Path, options: &ConvertOptions) -> ModelConversion {
    let conversion = ModelConversion::open(model, &cpu(), options).expect("a conversion");
    assert!(!folder.exists(), "planning writes nothing");
    let report = conversion.write(folder).expect("a written folder");
    assert_eq!(report.loras, conversion.loras());
    let mut planned: Vec<PathBuf> = conversion.files().iter().map(|file| folder.join(&file.path)).collect();
    planned.sort();
    assert_eq!(files(folder), planned);
    let mut networks = conversion.networks().iter();
    for file in conversion.files().iter().filter(|file| file.tensors > 0) {
        let network = networks.next().expect("a network for each file of weights");
        let stored = SafetensorsFile::open(folder.join(&file.path)).expect("opens");
        assert_eq!(*stored.tensors(), network.tensors, "{}", network.component);
        let bytes: usize = stored.tensors().values().map(TensorInfo::bytes).sum();
        assert_eq!((file.tensors, file.bytes), (stored.tensors().len(), Some(bytes as u64)), "{}", network.component);
    }
    conversion
}

#[test]
fn single_files_of_every_family_become_folders_that_make_the_same_image() {
    let place = tempfile::tempdir().expect("a folder");
    let classes = [
        "StableDiffusionPipeline",
        "StableDiffusionPipeline",
        "StableDiffusionPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLPipeline",
    ];
    for (index, (checkpoint, class)) in small_checkpoints().into_iter().zip(classes).enumerate() {
        let SmallCheckpoint { family, mut tensors, prediction, .. } = checkpoint;
        tensors.insert("model_ema.decay".to_owned(), floats(&[], &[1.0]));
        tensors.insert("alphas_cumprod".to_owned(), floats(&[2], &[1.0, 0.5]));
        let model = write(&place.path().join("model.safetensors"), &tensors);
        let folder = place.path().join(index.to_string());
        let conversion = converted(&model, &folder, &ConvertOptions::default());
        assert_eq!(conversion.family(), family);
        assert_eq!(conversion.unused(), ["alphas_cumprod", "model_ema.decay"], "{family}");
        assert_eq!(conversion.bytes_before(), fs::metadata(&model).expect("a file").len());

        let opened = ModelFolder::open(&folder).expect("a model");
        assert_eq!((opened.family(), opened.setting("_class_name")), (family, Some(&class.into())));
        let scheduler: Value = opened.scheduler_config().expect("settings");
        assert_eq!(scheduler["prediction_type"], serde_json::json!(prediction), "{family}");
        let zeros = opened.setting("force_zeros_for_empty_prompt").is_some_and(|value| *value == true);
        assert_eq!(zeros, family == Family::Sdxl);
        let options = ModelOptions::default();
        assert!(image(&folder, &options) == image(&model, &options), "{family}: another image");
    }
}

#[test]
fn a_folder_in_another_type_has_the_weights_that_loading_in_that_type_gives() {
    let place = tempfile::tempdir().expect("a folder");
    for (name, dtype, loaded) in [
        ("keep", SaveDtype::Keep, LoadDtype::F32),
        ("f32", SaveDtype::F32, LoadDtype::F32),
        ("f16", SaveDtype::F16, LoadDtype::F16),
        ("bf16", SaveDtype::BF16, LoadDtype::BF16),
    ] {
        let folder = place.path().join(name);
        let conversion = converted(&golden(), &folder, &ConvertOptions { dtype, ..ConvertOptions::default() });
        assert_eq!(conversion.unused(), ["controlnet", "ip_adapter", "lora", "sdxl"]);
        let options = ModelOptions { dtype: loaded, ..ModelOptions::default() };
        assert!(image(&folder, &options) == image(&golden(), &options), "{name}: another image");
    }
    let folder = place.path().join("int8");
    let int8 = ConvertOptions { dtype: SaveDtype::Int8, ..ConvertOptions::default() };
    let conversion = converted(&golden(), &folder, &int8);
    let bytes: u64 = conversion.files().iter().filter_map(|file| file.bytes).sum();
    assert!(bytes < conversion.bytes_before(), "{bytes} of {}", conversion.bytes_before());
    assert!(folder.join("unet/quanto_qmap.json").is_file());
    let options = ModelOptions::default();
    let eight = image(&folder, &options);
    // Converted once more, the rounded weights are exact.
    let floats = place.path().join("floats");
    converted(&folder, &floats, &ConvertOptions::default());
    assert!(image(&floats, &options) == eight, "other weights than those with 8 bits");
}

#[test]
fn loras_are_merged_as_loading_merges_them() {
    let place = tempfile::tempdir().expect("a folder");
    let path = golden().join("lora/kohya.safetensors");
    let loras = vec![LoraChoice { path, scale: 0.8 }];
    let options = ConvertOptions { dtype: SaveDtype::F32, loras: loras.clone(), ..ConvertOptions::default() };
    let folder = place.path().join("merged");
    let conversion = converted(&golden(), &folder, &options);
    let changed: Vec<usize> = conversion.loras().iter().map(|report| report.applied.len()).collect();
    assert_eq!(changed.iter().sum::<usize>(), 77 + 18, "{changed:?}");
    let plain = ModelOptions::default();
    let merged = image(&golden(), &ModelOptions { loras, ..ModelOptions::default() });
    assert!(image(&folder, &plain) == merged);
    assert!(image(&golden(), &plain) != merged, "the LoRA has no effect");
}

#[test]
fn what_does_not_match_is_refused_before_anything_is_written() {
    let place = tempfile::tempdir().expect("a folder");
    let lora = |file: &str, scale: f32| {
        let loras = vec![LoraChoice { path: golden().join(file), scale }];
        ConvertOptions { loras, ..ConvertOptions::default() }
    };
    let refused = |model: &Path, options: &ConvertOptions| {
        ModelConversion::open(model, &cpu(), options).expect_err("an error").to_string()
    };
    let message = refused(&golden(), &lora("ip_adapter/plus.safetensors", 1.0));
    assert!(message.contains("plus.safetensors"), "{message}");
    let message = refused(&golden(), &lora("lora/kohya.safetensors", f32::NAN));
    assert!(message.contains("kohya.safetensors") && message.contains("NaN"), "{message}");
    let [checkpoint, ..] = small_checkpoints();
    let model = write(&place.path().join("model.safetensors"), &checkpoint.tensors);
    let message = refused(&model, &lora("lora/kohya.safetensors", 1.0));
    assert!(message.contains("of another shape") || message.contains("no place"), "{message}");

    let mut tensors = checkpoint.tensors;
    let name = "model.diffusion_model.out.2.bias";
    tensors.remove(name).expect("a tensor");
    let message = refused(&write(&place.path().join("cut.safetensors"), &tensors), &ConvertOptions::default());
    assert!(message.contains("cut.safetensors") && message.contains("missing `conv_out.bias`"), "{message}");
    assert_eq!(files(place.path()).len(), 2, "only the two checkpoints");
}
