//! The cache on disk, in the layout that the hub documents for all its tools.
//!
//! ```text
//! models--OWNER--NAME/refs/REVISION             hash of the commit
//! models--OWNER--NAME/blobs/ETAG                content of a file
//! models--OWNER--NAME/snapshots/COMMIT/PATH     link to the content
//! .locks/models--OWNER--NAME/ETAG.lock          locked while the content is downloaded
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
#[cfg(unix)]
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::names::{ModelName, is_commit};
use crate::load::{LoadError, Partial, write_text};

/// Folder of one model in the cache. All names that it gets were checked before.
#[derive(Debug)]
pub(super) struct ModelCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, model: &ModelName) -> Self {
        let name = model.folder_name();
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Path of the content with this `ETag`.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Path of an unfinished download. An `ETag` has no dot, so it differs from those of all contents.
    pub(super) fn partial(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.partial"))
    }

    /// Waits until no thread or process downloads this content, and keeps others from it until the result is dropped.
    /// Creates the folder of contents.
    pub(super) fn lock(&self, etag: &str) -> Result<File, LoadError> {
        make_folder(&self.locks)?;
        make_folder(&self.folder.join("blobs"))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::options().read(true).append(true).create(true).open(&path);
        let file = file.map_err(|error| LoadError::io(&path, "open", error))?;
        // Some network file systems have no locks. Without one, two downloads write the same bytes to the same places.
        let _ = file.lock();
        Ok(file)
    }

    /// Links a content to a path in the folder of a commit.
    pub(super) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<(), LoadError> {
        let link = self.snapshot(commit).join(path);
        make_folder(link.parent().unwrap_or(&self.folder))?;
        let partial = Partial::beside(&link)?;
        // Relative, so that the cache can be moved. The link is in `snapshots`, the commit, and the folders of `path`.
        let target = format!("{}blobs/{etag}", "../".repeat(path.split('/').count() + 1));
        let blob = self.blob(etag);
        symlink(Path::new(&target), partial.path())
            .or_else(|_| fs::hard_link(&blob, partial.path()))
            .or_else(|_| fs::copy(&blob, partial.path()).map(drop))
            .map_err(|error| LoadError::io(&link, "link it to the cache", error))?;
        partial.rename(&link)
    }

    /// Commit that a revision named when it was last fetched.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.reference(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Stores the commit that a revision names.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), LoadError> {
        if self.commit(revision).is_some_and(|stored| stored == commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        make_folder(path.parent().unwrap_or(&self.folder))?;
        write_text(&path, commit)
    }

    /// Paths of the files of a commit that are in the cache: those in its folder and in the folders of components.
    pub(super) fn files(&self, commit: &str) -> BTreeSet<String> {
        let snapshot = self.snapshot(commit);
        let mut files = BTreeSet::new();
        for name in names_in(&snapshot) {
            let path = snapshot.join(&name);
            if path.is_dir() {
                let inner = names_in(&path).into_iter().filter(|inner| path.join(inner).is_file());
                files.extend(inner.map(|inner| format!("{name}/{inner}")));
            } else if path.is_file() {
                files.insert(name);
            }
        }
        files
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }
}

/// Names in a folder; none if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default()
}

fn make_folder(folder: &Path) -> Result<(), LoadError> {
    fs::create_dir_all(folder).map_err(|error| LoadError::io(folder, "make the folder", error))
}

/// Symbolic links of other systems may need a privilege; hard links do not.
#[cfg(not(unix))]
fn symlink(_target: &Path, _link: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
