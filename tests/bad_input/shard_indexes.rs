//! Indexes of sharded weights that are no index, that point elsewhere, or that do not belong to their shards.

use std::fs;
use std::path::Path;

use fabric::models::load::{TensorSource, open_weights};

use crate::case::{Case, Outcome, check, said, sparse_file};
use crate::tensor_file::TensorFile;

pub(crate) const COUNT: usize = 47;

const INDEX: &str = "m.safetensors.index.json";
const ONE: &str = "m-00001-of-00002.safetensors";
const TWO: &str = "m-00002-of-00002.safetensors";

/// The index of the good shards: `a` and `b` in the first, `c` in the second.
const MAP: [(&str, &str); 3] = [("a", ONE), ("b", ONE), ("c", TWO)];

fn shard(names: &[&str]) -> Vec<u8> {
    names.iter().fold(TensorFile::default(), |file, name| file.with(name, &[1], &[1.0])).to_bytes()
}

/// Writes both shards.
fn write_shards(place: &Path) {
    fs::write(place.join(ONE), shard(&["a", "b"])).expect("a written shard");
    fs::write(place.join(TWO), shard(&["c"])).expect("a written shard");
}

fn index_of(map: &[(&str, &str)]) -> String {
    let map: serde_json::Map<_, _> = map.iter().map(|(name, file)| ((*name).to_owned(), (*file).into())).collect();
    serde_json::json!({ "metadata": { "total_size": 12 }, "weight_map": map }).to_string()
}

fn open(place: &Path) -> Outcome {
    said(open_weights(place.join(INDEX)))
}

pub(crate) fn check_base() {
    let place = tempfile::tempdir().expect("a folder");
    write_shards(place.path());
    fs::write(place.path().join(INDEX), index_of(&MAP)).expect("a written index");
    assert_eq!(open_weights(place.path().join(INDEX)).expect("weights").tensors().len(), 3);
}

/// The good shards with this index.
fn index(name: &str, text: impl Into<Vec<u8>>, words: &[&str]) -> Case {
    let text = text.into();
    let prepare = move |place: &Path| {
        write_shards(place);
        fs::write(place.join(INDEX), text).expect("a written index");
    };
    Case::refused(name, &[words, &[INDEX]].concat(), prepare, open)
}

/// The good shards with an index that has this file for the tensor `c`.
fn pointing(name: &str, file: &str, words: &[&str]) -> Case {
    index(name, index_of(&[("a", ONE), ("b", ONE), ("c", file)]), words)
}

/// The good index with one of the shards changed.
fn changed(name: &str, change: impl FnOnce(&Path) + 'static, words: &[&str]) -> Case {
    let prepare = move |place: &Path| {
        write_shards(place);
        fs::write(place.join(INDEX), index_of(&MAP)).expect("a written index");
        change(place);
    };
    Case::refused(name, words, prepare, open)
}

/// The good shards with an index that is accepted, because what is wrong about it is not read.
fn accepted(name: &str, text: String, to: &str) -> Case {
    let prepare = move |place: &Path| {
        write_shards(place);
        fs::write(place.join(INDEX), text).expect("a written index");
    };
    Case::falls_back(name, to, prepare, |place| {
        let weights = open_weights(place.join(INDEX)).map_err(|error| error.to_string())?;
        check(weights.tensors().len() == 3, format!("{} tensors", weights.tensors().len()))
    })
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = texts();
    cases.extend(names_of_shards());
    cases.extend(places_of_tensors());
    cases.extend(shards());
    cases
}

