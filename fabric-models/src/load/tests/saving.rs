//! What is written can be read, to the bit.

use std::fs;

use half::f16;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::*;
use crate::load::{
    Component, ComponentFolder, FolderWriter, LoadDtype, LoadOptions, ModelFolder, SaveDtype, SaveOptions, load_into,
    save_component,
};

/// Bits that a careless conversion would change: a negative zero, a subnormal, the largest of its type.
fn delicate(dtype: Dtype) -> InMemory {
    let mut tensors = tiny_tensors();
    for tensor in tensors.values_mut() {
        let count = tensor.info.elements();
        let bits = [0x8000_u16, 0x0001, 0x7bff, 0x3c01];
        tensor.bytes = match dtype {
            Dtype::F32 => {
                (0..count).flat_map(|i| f32::from_bits([0x8000_0000, 1, 0x7f7f_ffff][i % 3]).to_le_bytes()).collect()
            }
            _ => (0..count).flat_map(|i| bits[i % 4].to_le_bytes()).collect(),
        };
        tensor.info.dtype = dtype;
    }
    InMemory::new(tensors)
}

fn loaded(source: &InMemory) -> Tiny {
    let options = LoadOptions::default().with_dtype(LoadDtype::Keep);
    load_into(Tiny::untouchable(), source, &options).expect("loads").0
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_saved_is_read_again_bit_by_bit() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let folder = tempfile::tempdir().expect("a folder");
        let source = delicate(dtype);
        let config = json!({ "_class_name": "UNet2DConditionModel", "width": 3 });
        let options = SaveOptions { dtype: SaveDtype::Keep, ..SaveOptions::default() };
        save_component(&loaded(&source), folder.path(), &config, &options).expect("saves");
        assert_eq!(files(folder.path()), ["config.json", "diffusion_pytorch_model.safetensors"]);
        let saved = ComponentFolder::open(folder.path(), None).expect("opens");
        assert_eq!(saved.config::<Value>().expect("settings"), config);
        assert_eq!(read_all(&saved.weights().expect("weights")), source.tensors);
    }
}

#[test]
fn a_limit_on_files_makes_shards_and_an_index() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = delicate(Dtype::F32);
    // Two tensors of 24 and 12 bytes fit, a third does not.
    let options = SaveOptions { dtype: SaveDtype::Keep, max_shard_bytes: Some(40) };
    save_component(&loaded(&source), folder.path(), &json!({ "model_type": "clip_text_model" }), &options)
        .expect("saves");
    let expected = [
        "config.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(files(folder.path()), expected);
    let saved = ComponentFolder::open(folder.path(), None).expect("opens").weights().expect("weights");
    assert_eq!(read_all(&saved), source.tensors);
}

#[test]
fn a_save_replaces_an_earlier_one_with_more_or_fewer_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let save = |source: &InMemory, max_shard_bytes: Option<u64>| {
        let options = SaveOptions { dtype: SaveDtype::Keep, max_shard_bytes };
        save_component(&loaded(source), folder.path(), &json!({}), &options).expect("saves");
        let saved = ComponentFolder::open(folder.path(), None).expect("opens").weights().expect("weights");
        assert_eq!(read_all(&saved), source.tensors, "{:?}", files(folder.path()));
    };
    let (plain, delicate) = (InMemory::new(tiny_tensors()), delicate(Dtype::F32));
    save(&plain, None);
    save(&delicate, Some(40));
    save(&plain, None);
    assert!(!folder.path().join("model.safetensors.index.json").exists(), "an index of other weights");
}

#[test]
fn weights_can_be_saved_in_another_type_if_they_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let tiny = loaded(&InMemory::new(tiny_tensors()));
    let options = SaveOptions { dtype: SaveDtype::F16, ..SaveOptions::default() };
    save_component(&tiny, folder.path(), &json!({}), &options).expect("saves");
    let saved = ComponentFolder::open(folder.path(), None).expect("opens").weights().expect("weights");
    let bias = saved.read("blocks.0.bias").expect("a tensor");
    assert_eq!(bias.info.dtype, Dtype::F16);
    let expected: Vec<u8> = [3.0_f32, 2.75].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
    assert_eq!(bias.bytes, expected);

    let other = tempfile::tempdir().expect("a folder");
    let large = loaded(&delicate(Dtype::F32));
    assert_says(save_component(&large, other.path(), &json!({}), &options), &["too large for f16"]);
    assert!(files(other.path()).is_empty(), "half a file was left: {:?}", files(other.path()));
}

