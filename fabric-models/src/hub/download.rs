//! Downloads of files into the cache.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use fabric_backends::catch_panic;
use fabric_core::InvalidValue;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::address::without_query;
use super::cache::ModelCache;
use super::client::{Client, header};
use super::names::{ModelName, quoted};
use super::partial_file::{BUFFER_BYTES, PartialFile};
use super::progress::HubCallback;
use super::remote_file::RemoteFile;
use super::{HubError, HubProgress};

/// Most times that the download of a file is continued at once after the connection failed.
const MAX_RESUMES: usize = 5;

/// Download of files of one commit.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a ModelCache,
    pub(super) model: &'a ModelName,
    pub(super) commit: &'a str,
}

impl Download<'_> {
    /// Folder with the files of the commit.
    pub(super) fn snapshot(&self) -> PathBuf {
        self.cache.snapshot(self.commit)
    }

    /// Downloads files that are not in the cache.
    pub(super) fn fetch(&self, paths: &[String], callback: Option<&HubCallback>) -> Result<(), HubError> {
        let snapshot = self.snapshot();
        let missing = paths.iter().filter(|path| !snapshot.join(path).is_file());
        let files = missing.map(|path| self.client.describe(self.model, self.commit, path));
        let files: Vec<RemoteFile> = files.collect::<Result<_, _>>()?;
        let total = files.iter().fold(0_u64, |total, file| total.saturating_add(file.bytes));
        let mut progress = Progress { callback, finished: 0, total };
        for file in &files {
            self.fetch_file(file, &progress)?;
            progress.finished += file.bytes;
        }
        Ok(())
    }

    fn fetch_file(&self, file: &RemoteFile, progress: &Progress<'_>) -> Result<(), HubError> {
        let _lock = self.cache.lock(&file.etag)?;
        let blob = self.cache.blob(&file.etag);
        if has_size(&blob, file.bytes) {
            progress.tell(file, file.bytes)?;
        } else {
            self.receive(file, &blob, progress)?;
        }
        Ok(self.cache.link(self.commit, &file.path, &file.etag)?)
    }

    /// Downloads the content of a file, and continues when the connection fails.
    fn receive(&self, file: &RemoteFile, blob: &Path, progress: &Progress<'_>) -> Result<(), HubError> {
        let url = self.client.file_url(self.model, self.commit, &file.path);
        let mut partial = PartialFile::open(&self.cache.partial(&file.etag), file.bytes)?;
        progress.tell(file, partial.bytes())?;
        let mut resumes = 0;
        while partial.bytes() < file.bytes {
            let before = partial.bytes();
            match self.receive_once(&url, file, &mut partial, progress) {
                Err(error) if error.is_interruption() && partial.bytes() > before && resumes < MAX_RESUMES => {
                    resumes += 1;
                }
                Err(error @ HubError::WrongSize { .. }) => {
                    partial.remove();
                    return Err(error);
                }
                result => result?,
            }
        }
        partial.finish(&url, file, blob)
    }

    /// Sends one request for the rest of a file, and appends the answer. Returns an error unless the file is complete.
    fn receive_once(
        &self,
        url: &str,
        file: &RemoteFile,
        partial: &mut PartialFile,
        progress: &Progress<'_>,
    ) -> Result<(), HubError> {
        let answer = self.client.content(url, partial.bytes())?;
        let start = start_of(url, file, &answer, partial.bytes())?;
        if start == 0 && partial.bytes() > 0 {
            partial.clear()?;
        }
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.interrupted(url, file, partial.bytes(), error.into())),
            };
            let got = partial.bytes() + read as u64;
            if got > file.bytes {
                return Err(HubError::WrongSize { url: url.to_owned(), expected: file.bytes, got });
            }
            partial.append(&buffer[..read])?;
            progress.tell(file, got)?;
        }
        if partial.bytes() < file.bytes {
            let end = std::io::Error::new(ErrorKind::UnexpectedEof, "the answer ended");
            return Err(self.interrupted(url, file, partial.bytes(), end.into()));
        }
        Ok(())
    }

    fn interrupted(&self, url: &str, file: &RemoteFile, got: u64, error: ureq::Error) -> HubError {
        match error {
            ureq::Error::Timeout(_) => self.client.failed(url, error),
            error => HubError::Interrupted { url: url.to_owned(), expected: file.bytes, got, source: Box::new(error) },
        }
    }
}

/// Returns the position in the file at which an answer begins: `asked`, or 0 if the server sends the whole file.
///
/// # Errors
///
/// Returns an error if the answer begins elsewhere, or is part of a file of another size than announced.
fn start_of(url: &str, file: &RemoteFile, answer: &Response<Body>, asked: u64) -> Result<u64, HubError> {
    let wrong_size = |got| Err(HubError::WrongSize { url: url.to_owned(), expected: file.bytes, got });
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        let length = header(answer, "content-length").and_then(|length| length.parse::<u64>().ok());
        return length.filter(|length| *length != file.bytes).map_or(Ok(0), wrong_size);
    }
    let range = header(answer, "content-range").unwrap_or_default();
    // `bytes 100-199/200`; the total can be `*`.
    let parts = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
    let start = parts.and_then(|(range, _)| range.split_once('-')?.0.parse::<u64>().ok());
    if start != Some(asked) {
        let expected = format!("a range from byte {asked} on");
        let value = InvalidValue::new("`Content-Range` of the file", quoted(range), expected, "use another server");
        return Err(HubError::Answer { url: without_query(url), value });
    }
    let total = parts.and_then(|(_, total)| total.trim().parse::<u64>().ok());
    total.filter(|total| *total != file.bytes).map_or(Ok(asked), wrong_size)
}

/// Returns whether a file of this size exists.
fn has_size(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
}

/// Progress of a fetch.
struct Progress<'a> {
    callback: Option<&'a HubCallback>,
    finished: u64,
    total: u64,
}

impl Progress<'_> {
    /// Tells the callback how many bytes of a file are on disk.
    fn tell(&self, file: &RemoteFile, bytes: u64) -> Result<(), HubError> {
        let Some(callback) = self.callback else { return Ok(()) };
        let progress = HubProgress {
            file: &file.path,
            file_done_bytes: bytes,
            file_total_bytes: file.bytes,
            done_bytes: self.finished.saturating_add(bytes),
            total_bytes: self.total,
        };
        catch_panic(|| callback.tell(&progress))
            .map_err(|message| HubError::Callback { file: file.path.clone(), message })
    }
}
