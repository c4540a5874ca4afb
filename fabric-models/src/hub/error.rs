use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use fabric_core::{InvalidValue, printable, printable_value};

use crate::load::LoadError;

/// Error while fetching a model from a hub.
///
/// Addresses in messages have no query, because those of redirects contain signatures. No message contains the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name of the model or a setting of the client cannot be used.
    #[error(transparent)]
    Settings(#[from] InvalidValue),
    /// No environment variable names a folder for the cache, and there is no home folder.
    #[error(
        "cache of the hub: expected a home folder, got none; set the variable HF_HOME or HF_HUB_CACHE, \
         or use `ModelHub::in_cache`"
    )]
    NoCacheFolder,
    /// A file of the cache cannot be read or written, or the model is of a kind that is not supported.
    #[error(transparent)]
    File(#[from] LoadError),
    /// The connection to the server failed.
    #[error(
        "{url}: expected an answer, got the error `{source}`; check the network and the hub's address \
         (the variable HF_ENDPOINT)",
        url = printable_value(.url), source = printable_value(.source)
    )]
    Unreachable {
        /// Address of the request.
        url: String,
        /// Error of the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server sent nothing for too long. What was downloaded before is kept.
    #[error(
        "{url}: expected an answer within {timeout:?}, got none; fetch the model again, which continues the download, \
         or allow more with `ModelHub::with_timeout`",
        url = printable_value(.url)
    )]
    Timeout {
        /// Address of the request.
        url: String,
        /// Longest time without data from the server.
        timeout: Duration,
    },
    /// The connection was closed in the middle of a file, again and again. What was downloaded before is kept.
    #[error(
        "{url}: expected {expected} bytes, got {got} before the connection failed ({source}); \
         fetch the model again, which continues there",
        url = printable_value(.url), source = printable_value(.source)
    )]
    Interrupted {
        /// Address of the file.
        url: String,
        /// Size of the file in bytes.
        expected: u64,
        /// Bytes received so far.
        got: u64,
        /// Error of the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server requires a token, or does not accept the one that was sent (status 401 or 403).
    #[error(
        "{url}: expected access, got status {status} with {token}; check the model's name, accept the conditions on \
         its page if it has any, and set the variable HF_TOKEN to a token that may read it",
        url = printable_value(.url), token = printable_value(.token)
    )]
    Denied {
        /// Address of the request.
        url: String,
        /// Status of the answer.
        status: u16,
        /// Token of the request and its origin, without the secret: "no token", "the token from `HF_TOKEN`".
        token: String,
    },
    /// The model, the revision or a file does not exist (status 404).
    #[error(
        "{url}: expected a model of this name and revision, got status 404 with {token}; check both, and set the \
         variable HF_TOKEN if the model is private",
        url = printable_value(.url), token = printable_value(.token)
    )]
    NotFound {
        /// Address of the request.
        url: String,
        /// Token of the request and its origin, without the secret.
        token: String,
    },
    /// The server refused the request for another reason.
    #[error(
        "{url}: expected a file or a listing, got status {status}; {}",
        advice(*status), url = printable_value(.url)
    )]
    Status {
        /// Address of the request.
        url: String,
        /// Status of the answer.
        status: u16,
    },
    /// An answer of the server violates the hub's protocol.
    #[error("{url}: {value}", url = printable_value(.url))]
    Answer {
        /// Address of the request.
        url: String,
        /// The part of the answer that is wrong.
        value: InvalidValue,
    },
    /// The server sends a file with another size than it announced.
    #[error(
        "{url}: expected a file of {expected} bytes, got {got}; nothing of it was kept: fetch the model again, or from \
         another server",
        url = printable_value(.url)
    )]
    WrongSize {
        /// Address of the file.
        url: String,
        /// Size that the hub announced.
        expected: u64,
        /// Size of the answer, or the number of bytes after which the download ended.
        got: u64,
    },
    /// The content of a file is not the announced one.
    #[error(
        "{url}: expected content with the SHA-256 {expected}, got {got}; nothing of it was kept: fetch the model \
         again, or from another server",
        url = printable_value(.url), expected = printable(.expected), got = printable(.got)
    )]
    WrongDigest {
        /// Address of the file.
        url: String,
        /// SHA-256 that the hub announced.
        expected: String,
        /// SHA-256 of the download.
        got: String,
    },
    /// The repository lacks files of a model in the diffusers layout.
    #[error("{model}: {value}", model = printable(.model))]
    Incomplete {
        /// Name of the model.
        model: String,
        /// The missing file.
        value: InvalidValue,
    },
    /// The client is offline and the cache does not contain the whole model.
    #[error(
        "{}: expected all files of revision `{revision}`, got fewer while the client is offline; fetch the model once \
         with a network and without HF_HUB_OFFLINE",
        printable_value(folder.display()), revision = printable(.revision)
    )]
    NotInCache {
        /// Folder of the model in the cache.
        folder: PathBuf,
        /// Revision that was asked for.
        revision: String,
    },
    /// The progress callback panicked. What was downloaded before is kept.
    #[error(
        "{file}: the progress callback panicked: {message}; mend the callback, or fetch without one",
        file = printable_value(.file), message = printable_value(.message)
    )]
    Callback {
        /// File that was being downloaded.
        file: String,
        /// Panic message.
        message: String,
    },
}

