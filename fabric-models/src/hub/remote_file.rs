//! Description of a file on the hub, from the headers of an answer.

use fabric_core::InvalidValue;
use ureq::Body;
use ureq::http::Response;

use super::client::header;
use super::names::quoted;

/// Header with the size of a file that is stored on another server.
pub(super) const LINKED_SIZE: &str = "x-linked-size";

/// Header with the `ETag` of a file that is stored on another server.
pub(super) const LINKED_ETAG: &str = "x-linked-etag";

/// Header with the commit that a file belongs to.
const REPO_COMMIT: &str = "x-repo-commit";

/// Longest accepted `ETag`; a SHA-256 has 64 characters.
const MAX_ETAG: usize = 128;

/// File on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Path in the model's folder.
    pub(super) path: String,
    /// Identifier of the content: for large files its SHA-256, for others its git hash. It is a plain file name.
    pub(super) etag: String,
    /// Size in bytes.
    pub(super) bytes: u64,
}

impl RemoteFile {
    /// Reads the headers of an answer, which are untrusted.
    pub(super) fn from_answer(path: &str, commit: &str, answer: &Response<Body>) -> Result<Self, InvalidValue> {
        let next = "the server is not a hub, or a hostile one: check its address (the variable HF_ENDPOINT)";
        if let Some(got) = header(answer, REPO_COMMIT).filter(|got| *got != commit) {
            return Err(InvalidValue::new("commit of the file", quoted(got), commit, next));
        }
        let etag = header(answer, LINKED_ETAG).or_else(|| header(answer, "etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if etag.is_empty() || etag.len() > MAX_ETAG || !etag.chars().all(is_allowed) {
            let expected = format!("1 to {MAX_ETAG} letters, digits, `-` and `_`");
            return Err(InvalidValue::new("`ETag` of the file", quoted(etag), expected, next));
        }
        // The length of a redirect is not that of the file.
        let length = || header(answer, "content-length").filter(|_| answer.status().is_success());
        let size = header(answer, LINKED_SIZE).or_else(length).unwrap_or_default();
        match size.parse() {
            Ok(bytes) => Ok(Self { path: path.to_owned(), etag: etag.to_owned(), bytes }),
            Err(_) => Err(InvalidValue::new("size of the file", quoted(size), "a number of bytes", next)),
        }
    }

    /// SHA-256 of the content in hexadecimal digits, if the hub gives it.
    pub(super) fn sha256(&self) -> Option<String> {
        let is_sha256 = self.etag.len() == 64 && self.etag.chars().all(|c| c.is_ascii_hexdigit());
        is_sha256.then(|| self.etag.to_ascii_lowercase())
    }
}