#[test]
fn a_whole_folder_appears_at_once_or_not_at_all() {
    let parent = tempfile::tempdir().expect("a folder");
    let path = parent.path().join("model");
    let tiny = loaded(&InMemory::new(tiny_tensors()));
    let config = json!({ "_class_name": "UNet2DConditionModel", "use_linear_projection": true });
    let options = SaveOptions::default();
    let write = |finish: bool| {
        let mut writer = FolderWriter::create(&path, "StableDiffusionPipeline").expect("begins");
        for component in [Component::UNet, Component::Vae, Component::TextEncoder] {
            writer.component(component, &tiny, &config, &options).expect("saves");
        }
        writer.scheduler(&json!({ "_class_name": "DDIMScheduler", "steps_offset": 1 })).expect("saves");
        writer.file("LICENSE", b"free").expect("saves");
        writer.setting("requires_safety_checker", json!(false));
        assert!(writer.file("../escape", b"").is_err());
        assert!(!path.exists());
        if finish { writer.finish() } else { Ok(()) }
    };
    write(false).expect("dropped");
    assert!(files(parent.path()).is_empty(), "something was left: {:?}", files(parent.path()));
    write(true).expect("finishes");
    assert_eq!(files(parent.path()), ["model"]);

    let folder = ModelFolder::open(&path).expect("opens");
    assert_eq!(folder.family(), crate::load::Family::Sd2);
    assert_eq!(folder.setting("requires_safety_checker"), Some(&json!(false)));
    assert_eq!(folder.scheduler_config::<Value>().expect("settings")["_class_name"], "DDIMScheduler");
    let weights = folder.weights(Component::Vae).expect("weights");
    assert_eq!(read_all(&weights), read_all(&InMemory::new(tiny_tensors())));
    let again = FolderWriter::create(&path, "StableDiffusionPipeline");
    assert_says(again, &["something there", "choose another folder"]);
}

#[test]
fn threads_that_write_one_file_at_a_time_leave_it_whole_for_its_readers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    // Files of different lengths, each filled with one number.
    let tensors = |writer: usize| {
        let count = 40_000 * (writer + 1);
        BTreeMap::from([("x".to_owned(), floats(&[count], &vec![writer as f32; count]))])
    };
    write(&path, &tensors(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let path = &path;
                scope.spawn(move || (0..30).for_each(|_| drop(write(path, &tensors(writer)))))
            })
            .collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let got = &read_all(&crate::load::SafetensorsFile::open(&path).expect("a whole file"))["x"];
            let writer = f32::from_le_bytes(*got.bytes.first_chunk().expect("a number")) as usize;
            assert_eq!(got, &tensors(writer)["x"]);
        }
    });
    assert_eq!(files(folder.path()), ["a.safetensors"], "nothing is left beside it");
}

#[test]
fn what_a_crash_left_beside_a_file_is_in_nobodys_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let left = folder.path().join(format!(".a.safetensors.partial-{}", std::process::id()));
    fs::create_dir(&left).expect("a folder");
    write(&path, &tiny_tensors());
    assert_eq!(read_all(&crate::load::SafetensorsFile::open(&path).expect("opens")), tiny_tensors());
}

#[test]
fn what_a_crash_left_more_than_a_day_ago_is_removed_with_the_next_write() {
    use std::time::{Duration, SystemTime};

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let left = |name: &str, hours: u64| {
        let file = fs::File::create(folder.path().join(name)).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).expect("an older time");
    };
    left(".a.safetensors.partial-0123456789abcdef", 25);
    left(".a.safetensors.partial-00000000000000ff", 23);
    // Those of another file, and names that are not ours.
    let others = [
        ".a.safetensors.partial-0123456789abcde",
        ".a.safetensors.partial-0123456789abcdeg",
        ".b.safetensors.partial-0123456789abcdef",
        "a.safetensors.partial-0123456789abcdef",
    ];
    others.iter().for_each(|name| left(name, 1000));
    write(&path, &tiny_tensors());
    let mut expected = others.to_vec();
    expected.extend([".a.safetensors.partial-00000000000000ff", "a.safetensors"]);
    expected.sort_unstable();
    assert_eq!(files(folder.path()), expected);
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = json!({ "width": 3 });
    let save =
        |config: &Value| save_component(&loaded(&delicate(Dtype::F32)), folder.path(), config, &SaveOptions::default());
    save(&good).expect("saves");
    let deep = (0..200).fold(json!(1), |value, _| json!([value]));
    assert_says(save(&json!({ "width": deep })), &["config.json", "128 levels", "recursion"]);
    assert_says(save(&json!({ "width": "x".repeat(5 << 20) })), &["config.json", "at most 4194304 bytes"]);
    let saved = ComponentFolder::open(folder.path(), None).expect("opens");
    assert_eq!(saved.config::<Value>().expect("settings"), good);
    // A tensor under the name of the free text would be read as that.
    let path = folder.path().join("a.safetensors");
    write(&path, &tiny_tensors());
    let infos = [("__metadata__".to_owned(), floats(&[1], &[0.0]).info)];
    let written = crate::load::write_safetensors(&path, &BTreeMap::new(), &infos, |_| Ok(floats(&[1], &[0.0])));
    assert_says(written, &["a.safetensors", "header, to be written"]);
    assert_eq!(read_all(&crate::load::SafetensorsFile::open(&path).expect("opens")), tiny_tensors());
}
