//! Models in several files.

use std::fs;

use serde_json::json;

use super::*;
use crate::hostile_texts::{assert_printable, hostile_texts};
use crate::load::{LoadOptions, ShardedSafetensors, load_into};

/// Tiny's tensors in two files with an index.
fn write_shards(folder: &Path) -> PathBuf {
    let (first, second): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tiny_tensors().into_iter().partition(|(name, _)| name.starts_with("net."));
    let files = [("m-00001-of-00002.safetensors", first), ("m-00002-of-00002.safetensors", second)];
    let mut map = serde_json::Map::new();
    for (file, tensors) in &files {
        write(&folder.join(file), tensors);
        map.extend(tensors.keys().map(|name| (name.clone(), json!(file))));
    }
    let index = folder.join("m.safetensors.index.json");
    fs::write(&index, json!({ "metadata": {}, "weight_map": map }).to_string()).expect("a written index");
    index
}

/// Changes the text of an index.
fn edit(index: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(index).expect("an index");
    assert!(text.contains(from), "{from} in {text}");
    fs::write(index, text.replacen(from, to, 1)).expect("a written index");
}

#[test]
fn shards_load_like_one_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let shards = ShardedSafetensors::open(write_shards(folder.path())).expect("opens");
    assert_eq!(read_all(&shards), tiny_tensors());
    let (_, report) = load_into(Tiny::untouchable(), &shards, &LoadOptions::default()).expect("loads");
    assert!(report.is_complete());
}

#[cfg(feature = "pickle")]
#[test]
fn shards_of_pytorch_load_like_one_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let shard = "pytorch_model.fp16-00001-of-00001.bin";
    fs::copy(fixture("tiny.bin"), folder.path().join(shard)).expect("copied");
    let map: serde_json::Map<_, _> = tiny_tensors().into_keys().map(|name| (name, json!(shard))).collect();
    for name in ["pytorch_model.bin.index.json", "pytorch_model.bin.index.fp16.json"] {
        let index = folder.path().join(name);
        fs::write(&index, json!({ "metadata": {}, "weight_map": map }).to_string()).expect("a written index");
        let shards = crate::load::open_weights(&index).expect("opens");
        assert_eq!(read_all(&shards), tiny_tensors(), "{name}");
    }
    edit(&folder.path().join("pytorch_model.bin.index.json"), shard, "../x.bin");
    let index = folder.path().join("pytorch_model.bin.index.json");
    assert_says(crate::load::open_weights(index), &["shard name", "plain name"]);
}

#[cfg(not(feature = "pickle"))]
#[test]
fn shards_of_pytorch_need_the_feature() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.bin"), "").expect("written");
    let index = folder.path().join("pytorch_model.bin.index.json");
    fs::write(&index, json!({ "weight_map": { "x": "a.bin" } }).to_string()).expect("a written index");
    assert_says(crate::load::open_weights(index), &["a.bin", "feature `pickle`"]);
}

#[test]
fn a_shard_outside_the_folder_is_never_opened() {
    let outside = tempfile::tempdir().expect("a folder");
    let folder = outside.path().join("model");
    fs::create_dir(&folder).expect("a folder");
    write(&outside.path().join("secret.safetensors"), &tiny_tensors());
    let absolute = outside.path().join("secret.safetensors").display().to_string();
    for name in
        ["../secret.safetensors", "a/../../secret.safetensors", r"..\\secret.safetensors", "..", "", "C:x", &absolute]
    {
        let index = write_shards(&folder);
        edit(&index, "m-00001-of-00002.safetensors", name);
        assert_says(ShardedSafetensors::open(&index), &["shard name", "plain name", "outside its folder"]);
    }
}

#[test]
fn no_name_in_an_index_reaches_the_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = folder.path().join("m.safetensors.index.json");
    write(&folder.path().join("m.safetensors"), &tiny_tensors());
    for text in hostile_texts() {
        let (twice, name) = (json!(text), text.as_str());
        for json in [
            json!({ "weight_map": { "x": name } }).to_string(),
            json!({ "weight_map": { name: "m.safetensors" } }).to_string(),
            format!(r#"{{"weight_map": {{{twice}: "a", {twice}: "b"}}}}"#),
        ] {
            fs::write(&index, json).expect("a written index");
            let error = ShardedSafetensors::open(&index).expect_err("a hostile index");
            assert_printable(&error.to_string());
        }
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_followed_as_hugging_faces_cache_needs() {
    let outside = tempfile::tempdir().expect("a folder");
    let folder = outside.path().join("snapshot");
    fs::create_dir(&folder).expect("a folder");
    let index = write_shards(&folder);
    let shard = folder.join("m-00001-of-00002.safetensors");
    fs::rename(&shard, outside.path().join("blob")).expect("moved");
    std::os::unix::fs::symlink("../blob", &shard).expect("linked");
    assert_eq!(read_all(&ShardedSafetensors::open(&index).expect("opens")), tiny_tensors());
}

#[test]
fn a_missing_shard_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = write_shards(folder.path());
    fs::remove_file(folder.path().join("m-00002-of-00002.safetensors")).expect("removed");
    let error =
        assert_says(ShardedSafetensors::open(&index), &["`m-00002-of-00002.safetensors`", "index.json", "get the"]);
    assert!(matches!(error, LoadError::NotFound { .. }));
}

#[test]
fn a_tensor_in_the_wrong_shard_in_none_or_twice_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = r#""net.0.proj.bias":"m-00001-of-00002.safetensors""#;
    let index = write_shards(folder.path());
    edit(&index, wrong, &wrong.replace("m-00001", "m-00002"));
    let parts = ["tensor `net.0.proj.bias`", "it in `m-00001-of-00002.safetensors`", "it in `m-00002-of-00002"];
    assert_says(ShardedSafetensors::open(&index), &parts);

    let index = write_shards(folder.path());
    edit(&index, wrong, &format!(r#"{wrong},"extra":"m-00001-of-00002.safetensors""#));
    assert_says(ShardedSafetensors::open(&index), &["tensor `extra`", "got it nowhere", "get all of them again"]);

    let index = write_shards(folder.path());
    edit(&index, &format!("{wrong},"), "");
    assert_says(ShardedSafetensors::open(&index), &["tensor `net.0.proj.bias`", "expected it in no shard"]);

    let index = write_shards(folder.path());
    edit(&index, wrong, &format!("{wrong},{wrong}"));
    assert_says(ShardedSafetensors::open(&index), &["tensor `net.0.proj.bias` appears twice"]);
}

#[test]
fn an_index_that_is_no_index_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = folder.path().join("m.safetensors.index.json");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (text, part) in [("", "EOF"), ("{}", "weight_map"), (r#"{"weight_map":[]}"#, "tensor names"), (&deep, "got")] {
        fs::write(&index, text).expect("a written index");
        assert_says(ShardedSafetensors::open(&index), &["m.safetensors.index.json", part]);
    }
}
