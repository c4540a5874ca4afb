//! Parameters of the paths of requests.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use fabric::core::image::ContentHash;

use crate::error::ApiError;
use crate::ids::Id;

/// Parameters of a path by name. What is not of its form is not found, and never becomes part of a file's path.
#[derive(Debug)]
pub(crate) struct Segments(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // The error of a parameter that is not UTF-8.
        RawPathParams::from_request_parts(parts, state).await.map(Self).map_err(ApiError::unknown_session)
    }
}

impl Segments {
    pub(crate) fn session(&self) -> Result<Id, ApiError> {
        self.get("session").parse().map_err(|_| ApiError::unknown_session(self.get("session")))
    }

    pub(crate) fn job(&self) -> Result<Id, ApiError> {
        self.get("job").parse().map_err(|_| ApiError::unknown_job(self.get("job")))
    }

    pub(crate) fn image(&self) -> Result<ContentHash, ApiError> {
        self.get("image").parse().map_err(|_| ApiError::unknown_image(self.get("image")))
    }

    /// Index of an image of a job.
    pub(crate) fn index(&self) -> Result<usize, ApiError> {
        self.get("index").parse().map_err(|_| ApiError::unknown_image(self.get("index")))
    }

    /// Index of a round. What is not a number is beyond all rounds, so that the error is that of an unknown round.
    pub(crate) fn round(&self) -> usize {
        self.get("round").parse().unwrap_or(usize::MAX)
    }

    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| *own == name).map_or("", |(_, text)| text)
    }
}
