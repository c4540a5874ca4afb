//! Errors of opening the studio, and those that its HTTP interface answers with.

use std::io;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fabric::core::image::ImageError;
use fabric::core::session::SessionError;
use fabric::core::{Error, InvalidValue};
use fabric::ipadapter::AdapterError;
use fabric::models::ModelError;
use serde::Serialize;
use serde_json::json;

/// Error of opening or serving the studio.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudioError {
    /// An option is invalid, or two of them exclude each other.
    #[error(transparent)]
    Option(#[from] InvalidValue),
    /// The adapter cannot be opened.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The image encoder of the adapter cannot be opened.
    #[error("image encoder of the adapter: {0}")]
    Encoder(#[from] ModelError),
    /// The folder of the sessions cannot be used.
    #[error("folder of the sessions `{place}`: {source}; name one with --folder that can be written to")]
    Folder {
        /// The folder.
        place: String,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Another studio uses the folder of the sessions.
    #[error(
        "folder of the sessions `{place}`: expected one that no other studio uses, got one in use; end the other \
         studio, or name another folder with --folder"
    )]
    InUse {
        /// The folder.
        place: String,
    },
    /// The operating system refused a thread or a connection.
    #[error("the server cannot run: {0}; end other programs, or choose another port with --port")]
    System(#[from] io::Error),
}

/// Code of an error, by which programs tell errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    BadJson,
    BadRequest,
    UnknownSession,
    UnknownJob,
    UnknownImage,
    UnknownRound,
    RefusedOrigin,
    RefusedHost,
    Unauthorised,
    TooLarge,
    UnsupportedType,
    QueueFull,
    TooManyRequests,
    Busy,
    BrokenImage,
    BrokenSession,
    NoAdapter,
    BadSetting,
    Storage,
    Internal,
}

impl ErrorCode {
    fn status(self) -> StatusCode {
        match self {
            Self::BadJson | Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::RefusedOrigin | Self::RefusedHost => StatusCode::FORBIDDEN,
            Self::UnknownSession | Self::UnknownJob | Self::UnknownImage | Self::UnknownRound => StatusCode::NOT_FOUND,
            Self::Busy | Self::NoAdapter => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BrokenImage | Self::BrokenSession | Self::BadSetting => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::QueueFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::Storage | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Error as the interface answers it: what failed, what was expected, what was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}: expected {expected}, got {got}; {next}")]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) expected: String,
    pub(crate) got: String,
    pub(crate) next: String,
}

impl ApiError {
    pub(crate) fn new(
        code: ErrorCode,
        message: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
        next: impl Into<String>,
    ) -> Self {
        // What was found can be long, for instance a prompt.
        let got = got.to_string().chars().take(300).collect();
        Self { code, message: message.into(), expected: expected.into(), got, next: next.into() }
    }

    pub(crate) fn bad_request(
        message: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
        next: impl Into<String>,
    ) -> Self {
        Self::new(ErrorCode::BadRequest, message, expected, got, next)
    }

    /// An error about a value, with another code for each kind of value.
    pub(crate) fn of_value(code: ErrorCode, value: InvalidValue) -> Self {
        let InvalidValue { what, expected, got, help } = value;
        Self::new(code, what, expected, got, help)
    }

    pub(crate) fn unknown_session(got: impl ToString) -> Self {
        let (expected, next) = ("the id of a session", "take one from GET /api/sessions");
        Self::new(ErrorCode::UnknownSession, "there is no such session", expected, got, next)
    }

    pub(crate) fn unknown_job(got: impl ToString) -> Self {
        let (expected, next) = ("the id of a job that is unfinished, or one of the last 64", "start it again");
        Self::new(ErrorCode::UnknownJob, "there is no such job", expected, got, next)
    }

    pub(crate) fn unknown_image(got: impl ToString) -> Self {
        let (expected, next) = ("an image of this session or job", "read the session or job again");
        Self::new(ErrorCode::UnknownImage, "there is no such image", expected, got, next)
    }

    pub(crate) fn unknown_round(got: impl ToString, rounds: usize) -> Self {
        let (expected, next) = match rounds {
            0 => ("a session with rounds".to_owned(), "make a round first"),
            _ => (format!("one of the {rounds} rounds, counted from 0"), "read the session again"),
        };
        Self::new(ErrorCode::UnknownRound, "there is no such round", expected, got, next)
    }

    pub(crate) fn broken_session(got: impl ToString) -> Self {
        let (expected, next) = ("a session folder as the studio saves it", "put the original files back, or delete it");
        Self::new(ErrorCode::BrokenSession, "the session cannot be read", expected, got, next)
    }

    pub(crate) fn storage(doing: &str, error: impl ToString) -> Self {
        let (expected, next) = ("a folder that can be written to", "look at its permissions and the free space");
        Self::new(ErrorCode::Storage, doing, expected, error, next)
    }

    pub(crate) fn internal(error: impl ToString) -> Self {
        let (expected, next) = ("no failure", "try again, and report it if it fails again");
        Self::new(ErrorCode::Internal, "the server failed", expected, error, next)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), axum::Json(json!({ "error": self }))).into_response()
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Condition(value) => Self::of_value(ErrorCode::BadRequest, value),
            SessionError::Strength { got, lowest } => {
                let expected = format!("a number from {lowest} to 1");
                Self::bad_request("strength of a vote", expected, got, "choose one from -1 (dislike) to 1 (like)")
            }
            SessionError::Full { got, expected } => Self::new(
                ErrorCode::TooLarge,
                "the images of the session",
                format!("at most {expected} pixels"),
                got,
                "start another session with the images that you like",
            ),
            SessionError::TooLong { got, expected, .. } | SessionError::TooManyValues { got, expected, .. } => {
                Self::new(
                    ErrorCode::TooLarge,
                    "the history of the session",
                    format!("at most {expected} bytes"),
                    got,
                    "branch off an earlier round, or start another session",
                )
            }
            SessionError::Io { .. } | SessionError::NotLoadable { .. } => {
                Self::storage("the session cannot be saved", error)
            }
            error => Self::broken_session(error),
        }
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let (expected, next) = ("a PNG, JPEG or WebP image", "save it anew, or choose another one");
        Self::new(ErrorCode::BrokenImage, "the image cannot be read", expected, error, next)
    }
}

/// An error of generating. What depends on the request is a setting.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Settings(value) | Error::DeviceLimit(value) => Self::of_value(ErrorCode::BadSetting, value),
            Error::Schedule(_) | Error::Sampler(_) => {
                let (expected, next) = ("settings that the sampler can use", "change the steps or the sampler");
                Self::new(ErrorCode::BadSetting, "the settings do not fit the sampler", expected, error, next)
            }
            Error::Session(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_server_is_told_from_errors_of_the_request() {
        let failure = Error::Backend { doing: "making images".to_owned(), message: "out of memory".to_owned() };
        let error = ApiError::from(failure);
        assert_eq!((error.code, error.code.status().as_u16()), (ErrorCode::Internal, 500));
        assert!(error.got.contains("out of memory"), "{error}");
        assert_eq!(serde_json::to_value(error.code).ok(), Some(json!("internal")));
        let setting = ApiError::from(Error::settings("steps", 0, "1 to 10000", "20 to 50 is usual"));
        let expected = "steps: expected 1 to 10000, got 0; 20 to 50 is usual";
        assert_eq!((setting.code.status().as_u16(), setting.to_string().as_str()), (422, expected));
    }

    #[test]
    fn an_error_quotes_only_the_beginning_of_a_long_value() {
        assert_eq!(ApiError::unknown_session("x".repeat(1 << 20)).got.len(), 300);
    }
}
