//! Comparison of folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns all files below a folder, by their paths in it.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(one) = folders.pop() {
        for entry in fs::read_dir(&one).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("a path in the folder").to_owned();
                all.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    all
}

/// Checks that two folders have the same files with the same bytes.
#[track_caller]
pub(crate) fn assert_same_files(mine: &BTreeMap<PathBuf, Vec<u8>>, other: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(mine.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in mine {
        assert!(other[name] == *bytes, "{} differs", name.display());
    }
}
