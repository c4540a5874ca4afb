//! File of an unfinished download.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::HubError;
use super::remote_file::RemoteFile;
use crate::load::LoadError;

/// Bytes per read call.
pub(super) const BUFFER_BYTES: usize = 1 << 18;

/// File of an unfinished download, with the digest of its content. A file of an earlier attempt is continued.
pub(super) struct PartialFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    digest: Sha256,
}

impl PartialFile {
    /// Opens or creates the file, and reads the content that it has. A file that is too large is emptied.
    pub(super) fn open(path: &Path, expected_bytes: u64) -> Result<Self, LoadError> {
        let io = |error| LoadError::io(path, "open", error);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut partial = Self { path: path.to_owned(), file, bytes: 0, digest: Sha256::new() };
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match partial.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    partial.digest.update(&buffer[..read]);
                    partial.bytes += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::io(path, "read", error)),
            }
        }
        if partial.bytes > expected_bytes {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// Number of bytes that the file has.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends downloaded bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.file.write_all(bytes).map_err(|error| LoadError::io(&self.path, "write", error))?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Removes all content.
    pub(super) fn clear(&mut self) -> Result<(), LoadError> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(|error| LoadError::io(&self.path, "empty", error))?;
        self.bytes = 0;
        self.digest = Sha256::new();
        Ok(())
    }

    /// Removes the file.
    pub(super) fn remove(self) {
        let Self { path, file, .. } = self;
        drop(file);
        // The error that is the reason for this says more than one of removing the file.
        let _ = fs::remove_file(path);
    }

    /// Checks the content and renames the file. A file with other content than announced is removed.
    ///
    /// # Panics
    ///
    /// Panics if the file does not have the size that was announced: the caller downloads all of it first.
    pub(super) fn finish(self, url: &str, announced: &RemoteFile, target: &Path) -> Result<(), HubError> {
        assert_eq!(self.bytes, announced.bytes, "bytes of {}", announced.path);
        let got: String = self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(expected) = announced.sha256().filter(|expected| *expected != got) {
            self.remove();
            return Err(HubError::WrongDigest { url: url.to_owned(), expected, got });
        }
        let Self { path, file, .. } = self;
        file.sync_all().map_err(|error| LoadError::io(&path, "write", error))?;
        drop(file);
        fs::rename(&path, target).map_err(|error| LoadError::io(target, "put the download into place", error))?;
        Ok(())
    }
}
