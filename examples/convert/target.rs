//! Files and folders that are written under a temporary name and moved into place, without replacing anything.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tempfile::{TempDir, TempPath};

/// Checks that nothing exists at a path to write to.
pub(super) fn check_free(target: &Path) -> Result<(), Box<dyn Error>> {
    // Links are not followed: one to a missing file would be replaced, too.
    let got = match target.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => error.to_string(),
        Ok(metadata) if metadata.is_dir() => "a folder".to_owned(),
        Ok(_) => "a file".to_owned(),
    };
    let expected = "expected a path at which nothing exists";
    Err(format!("{}: {expected}, got {got}; choose another one, or remove it first", target.display()).into())
}

/// Checks that nothing exists at the path of a safetensors file to write, and that it ends with `.safetensors`.
pub(super) fn check_safetensors(target: &Path) -> Result<(), Box<dyn Error>> {
    if !target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
        let got = target.file_name().unwrap_or_default().display();
        let expected = "expected a name that ends with .safetensors";
        return Err(format!("{}: {expected}, got {got}; name the file by its format", target.display()).into());
    }
    check_free(target)
}

/// Temporary folder beside a target, in which a file or folder is written before it is moved to the target. It is
/// removed when dropped.
pub(super) struct Staging {
    folder: TempDir,
    name: OsString,
    target: PathBuf,
}

impl Staging {
    /// Creates the folder, with its parents.
    pub(super) fn beside(target: &Path) -> Result<Self, Box<dyn Error>> {
        let refused = |error: &dyn std::fmt::Display| {
            format!("{}: expected a path that can be written to, got {error}; choose another one", target.display())
        };
        let name = target.file_name().ok_or_else(|| refused(&"no name at its end"))?.to_owned();
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|error| refused(&error))?;
        let folder =
            tempfile::Builder::new().prefix(".convert-").tempdir_in(parent).map_err(|error| refused(&error))?;
        Ok(Self { folder, name, target: target.to_owned() })
    }

    /// Path at which the file or folder is to be written.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Moves what was written to the target, unless something was put there meanwhile.
    pub(super) fn finish(self) -> Result<(), Box<dyn Error>> {
        let written = self.path();
        let moved = if written.is_dir() {
            fs::rename(&written, &self.target)
        } else {
            TempPath::try_from_path(written)
                .and_then(|written| written.persist_noclobber(&self.target).map_err(|error| error.error))
        };
        moved
            .map_err(|error| format!("{}: cannot put the written files into place: {error}", self.target.display()))?;
        Ok(())
    }
}
