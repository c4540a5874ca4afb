//! Handlers of jobs: rounds, comparisons, their events and images.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::sessions::RoundIndex;
use super::{App, images, png, run};
use crate::body::JsonBody;
use crate::error::ApiError;
use crate::guard::too_many;
use crate::job::{JobImage, JobView};
use crate::segments::Segments;
use crate::studio::MOST_STREAMS;

/// Interval of the comments that keep a stream of events alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRound {
    images: usize,
}

type Accepted = Result<(StatusCode, Json<JobView>), ApiError>;

pub(super) async fn round(State(studio): App, segments: Segments, JsonBody(new): JsonBody<NewRound>) -> Accepted {
    let id = segments.session()?;
    let job = run(studio, move |shared| shared.start_round(id, new.images)).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

pub(super) async fn compare(State(studio): App, segments: Segments, JsonBody(at): JsonBody<RoundIndex>) -> Accepted {
    let id = segments.session()?;
    let job = run(studio, move |shared| shared.start_comparison(id, at.round)).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

pub(super) async fn show(State(studio): App, segments: Segments) -> Result<Json<JobView>, ApiError> {
    Ok(Json(studio.shared().jobs.get(segments.job()?)?.view()))
}

pub(super) async fn cancel(State(studio): App, segments: Segments) -> Accepted {
    let job = studio.shared().jobs.cancel(segments.job()?)?;
    Ok((StatusCode::ACCEPTED, Json(job.view())))
}

pub(super) async fn events(State(studio): App, segments: Segments) -> Result<Response, ApiError> {
    let shared = studio.shared();
    let job = shared.jobs.get(segments.job()?)?;
    let permit = shared.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| too_many(format!("at most {MOST_STREAMS} streams of events at once")))?;
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(crate::events::events(&job, permit)).keep_alive(keep_alive).into_response())
}

pub(super) async fn image(State(studio): App, segments: Segments) -> Result<Response, ApiError> {
    let (job, index) = (studio.shared().jobs.get(segments.job()?)?, segments.index()?);
    let image = job.progress().images.get(index).cloned().ok_or_else(|| ApiError::unknown_image(index))?;
    match image {
        JobImage::Png(file) => Ok(png(file, "no-store")),
        JobImage::Saved(hash) => images::saved(studio, job.session, hash).await,
        JobImage::Decoded(image) => {
            let file = run(studio, move |_| image.to_png_bytes().map_err(ApiError::internal)).await?;
            Ok(png(file, "no-store"))
        }
    }
}

/// The newest preview of an image. The step of the address only tells browsers that it is another one.
pub(super) async fn preview(State(studio): App, segments: Segments) -> Result<Response, ApiError> {
    let (job, index) = (studio.shared().jobs.get(segments.job()?)?, segments.index()?);
    let (_, image) = job.progress().previews.remove(&index).ok_or_else(|| ApiError::unknown_image(index))?;
    let file = run(studio, move |_| image.to_png_bytes().map_err(ApiError::internal)).await?;
    Ok(png(file, "no-store"))
}
