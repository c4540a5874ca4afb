//! Safetensors files whose headers violate the format, and files of other kinds under that extension.

use std::fs;
use std::path::Path;

use fabric::models::load::{SafetensorsFile, TensorSource, open_weights};

use crate::case::{Case, Outcome, file, nothing, said, sparse_file};
use crate::tensor_file::with_header;

pub(crate) const COUNT: usize = 70;

const NAME: &str = "a.safetensors";

fn open(place: &Path) -> Outcome {
    said(SafetensorsFile::open(place.join(NAME)))
}

pub(crate) fn check_base() {
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join(NAME);
    let header = r#"{"__metadata__":{"a":"b"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    fs::write(&path, with_header(header, 4)).expect("a written file");
    assert_eq!(SafetensorsFile::open(&path).expect("a file").tensors().len(), 1);
}

/// A file with these bytes.
fn bytes(name: &str, bytes: impl Into<Vec<u8>>, words: &[&str]) -> Case {
    Case::refused(name, &[words, &[NAME]].concat(), file(NAME, bytes.into()), open)
}

/// A file with this header and as many zeros behind it.
fn header(name: &str, text: &str, data: usize, words: &[&str]) -> Case {
    bytes(name, with_header(text, data), words)
}

/// A file with one tensor `a` that has these fields.
fn tensor(name: &str, fields: &str, data: usize, words: &[&str]) -> Case {
    header(name, &format!(r#"{{"a":{{{fields}}}}}"#), data, words)
}

/// A file with one good tensor of this name.
fn named(name: &str, tensor: &str, words: &[&str]) -> Case {
    let quoted = serde_json::Value::from(tensor);
    header(name, &format!(r#"{{{quoted}:{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#), 4, words)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(texts());
    cases.extend(fields());
    cases.extend(layouts());
    cases.extend(names());
    cases.extend(other_files());
    cases
}

/// The eight bytes in front of the header.
fn lengths() -> Vec<Case> {
    let length = "length of the safetensors header";
    let claims =
        |name: &str, length: u64, words: &[&str]| bytes(name, [length.to_le_bytes().as_slice(), b"{}"].concat(), words);
    vec![
        bytes("an empty file", "", &["an empty file", "8 bytes with the header's length"]),
        bytes("one byte", "{", &["got 1 bytes", "8 bytes with the header's length"]),
        bytes("seven bytes", "1234567", &["got 7 bytes"]),
        claims("a header of no bytes", 0, &["safetensors header", "EOF"]),
        claims("a header of one byte more than the file", 3, &[length, "got 3 bytes", "at most 2"]),
        claims("a header within the limit and beyond the file", 99_999_999, &[length, "99999999 bytes", "at most 2"]),
        claims("a header of half of all numbers", 1 << 63, &[length, "9223372036854775808 bytes"]),
        claims("a header of the largest number", u64::MAX, &[length, "18446744073709551615 bytes"]),
        bytes("a length in the other order of bytes", [2_u64.to_be_bytes().as_slice(), b"{}"].concat(), &[length]),
        Case::refused(
            "a header beyond the limit in a file that is as long",
            &[length, "100000001 bytes", "at most 100000000", NAME],
            sparse_file(NAME, 100_000_001_u64.to_le_bytes().to_vec(), 100_000_100),
            open,
        ),
        Case::refused(
            "a header of 32 MiB of zeros",
            &["safetensors header", "expected value", NAME],
            sparse_file(NAME, (32_u64 << 20).to_le_bytes().to_vec(), 8 + (32 << 20)),
            open,
        ),
    ]
}

/// Texts that are no JSON object of tensors.
fn texts() -> Vec<Case> {
    let json = "JSON that describes each tensor once";
    let deep = format!("{}1{}", r#"{"a":"#.repeat(500), "}".repeat(500));
    vec![
        header("no JSON", "not json", 0, &["safetensors header", json]),
        header("a list", "[]", 0, &["invalid type", "an object of tensor descriptions"]),
        header("null", "null", 0, &["invalid type: null", json]),
        header("a text", "\"a\"", 0, &["invalid type: string", json]),
        header("a number", "7", 0, &["invalid type: integer `7`", json]),
        header("an object that does not end", r#"{"a":"#, 0, &["EOF", json]),
        header("text behind the object", "{} {}", 0, &["trailing characters", json]),
        header("a byte-order mark", "\u{feff}{}", 0, &["expected value", json]),
        header("objects nested 500 times", &deep, 0, &["safetensors header", json]),
        bytes("a name that is not UTF-8", [4_u64.to_le_bytes().as_slice(), b"{\"\xff\""].concat(), &[json]),
        header("metadata that is a list", r#"{"__metadata__":["a"]}"#, 0, &["invalid type: sequence", json]),
        header("metadata with a number", r#"{"__metadata__":{"a":1}}"#, 0, &["expected a string", json]),
        header("metadata with an object", r#"{"__metadata__":{"a":{"b":"c"}}}"#, 0, &["expected a string", json]),
        header("metadata twice", r#"{"__metadata__":{},"__metadata__":{}}"#, 0, &["`__metadata__` appears twice"]),
        header("a tensor that is a list", r#"{"a":[]}"#, 0, &["safetensors header", json]),
        header("a tensor that is null", r#"{"a":null}"#, 0, &["invalid type: null", json]),
    ]
}

/// Fields of a tensor that are missing, of another type, or out of range.
fn fields() -> Vec<Case> {
    let of_type = |name: &str, dtype: &str, words: &[&str]| {
        tensor(name, &format!(r#""dtype":{dtype},"shape":[1],"data_offsets":[0,4]"#), 4, words)
    };
    let of_shape = |name: &str, shape: &str, words: &[&str]| {
        tensor(name, &format!(r#""dtype":"F32","shape":{shape},"data_offsets":[0,4]"#), 4, words)
    };
    let at = |name: &str, offsets: &str, words: &[&str]| {
        tensor(name, &format!(r#""dtype":"F32","shape":[1],"data_offsets":{offsets}"#), 4, words)
    };
    let long = format!("\"{}\"", "F".repeat(100_000));
    vec![
        of_type("an unknown type", "\"F33\"", &["unknown variant `F33`"]),
        of_type("a type in lower case", "\"f32\"", &["unknown variant `f32`"]),
        of_type("a type that is a number", "7", &["safetensors header", "line 1"]),
        of_type("a type of 100,000 letters", &long, &["unknown variant"]),
        tensor("no type", r#""shape":[1],"data_offsets":[0,4]"#, 4, &["missing field `dtype`"]),
        tensor("no shape", r#""dtype":"F32","data_offsets":[0,4]"#, 4, &["missing field `shape`"]),
        tensor("no offsets", r#""dtype":"F32","shape":[1]"#, 4, &["missing field `data_offsets`"]),
        tensor(
            "values of half a byte",
            r#""dtype":"F4","shape":[1],"data_offsets":[0,1]"#,
            1,
            &["shape of tensor `a`"],
        ),
        of_shape("a negative side", "[-1]", &["integer `-1`"]),
        of_shape("a side that is a fraction", "[1.5]", &["floating point `1.5`"]),
        of_shape("a side that is a text", "[\"1\"]", &["invalid type: string"]),
        of_shape("a side that is Python's NaN", "[NaN]", &["expected value"]),
        of_shape("a side beyond all numbers", "[1e400]", &["number out of range"]),
        of_shape("a side of 65 bits", "[18446744073709551616]", &["floating point"]),
        of_shape("a shape that is a number", "1", &["invalid type: integer `1`", "expected a sequence"]),
        of_shape("nine axes", "[1,1,1,1,1,1,1,1,1]", &["shape of tensor `a`", "got 9 axes", "at most 8 axes"]),
        of_shape("sides whose product overflows", "[4294967296,4294967296,4294967296]", &["can be addressed"]),
        of_shape("sides beyond the data", "[2]", &["0..4", "8 bytes for F32 values of shape [2]"]),
        at("one offset", "[0]", &["invalid length 1"]),
        at("three offsets", "[0,4,4]", &["safetensors header", "line 1"]),
        at("negative offsets", "[-4,0]", &["integer `-4`"]),
        at("offsets in the wrong order", "[8,4]", &["8..4", "4 bytes for F32"]),
        at("an end beyond all files", "[0,18446744073709551615]", &["offsets of tensor `a`", "18446744073709551615"]),
        at("a start behind a gap", "[4,8]", &["offsets of tensor `a`", "a start at 0"]),
    ]
}

/// Tensors that do not cover the data exactly once.
fn layouts() -> Vec<Case> {
    let one = |name: &str, count: usize, from: usize| {
        let to = from + 4 * count;
        format!(r#""{name}":{{"dtype":"F32","shape":[{count}],"data_offsets":[{from},{to}]}}"#)
    };
    let two = |first: String, second: String| format!("{{{first},{second}}}");
    let overlap = two(one("a", 2, 0), one("b", 2, 4));
    let gap = two(one("a", 1, 0), one("b", 1, 8));
    let same = two(one("a", 1, 0), one("b", 1, 0));
    let twice = two(one("a", 1, 0), one("a", 1, 4));
    let single = format!("{{{}}}", one("a", 1, 0));
    vec![
        header("two tensors that overlap", &overlap, 12, &["offsets of tensor `b`", "a start at 8", "no overlap"]),
        header("two tensors in the same place", &same, 4, &["offsets of tensor", "a start at 4", "no overlap"]),
        header("a gap between two tensors", &gap, 12, &["offsets of tensor `b`", "a start at 4", "no gap"]),
        header("one name for two tensors", &twice, 8, &["tensor `a` appears twice"]),
        header("data cut short", &single, 3, &["size of the data", "got 3 bytes", "4 bytes, the sum of all tensors"]),
        header("data behind the last tensor", &single, 9, &["size of the data", "got 9 bytes", "get it again"]),
        header("data without a tensor", "{}", 4, &["size of the data", "got 4 bytes", "0 bytes"]),
    ]
}

/// Names that no model has, and far too many of them.
fn names() -> Vec<Case> {
    let entry = |number: usize| format!(r#""{number}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
    let many: Vec<String> = (0..=1 << 17).map(entry).collect();
    let (limit, control) = ("at most 1024 bytes", "without control characters");
    vec![
        named("a name of 1025 bytes", &"x".repeat(1025), &["name of tensor `xxx", "got 1025 bytes", limit]),
        named("a name of two million bytes", &"x".repeat(2_000_000), &["got 2000000 bytes", limit]),
        named("a name that clears the terminal", "\u{1b}[2Jok", &["name of tensor `\\u{1b}[2Jok`", control]),
        named("a name that forges a line", "a\nerror: all is well", &["name of tensor `a\\nerror", control]),
        named("a name with a zero byte", "a\0b", &["name of tensor `a\\u{0}b`", control]),
        header("131,073 tensors", &format!("{{{}}}", many.join(",")), 0, &["more than 131072 tensors"]),
    ]
}

/// Files of other kinds, and paths without a file.
fn other_files() -> Vec<Case> {
    let folder = |place: &Path| fs::create_dir(place.join(NAME)).expect("a folder");
    vec![
        bytes("a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:1", &["git lfs pull"]),
        bytes("a web page", "<!DOCTYPE html><html></html>", &["web page", "get the file again"]),
        bytes("a zip archive", b"PK\x03\x04 an archive", &["PyTorch pickle", "feature `pickle`"]),
        Case::refused("a folder", &["expected a file, got a folder", NAME], folder, open),
        Case::refused("no file", &["there is no such file", NAME], nothing, open),
        Case::refused(
            "another extension",
            &["kind of file", "`a.gguf`", "get the weights in one of these formats"],
            file("a.gguf", b"GGUF\x03\0\0\0".to_vec()),
            |place| said(open_weights(place.join("a.gguf"))),
        ),
    ]
}
