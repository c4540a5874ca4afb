//! Files that are not what they seem.

use std::fs;

use super::*;
use crate::load::{LoadOptions, SafetensorsFile, load_into, open_weights};

/// A file with this header and so many bytes of data.
fn with_header(path: &Path, header: &str, data: usize) -> PathBuf {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(std::iter::repeat_n(0, data));
    fs::write(path, bytes).expect("a written file");
    path.to_owned()
}

#[test]
fn a_header_that_breaks_a_rule_is_refused_and_the_rule_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let f32_at =
        |shape: &str, from: u64, to: u64| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(500), "}".repeat(500));
    let cases: Vec<(String, usize, Vec<&str>)> = vec![
        ("not json".into(), 0, vec!["header", "expected", "describes each tensor once"]),
        ("[]".into(), 0, vec!["header", "invalid type", "object of tensor descriptions"]),
        (deep, 0, vec!["header"]),
        (r#"{"a":{"dtype":"F33","shape":[],"data_offsets":[0,4]}}"#.into(), 4, vec!["F33"]),
        (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.into(), 4, vec!["-1"]),
        (r#"{"a":{"dtype":"F32","shape":[1]}}"#.into(), 4, vec!["data_offsets"]),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, vec!["expected a string"]),
        (
            format!(r#"{{"a":{},"a":{}}}"#, f32_at("[1]", 0, 4), f32_at("[1]", 4, 8)),
            8,
            vec!["tensor `a` appears twice"],
        ),
        (
            format!(r#"{{"a":{},"b":{}}}"#, f32_at("[2]", 0, 8), f32_at("[2]", 4, 12)),
            12,
            vec!["offsets of tensor `b`", "4..12", "a start at 8"],
        ),
        (
            format!(r#"{{"a":{},"b":{}}}"#, f32_at("[1]", 0, 4), f32_at("[1]", 8, 12)),
            12,
            vec!["offsets of tensor `b`", "a start at 4", "no gap"],
        ),
        (format!(r#"{{"a":{}}}"#, f32_at("[2]", 0, 4)), 4, vec!["0..4", "8 bytes for F32 values of shape [2]"]),
        (format!(r#"{{"a":{}}}"#, f32_at("[1]", 8, 4)), 8, vec!["8..4", "4 bytes"]),
        (format!(r#"{{"a":{}}}"#, f32_at("[1]", 0, 4)), 3, vec!["3 bytes", "4 bytes, the sum of all tensors"]),
        (format!(r#"{{"a":{}}}"#, f32_at("[1]", 0, 4)), 9, vec!["9 bytes", "get it again"]),
        (
            format!(r#"{{"a":{}}}"#, f32_at("[4294967296,4294967296,4294967296]", 0, 4)),
            4,
            vec!["shape of tensor `a`", "4294967296", "can be addressed"],
        ),
    ];
    for (header, data, mut parts) in cases {
        parts.push("a.safetensors: ");
        let error = assert_says(SafetensorsFile::open(with_header(&path, &header, data)), &parts);
        assert!(matches!(error, LoadError::Malformed { .. }), "{error:?}");
    }
}

#[test]
fn a_header_of_what_no_model_has_is_refused_and_not_shown_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let opened = |tensors: &[(String, &str)]| {
        let one = |(name, shape): &(String, &str)| {
            let bytes = if *shape == "[0]" { 0 } else { 4 };
            let name = serde_json::Value::from(name.as_str());
            format!(r#"{name}:{{"dtype":"F32","shape":{shape},"data_offsets":[0,{bytes}]}}"#)
        };
        let header = format!("{{{}}}", tensors.iter().map(one).collect::<Vec<_>>().join(","));
        let data = if tensors.iter().all(|(_, shape)| *shape == "[0]") { 0 } else { 4 };
        SafetensorsFile::open(with_header(&path, &header, data))
    };
    let named = |name: &str| vec![(name.to_owned(), "[1]")];
    let many = |count: usize| (0..count).map(|i| (i.to_string(), "[0]")).collect::<Vec<_>>();
    assert!(opened(&named(&"x".repeat(1024))).is_ok());
    assert!(opened(&[("a".to_owned(), "[1,1,1,1,1,1,1,1]")]).is_ok());
    assert_eq!(opened(&many(1 << 17)).expect("as many as allowed").tensors().len(), 1 << 17);
    for (tensors, parts) in [
        (named(&"x".repeat(1025)), ["name of tensor `xxx", "got 1025 bytes", "at most 1024 bytes"]),
        (named(&"x".repeat(2_000_000)), ["name of tensor `xxx", "got 2000000 bytes", "at most 1024 bytes"]),
        (named("\u{1b}[2Jok\n"), ["name of tensor `\\u{1b}[2Jok\\n`", "got 7 bytes", "without control characters"]),
        (vec![("a".to_owned(), "[1,1,1,1,1,1,1,1,1]")], ["shape of tensor `a`", "got 9 axes", "at most 8 axes"]),
        (many((1 << 17) + 1), ["header", "more than 131072 tensors", "expected"]),
    ] {
        let message = assert_says(opened(&tensors), &parts).to_string();
        assert!(message.len() < 1000 && !message.contains(char::is_control), "{message}");
    }
}

#[test]
fn a_file_that_is_no_safetensors_file_is_recognised() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    let cases: [(&[u8], &[&str]); 7] = [
        (b"", &["an empty file", "8 bytes"]),
        (b"abc", &["3 bytes", "8 bytes"]),
        (&(1_u64 << 60).to_le_bytes(), &["length of the safetensors header", "1152921504606846976 bytes", "at most 0"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", &["git lfs pull"]),
        (b"<!DOCTYPE html><html></html>", &["web page"]),
        (b"PK\x03\x04 a zip archive", &["pickle"]),
        (b"GGUF\x03\0\0\0 a model", &["GGUF"]),
    ];
    for (bytes, parts) in cases {
        fs::write(&path, bytes).expect("a written file");
        assert_says(SafetensorsFile::open(&path), parts);
    }
}

#[test]
fn a_header_longer_than_the_file_is_never_allocated() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.safetensors");
    // Within the format's limit, far beyond the file.
    let mut bytes = 99_999_999_u64.to_le_bytes().to_vec();
    bytes.extend_from_slice(b"{}");
    fs::write(&path, bytes).expect("a written file");
    assert_says(SafetensorsFile::open(&path), &["99999999 bytes", "at most 2", "the file has 10 bytes"]);
}

#[test]
fn nothing_a_folder_and_an_unknown_kind_are_three_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = assert_says(open_weights(folder.path().join("a.safetensors")), &["a.safetensors", "no such file"]);
    assert!(matches!(missing, LoadError::NotFound { .. }));
    assert_says(SafetensorsFile::open(folder.path()), &["expected a file, got a folder", "ModelFolder"]);
    let path = folder.path().join("a.gguf");
    fs::write(&path, b"GGUF").expect("a written file");
    assert_says(open_weights(&path), &["`a.gguf`", ".safetensors", "get the weights"]);
}

#[test]
fn a_file_cut_short_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(&folder.path().join("a.safetensors"), &tiny_tensors());
    let file = SafetensorsFile::open(&path).expect("opens");
    let length = fs::metadata(&path).expect("a size").len();
    fs::OpenOptions::new().write(true).open(&path).expect("opens").set_len(length - 40).expect("cut");
    let result = load_into(Tiny::untouchable(), &file, &LoadOptions::default());
    let error = assert_says(result, &["a.safetensors", "cannot read tensor `"]);
    assert!(matches!(error, LoadError::Io { .. }));
    assert_says(SafetensorsFile::open(&path), &["size of the data", "get it again"]);
}

#[test]
fn a_tensor_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = SafetensorsFile::open(write(&folder.path().join("a.safetensors"), &tiny_tensors())).expect("opens");
    assert_says(file.read("nobody"), &["a.safetensors", "no tensor `nobody`"]);
}

#[test]
fn metadata_scalars_and_empty_tensors_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let header = r#"{"__metadata__":{"ss_epoch":"3"},
        "empty":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},
        "scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   "#;
    let file = SafetensorsFile::open(with_header(&folder.path().join("a.safetensors"), header, 4)).expect("opens");
    assert_eq!(file.metadata()["ss_epoch"], "3");
    assert_eq!(file.read("scalar").expect("a scalar").bytes, [0; 4]);
    assert!(file.read("empty").expect("nothing").bytes.is_empty());
}
