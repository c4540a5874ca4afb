//! Bodies of requests: JSON objects and files, of limited length.

use std::fs::File;
use std::io::Seek;
use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::AsyncWriteExt;

use crate::error::{ApiError, ErrorCode};

/// Largest JSON body in bytes.
pub(crate) const SMALL: u64 = 1 << 20;

/// Largest JSON body with images in bytes.
pub(crate) const WITH_IMAGES: u64 = 24 << 20;

/// Largest zip file in bytes.
const ZIP: u64 = 512 << 20;

/// Longest wait for the next part of a body.
const PATIENCE: Duration = Duration::from_secs(60);

/// A JSON object of at most `LIMIT` bytes. An empty body is an empty object.
#[derive(Debug)]
pub(crate) struct JsonBody<T, const LIMIT: u64 = SMALL>(pub(crate) T);

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync, const LIMIT: u64> FromRequest<S> for JsonBody<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let mut chunks = Chunks::new(request, LIMIT)?;
        let mut text = Vec::new();
        while let Some(chunk) = chunks.next().await? {
            text.extend_from_slice(&chunk);
        }
        // Parsing images in base64 takes long enough to hold up other requests.
        let parsed = tokio::task::spawn_blocking(move || parse(&text)).await;
        parsed.unwrap_or_else(|error| Err(ApiError::internal(error))).map(Self)
    }
}

/// Writes the body of a request, a zip file, to an empty file and goes back to its beginning.
pub(crate) async fn write_to(file: File, request: Request) -> Result<File, ApiError> {
    let failed = |error| ApiError::storage("the zip file cannot be kept", error);
    let mut chunks = Chunks::new(request, ZIP)?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(chunk) = chunks.next().await? {
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let mut file = file.into_std().await;
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// Parts of a body, until it ends or exceeds its limit.
struct Chunks {
    stream: BodyDataStream,
    read: u64,
    limit: u64,
}

impl Chunks {
    fn new(request: Request, limit: u64) -> Result<Self, ApiError> {
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        check_length(length.unwrap_or_default(), limit)?;
        Ok(Self { stream: request.into_body().into_data_stream(), read: 0, limit })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let stopped = |got: String| {
            ApiError::bad_request("the body of the request ended early", "all of it", got, "send the request again")
        };
        let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
        let next = next.map_err(|_| stopped(format!("nothing for {} s", PATIENCE.as_secs())))?;
        let Some(chunk) = next.transpose().map_err(|error| stopped(error.to_string()))? else { return Ok(None) };
        self.read += chunk.len() as u64;
        check_length(self.read, self.limit)?;
        Ok(Some(chunk))
    }
}

fn check_length(got: u64, limit: u64) -> Result<(), ApiError> {
    if got <= limit {
        return Ok(());
    }
    let (message, expected) = ("the body of the request is too long", format!("at most {limit} bytes"));
    Err(ApiError::new(ErrorCode::TooLarge, message, expected, format!("{got} bytes or more"), "send less"))
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    let text = if text.is_empty() { b"{}".as_slice() } else { text };
    // serde would accept an array as the fields in order.
    let is_object = text.trim_ascii_start().starts_with(b"{");
    let next = "compare it with GET /api/openapi.json";
    match serde_json::from_slice(text) {
        Ok(value) if is_object => Ok(value),
        Ok(_) => Err(ApiError::bad_request("the body cannot be used", "a JSON object", "another JSON value", next)),
        Err(error) => Err(match serde_json::from_slice::<IgnoredAny>(text) {
            Ok(_) => ApiError::bad_request("the body cannot be used", "the fields of the description", error, next),
            Err(error) => ApiError::new(ErrorCode::BadJson, "the body is not JSON", "a JSON object", error, next),
        }),
    }
}