impl HubError {
    /// Returns whether the hub gave no answer to the request, so that a model in the cache is the best there is.
    pub(super) fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => *status == TOO_MANY_REQUESTS || *status >= 500,
            _ => false,
        }
    }

    /// Returns whether a download ended in the middle of a file and can be continued.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted { .. } | Self::Timeout { .. })
    }
}

const TOO_MANY_REQUESTS: u16 = 429;

fn advice(status: u16) -> &'static str {
    match status {
        TOO_MANY_REQUESTS => "the server limits requests: wait some minutes, or set the variable HF_TOKEN",
        500.. => "the server has a fault: try again later",
        _ => "check the hub's address (the variable HF_ENDPOINT)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};
    use crate::hub::names::{ModelName, check_revision, check_variant};

    #[test]
    fn no_message_hands_a_text_of_a_server_to_the_terminal() {
        for text in hostile_texts() {
            let (name, url) = (|| text.clone(), || "https://hub.test/x".to_owned());
            let source = |text: &str| -> Box<dyn Error + Send + Sync> { text.into() };
            let value = |what: &str, got: &str| InvalidValue::new(what, got, "a number", "use another server");
            let (expected, got, token) = (2, 1, || "no token".to_owned());
            let errors = [
                HubError::Unreachable { url: url(), source: source(&text) },
                HubError::Unreachable { url: name(), source: source("gone") },
                HubError::Timeout { url: name(), timeout: Duration::from_secs(1) },
                HubError::Interrupted { url: url(), expected, got, source: source(&text) },
                HubError::Denied { url: name(), status: 401, token: token() },
                HubError::NotFound { url: name(), token: token() },
                HubError::Status { url: name(), status: 500 },
                HubError::Answer { url: url(), value: value(&text, "1") },
                HubError::Answer { url: url(), value: value("size", &text) },
                HubError::Answer { url: name(), value: value("size", "1") },
                HubError::WrongSize { url: name(), expected, got },
                HubError::WrongDigest { url: url(), expected: name(), got: name() },
                HubError::Incomplete { model: name(), value: value("file", "none") },
                HubError::NotInCache { folder: "x".into(), revision: name() },
                HubError::NotInCache { folder: name().into(), revision: "main".to_owned() },
                HubError::Callback { file: name(), message: "a panic".to_owned() },
                HubError::Settings(ModelName::parse(&text).expect_err("no name")),
                HubError::Settings(check_revision(&text).expect_err("no revision")),
                HubError::Settings(check_variant(&text).expect_err("no variant")),
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }
}
