//! Handlers of images: those of sessions, contact sheets, the gallery, and how a round was made.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use axum::response::Response;
use fabric::core::image::ContentHash;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, png, run};
use crate::error::ApiError;
use crate::ids::Id;
use crate::segments::Segments;
use crate::studio::{Sort, Studio};
use crate::timeline::Timeline;
use crate::views::AttentionView;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GalleryQuery {
    #[serde(default)]
    sort: Sort,
}

pub(super) async fn gallery(State(studio): App, uri: Uri) -> Result<Json<Value>, ApiError> {
    let Query(query) = Query::<GalleryQuery>::try_from_uri(&uri).map_err(|error| {
        ApiError::bad_request("the query cannot be used", "`sort=rating` or `sort=new`", error, "correct the address")
    })?;
    let images = run(studio, move |shared| Ok(shared.gallery(query.sort))).await?;
    Ok(Json(json!({ "images": images })))
}

pub(super) async fn image(State(studio): App, segments: Segments) -> Result<Response, ApiError> {
    saved(studio, segments.session()?, segments.image()?).await
}

pub(super) async fn sheet(State(studio): App, segments: Segments) -> Result<Response, ApiError> {
    let id = segments.session()?;
    let file = run(studio, move |shared| shared.sheet(id)).await?;
    Ok(png(file, "no-store"))
}

pub(super) async fn attention(State(studio): App, segments: Segments) -> Result<Json<AttentionView>, ApiError> {
    let (id, round) = (segments.session()?, segments.round());
    run(studio, move |shared| shared.attention(id, round)).await.map(Json)
}

pub(super) async fn timeline(State(studio): App, segments: Segments) -> Result<Json<Timeline>, ApiError> {
    let (id, round) = (segments.session()?, segments.round());
    run(studio, move |shared| shared.timeline(id, round)).await.map(Json)
}

/// The file of an image of a session, with its metadata. It never changes, because it is named by its content.
pub(super) async fn saved(studio: Arc<Studio>, session: Id, image: ContentHash) -> Result<Response, ApiError> {
    let sessions = &studio.shared().sessions;
    if !sessions.has(session) {
        return Err(ApiError::unknown_session(session));
    }
    let file = tokio::fs::read(sessions.image_path(session, image)).await;
    let file = file.map_err(|_| ApiError::unknown_image(image))?;
    Ok(png(file, "private, max-age=31536000, immutable"))
}
