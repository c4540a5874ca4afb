//! Hashes of the files that the records of a run depend on.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{ExperimentError, PromptSet};

/// File with peft's scaling, which the loader of a LoRA reads beside the LoRA's file.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";

/// File with the checksums of the others, of which model cards are some.
const CHECKSUMS: &str = "SHA256SUMS";

/// A file, with its name in the hash: its path below the model's folder, with `/` between the parts.
type Named = (String, PathBuf);

/// Returns a hash of a model's files: their names and contents.
///
/// Of a model that is one file, the files are hashed too that its loader reads from the same folder: the shards that
/// an index lists, and those in `beside` that exist. Files whose names begin with a dot, model cards (`.md`) and lists of
/// checksums are left out: no loader reads them, and a corrected sentence is not another model.
pub(crate) fn hash_of(model: &Path, beside: &[&str]) -> Result<String, ExperimentError> {
    const DOING: &str = "list the model's files";
    let mut files = if model.is_dir() {
        let mut files = Vec::new();
        collect(model, "", &mut Vec::new(), &mut files).map_err(ExperimentError::io(model, DOING))?;
        files
    } else {
        let mut names: BTreeSet<String> = beside.iter().map(|name| (*name).to_owned()).collect();
        names.retain(|name| model.with_file_name(name).is_file());
        names.extend(shards(model).map_err(ExperimentError::io(model, DOING))?);
        let others = names.into_iter().map(|name| (name.clone(), model.with_file_name(name)));
        [(String::new(), model.to_owned())].into_iter().chain(others).collect()
    };
    files.sort();
    let mut digest = Sha256::new();
    for (name, path) in files {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name.as_bytes());
        hash_file(&path, "read the model's file", &mut digest)?;
    }
    Ok(hex(digest))
}

/// Returns a hash of the prompts and of their target images: what is used of a file, whatever its format.
pub(crate) fn hash_of_prompts(set: &PromptSet) -> Result<String, ExperimentError> {
    let mut digest = Sha256::new();
    for case in &set.prompts {
        // JSON shows where each text ends.
        digest.update(json!([case.prompt, case.negative, case.target.is_some()]).to_string());
        if let Some(target) = &case.target {
            hash_file(target, "read the target image", &mut digest)?;
        }
    }
    Ok(hex(digest))
}

/// Adds the length and the contents of a file to a digest.
fn hash_file(path: &Path, doing: &'static str, digest: &mut Sha256) -> Result<(), ExperimentError> {
    add_file(path, digest).map_err(ExperimentError::io(path, doing))
}

fn add_file(path: &Path, digest: &mut Sha256) -> io::Result<()> {
    let mut file = fs::File::open(path)?;
    digest.update(file.metadata()?.len().to_le_bytes());
    io::copy(&mut file, &mut Writer(digest))?;
    Ok(())
}

/// Returns the first 8 bytes of a digest as hexadecimal digits.
fn hex(digest: Sha256) -> String {
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lists all files below a folder. `above` are the folders that contain it, by their canonical paths, so that links do
/// not lead in circles.
fn collect(folder: &Path, prefix: &str, above: &mut Vec<PathBuf>, files: &mut Vec<Named>) -> io::Result<()> {
    let canonical = folder.canonicalize()?;
    if above.contains(&canonical) {
        return Ok(());
    }
    above.push(canonical);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name.ends_with(".md") || name == CHECKSUMS {
            continue;
        }
        let (path, name) = (entry.path(), format!("{prefix}{name}"));
        if path.is_dir() {
            collect(&path, &format!("{name}/"), above, files)?;
        } else {
            files.push((name, path));
        }
    }
    above.pop();
    Ok(())
}

/// Returns the names of the shards that a file lists, if it is an index of shards. Names that lead out of the folder
/// are left out: the loader refuses them.
fn shards(file: &Path) -> io::Result<BTreeSet<String>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_index = name.ends_with(".json") && (name.contains(".safetensors.index.") || name.contains(".bin.index."));
    if !is_index {
        return Ok(BTreeSet::new());
    }
    let index: Value = serde_json::from_slice(&fs::read(file)?)?;
    let names = index["weight_map"].as_object().into_iter().flat_map(|map| map.values()).filter_map(Value::as_str);
    let is_plain = |name: &&str| !name.is_empty() && *name != "." && *name != ".." && !name.contains(['/', '\\', ':']);
    Ok(names.filter(is_plain).map(str::to_owned).collect())
}

/// Feeds what is written to a digest.
struct Writer<'a>(&'a mut Sha256);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    #[test]
    fn every_name_and_byte_of_a_folder_counts_except_hidden_files_and_cards() {
        let hash = |files: &[(&str, &str)]| {
            let place = tempfile::tempdir().expect("a folder");
            files.iter().for_each(|(name, text)| write(place.path(), name, text));
            hash_of(place.path(), &[]).expect("a hash")
        };
        let first = hash(&[("unet/a", "bc"), ("d", "e")]);
        assert_eq!(hash(&[("d", "e"), ("unet/a", "bc"), (".cache/x", "y"), ("unet/.lock", "")]), first);
        assert_eq!(hash(&[("d", "e"), ("unet/a", "bc"), ("README.md", "y"), (CHECKSUMS, "1 README.md")]), first);
        for other in [
            [("unet/ab", "c"), ("d", "e")],
            [("unet/a", "b"), ("d", "ce")],
            [("vae/a", "bc"), ("d", "e")],
            [("unet/a", "bc"), ("d", "f")],
        ] {
            assert_ne!(hash(&other), first, "{other:?}");
        }
        assert_ne!(hash(&[("unet/a", "bc"), ("d", "e"), ("f", "")]), first);
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_lead_in_circles() {
        let place = tempfile::tempdir().expect("a folder");
        write(place.path(), "unet/a", "b");
        let before = hash_of(place.path(), &[]).expect("a hash");
        std::os::unix::fs::symlink(place.path(), place.path().join("unet/up")).expect("a link");
        assert_eq!(hash_of(place.path(), &[]).expect("a hash"), before);
    }

    #[test]
    fn files_that_a_loader_reads_beside_a_file_count() {
        let place = tempfile::tempdir().expect("a folder");
        let lora = place.path().join("adapter_model.safetensors");
        write(place.path(), "adapter_model.safetensors", "l");
        let hash = || hash_of(&lora, &[ADAPTER_CONFIG]).expect("a hash");
        let without = hash();
        write(place.path(), ADAPTER_CONFIG, "{}");
        assert_ne!(hash(), without);
        write(place.path(), "other", "unused");
        let with = hash();
        write(place.path(), ADAPTER_CONFIG, "{ }");
        assert_ne!(hash(), with);

        write(place.path(), "m.safetensors.index.json", r#"{"weight_map": {"a": "1.safetensors", "b": "../x"}}"#);
        write(place.path(), "1.safetensors", "one");
        let index = place.path().join("m.safetensors.index.json");
        let before = hash_of(&index, &[]).expect("a hash");
        write(place.path(), "1.safetensors", "two");
        assert_ne!(hash_of(&index, &[]).expect("a hash"), before);
        fs::remove_file(place.path().join("1.safetensors")).expect("removed");
        assert!(hash_of(&index, &[]).expect_err("a missing shard").to_string().contains("1.safetensors"));
    }
}