/// Texts that are no index.
fn texts() -> Vec<Case> {
    let good = index_of(&MAP);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let (_, only_map) = good.split_once("\"weight_map\":").expect("a map");
    let list = format!("[{}]", &only_map[..only_map.len() - 1]);
    let deeper = good.replace("12", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    let (map, names) = ("weight_map", "an object of tensor names and file names");
    let many: Vec<String> = (0..200_000).map(|at| format!("\"{at}\":\"{ONE}\"")).collect();
    let many = format!("{{\"{map}\":{{{}}}}}", many.join(","));
    let twice = format!(r#"{{"weight_map":{{"a":"{ONE}","a":"{TWO}","b":"{ONE}","c":"{TWO}"}}}}"#);
    let two_maps = format!(r#"{{"weight_map":{{"a":"{ONE}"}},"weight_map":{{"b":"{ONE}"}}}}"#);
    vec![
        index("an empty index", "", &["settings", "EOF"]),
        index("an index of white space", " \n\t ", &["settings", "EOF"]),
        index("an index that does not end", &good[..good.len() - 1], &["settings", "EOF"]),
        index("an index with text behind it", format!("{good} x"), &["trailing characters"]),
        index("an index that is not UTF-8", b"{\"weight_map\":{\"\xff\":\"a\"}}".as_slice(), &["settings"]),
        index("an index in UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(), &["settings"]),
        index("an index without a map", "{}", &["missing field `weight_map`"]),
        index("a map that is null", r#"{"weight_map":null}"#, &["invalid type: null", names]),
        index("a map that is a list", r#"{"weight_map":["a"]}"#, &["invalid type: sequence", names]),
        index("a map that is a text", format!(r#"{{"{map}":"{ONE}"}}"#), &["invalid type: string", names]),
        index("a shard that is a number", r#"{"weight_map":{"a":1}}"#, &["integer `1`", "expected a string"]),
        index("a shard that is null", r#"{"weight_map":{"a":null}}"#, &["null", "expected a string"]),
        index("a shard that is a list", format!(r#"{{"{map}":{{"a":["{ONE}"]}}}}"#), &["expected a string"]),
        index("an index that is a list with a map", list, &["settings"]),
        index("lists nested 100,000 times", deep, &["settings"]),
        index("a tensor that is listed twice", twice, &["tensor `a` appears twice"]),
        index("two maps", two_maps, &["duplicate field `weight_map`"]),
        Case::refused(
            "an index of 16 MiB of zeros",
            &["settings", "expected value", INDEX],
            sparse_file(INDEX, Vec::new(), 16 << 20),
            open,
        ),
        Case::refused(
            "an index longer than the limit",
            &["settings", "at most 16777216 bytes of JSON", INDEX],
            sparse_file(INDEX, Vec::new(), (16 << 20) + 1),
            open,
        ),
        index("an index of 200,000 tensors", many, &["settings", "would take", "bytes of memory"]),
        accepted("a size that is Python's NaN", good.replace("12", "NaN"), "metadata is not read"),
        accepted("lists nested 100,000 times in the metadata", deeper, "metadata is not read"),
        accepted("a size below zero", good.replace("12", "-1"), "metadata is not read"),
        accepted("a byte-order mark", format!("\u{feff}{good}"), "a byte-order mark is skipped"),
    ]
}

/// Names of shards that are more than a file name, or that no file has.
fn names_of_shards() -> Vec<Case> {
    let outside = &["shard name", "the plain name of a file in the same folder", "points outside its folder"];
    let long = "x".repeat(5000);
    vec![
        pointing("a shard in the folder above", "../secret.safetensors", outside),
        pointing("a shard in a folder below", "deep/m.safetensors", outside),
        pointing("a shard above by way of a folder", "deep/../../secret.safetensors", outside),
        pointing("a shard above as on Windows", r"..\secret.safetensors", outside),
        pointing("a shard on a drive", "C:secret.safetensors", outside),
        pointing("a shard by its absolute path", "/etc/passwd", outside),
        pointing("a shard that is the folder", ".", outside),
        pointing("a shard that is the folder above", "..", outside),
        pointing("a shard without a name", "", outside),
        pointing("a shard with a zero byte", "m\0.safetensors", outside),
        pointing(
            "a shard that does not exist",
            "m-00003.safetensors",
            &["m-00003.safetensors", "get the missing file"],
        ),
        pointing("a shard whose name clears the terminal", "m\u{1b}[2J.safetensors", &["shard"]),
        pointing("a shard whose name forges a line", "m\nerror: all is well", &["shard"]),
        pointing("a shard with a name of 5000 bytes", &long, &["shard"]),
        // The first bytes of the index are no length of a header.
        pointing("a shard that is the index", INDEX, &["length of the safetensors header"]),
    ]
}

/// Maps that do not agree with the shards.
fn places_of_tensors() -> Vec<Case> {
    let again = "the index and the files do not belong together";
    let long = "x".repeat(100_000);
    vec![
        index(
            "a tensor in another shard",
            index_of(&[("a", ONE), ("b", TWO), ("c", TWO)]),
            &["place of tensor `b`", "got it in `m-00001-of-00002.safetensors`", again],
        ),
        index("a tensor that no map lists", index_of(&MAP[1..]), &["place of tensor `a`", "expected it in no shard"]),
        index(
            "a tensor that no shard has",
            index_of(&[("a", ONE), ("b", ONE), ("c", TWO), ("d", TWO)]),
            &["place of tensor `d`", "got it nowhere", again],
        ),
        index(
            "a tensor whose name clears the terminal",
            index_of(&[("a", ONE), ("b", ONE), ("c", TWO), ("d\u{1b}[2J", TWO)]),
            &["place of tensor `d\\u{1b}[2J`", "got it nowhere"],
        ),
        index(
            "a tensor with a name of 100,000 bytes",
            index_of(&[("a", ONE), ("b", ONE), ("c", TWO), (&long, TWO)]),
            &["place of tensor `xxx", "got it nowhere"],
        ),
    ]
}

/// Shards that are damaged or missing.
fn shards() -> Vec<Case> {
    vec![
        changed(
            "a shard that is a folder",
            |place| {
                fs::remove_file(place.join(TWO)).expect("removed");
                fs::create_dir(place.join(TWO)).expect("a folder");
            },
            &[TWO, "expected a file, got a folder"],
        ),
        changed("an empty shard", |place| fs::write(place.join(TWO), "").expect("written"), &[TWO, "an empty file"]),
        changed(
            "two shards with one tensor",
            |place| fs::write(place.join(TWO), shard(&["a", "c"])).expect("written"),
            &["place of tensor `a`", "got it in `m-00002-of-00002.safetensors`"],
        ),
    ]
}
