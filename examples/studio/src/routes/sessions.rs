//! Handlers of sessions: lists, changes, and transfer as zip files.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::{App, run};
use crate::body::{JsonBody, WITH_IMAGES, write_to};
use crate::edits::{NewConditions, NewInitImage, NewSession, NewVote, SessionChanges};
use crate::error::ApiError;
use crate::segments::Segments;
use crate::views::SessionView;

/// Size of the parts in which a file is sent, in bytes.
const PART: usize = 64 << 10;

type Answer = Result<Json<SessionView>, ApiError>;

/// Body of a request that has nothing to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoundIndex {
    pub(super) round: usize,
}

pub(super) async fn list(State(studio): App) -> Result<Json<Value>, ApiError> {
    let sessions = run(studio, |shared| Ok(shared.list())).await?;
    Ok(Json(json!({ "sessions": sessions })))
}

pub(super) async fn create(
    State(studio): App,
    JsonBody(new): JsonBody<NewSession>,
) -> Result<(StatusCode, Json<SessionView>), ApiError> {
    let session = run(studio, |shared| shared.create(new)).await?;
    Ok((StatusCode::CREATED, Json(session)))
}

pub(super) async fn show(State(studio): App, segments: Segments) -> Answer {
    let id = segments.session()?;
    run(studio, move |shared| shared.session(id)).await.map(Json)
}

pub(super) async fn patch(
    State(studio): App,
    segments: Segments,
    JsonBody(changes): JsonBody<SessionChanges>,
) -> Answer {
    let id = segments.session()?;
    run(studio, move |shared| shared.patch(id, changes)).await.map(Json)
}

pub(super) async fn delete(State(studio): App, segments: Segments) -> Result<StatusCode, ApiError> {
    let id = segments.session()?;
    run(studio, move |shared| shared.delete(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn vote(State(studio): App, segments: Segments, JsonBody(new): JsonBody<NewVote>) -> Answer {
    let id = segments.session()?;
    run(studio, move |shared| shared.vote(id, new)).await.map(Json)
}

pub(super) async fn take_back_votes(State(studio): App, segments: Segments) -> Answer {
    let (id, image) = (segments.session()?, segments.image()?);
    run(studio, move |shared| shared.take_back_votes(id, image)).await.map(Json)
}

pub(super) async fn set_conditions(
    State(studio): App,
    segments: Segments,
    JsonBody(new): JsonBody<NewConditions, WITH_IMAGES>,
) -> Answer {
    let id = segments.session()?;
    run(studio, move |shared| shared.set_conditions(id, &new)).await.map(Json)
}

pub(super) async fn set_init_image(
    State(studio): App,
    segments: Segments,
    JsonBody(new): JsonBody<NewInitImage, WITH_IMAGES>,
) -> Answer {
    let id = segments.session()?;
    run(studio, move |shared| shared.set_init_image(id, &new)).await.map(Json)
}

pub(super) async fn undo(State(studio): App, segments: Segments, _: JsonBody<Nothing>) -> Answer {
    let id = segments.session()?;
    run(studio, move |shared| shared.undo(id)).await.map(Json)
}

pub(super) async fn redo(State(studio): App, segments: Segments, _: JsonBody<Nothing>) -> Answer {
    let id = segments.session()?;
    run(studio, move |shared| shared.redo(id)).await.map(Json)
}

pub(super) async fn branch(
    State(studio): App,
    segments: Segments,
    JsonBody(at): JsonBody<RoundIndex>,
) -> Result<(StatusCode, Json<SessionView>), ApiError> {
    let id = segments.session()?;
    let session = run(studio, move |shared| shared.branch(id, at.round)).await?;
    Ok((StatusCode::CREATED, Json(session)))
}

pub(super) async fn export(State(studio): App, segments: Segments) -> Result<Response, ApiError> {
    let id = segments.session()?;
    let file = run(studio, move |shared| shared.export(id)).await?;
    let parts = stream::unfold(tokio::fs::File::from_std(file), |mut file| async move {
        let mut part = vec![0; PART];
        match file.read(&mut part).await {
            Ok(0) => None,
            Ok(read) => {
                part.truncate(read);
                Some((Ok(part), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let name = format!("attachment; filename=\"{id}.zip\"");
    let headers = [(header::CONTENT_TYPE, "application/zip".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(parts)).into_response())
}

pub(super) async fn import(State(studio): App, request: Request) -> Result<(StatusCode, Json<SessionView>), ApiError> {
    // The file has no name, so that it is gone with the process.
    let file = run(studio.clone(), |shared| {
        let file = tempfile::tempfile_in(shared.sessions.folder());
        file.map_err(|error| ApiError::storage("the zip file cannot be kept", error))
    })
    .await?;
    let file = write_to(file, request).await?;
    let session = run(studio, move |shared| shared.import(file)).await?;
    Ok((StatusCode::CREATED, Json(session)))
}
