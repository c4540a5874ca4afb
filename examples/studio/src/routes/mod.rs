//! The HTTP interface.

mod images;
mod jobs;
mod sessions;

use std::any::Any;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};
use fabric::backends::panic_message;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::access::Access;
use crate::assets::ASSETS;
use crate::error::ApiError;
use crate::guard::{Guard, HEADERS, guard};
use crate::studio::{Shared, Studio};

/// State of all handlers.
type App = State<Arc<Studio>>;

/// Description of the interface.
const OPENAPI: &str = include_str!("../../openapi.json");

/// Returns the paths of the interface, as `openapi.json` has them.
pub fn api_paths() -> Vec<&'static str> {
    routes().into_iter().map(|(path, _)| path).collect()
}

/// Returns the page and the interface of a studio, for a server with these rules of access.
pub fn router(studio: Arc<Studio>, access: Access) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods);
    }
    for asset in &ASSETS {
        router = router.route(asset.path, get(move || async move { asset.response() }));
    }
    let mut router: Router = router
        .method_not_allowed_fallback(refused_method)
        .fallback(unknown_path)
        .with_state(studio)
        .layer(from_fn_with_state(Arc::new(Guard::new(access)), guard))
        .layer(CatchPanicLayer::custom(panicked));
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        router = router.layer(SetResponseHeaderLayer::if_not_present(HeaderName::from_static(name), value));
    }
    router
}

fn routes() -> Vec<(&'static str, MethodRouter<Arc<Studio>>)> {
    vec![
        ("/api/openapi.json", get(openapi)),
        ("/api/model", get(model)),
        ("/api/gallery", get(images::gallery)),
        ("/api/import", post(sessions::import)),
        ("/api/sessions", get(sessions::list).post(sessions::create)),
        ("/api/sessions/{session}", get(sessions::show).patch(sessions::patch).delete(sessions::delete)),
        ("/api/sessions/{session}/rounds", post(jobs::round)),
        ("/api/sessions/{session}/rounds/{round}/attention", get(images::attention)),
        ("/api/sessions/{session}/rounds/{round}/timeline", get(images::timeline)),
        ("/api/sessions/{session}/compare", post(jobs::compare)),
        ("/api/sessions/{session}/votes", post(sessions::vote)),
        ("/api/sessions/{session}/votes/{image}", delete(sessions::take_back_votes)),
        ("/api/sessions/{session}/conditions", put(sessions::set_conditions)),
        ("/api/sessions/{session}/init_image", put(sessions::set_init_image)),
        ("/api/sessions/{session}/undo", post(sessions::undo)),
        ("/api/sessions/{session}/redo", post(sessions::redo)),
        ("/api/sessions/{session}/branch", post(sessions::branch)),
        ("/api/sessions/{session}/images/{image}", get(images::image)),
        ("/api/sessions/{session}/sheet", get(images::sheet)),
        ("/api/sessions/{session}/export", get(sessions::export)),
        ("/api/jobs/{job}", get(jobs::show).delete(jobs::cancel)),
        ("/api/jobs/{job}/events", get(jobs::events)),
        ("/api/jobs/{job}/images/{index}", get(jobs::image)),
        ("/api/jobs/{job}/previews/{index}", get(jobs::preview)),
    ]
}

/// Works on the studio in a thread that may wait for locks and files.
async fn run<T: Send + 'static>(
    studio: Arc<Studio>,
    work: impl FnOnce(&Shared) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let result = tokio::task::spawn_blocking(move || work(studio.shared())).await;
    result.unwrap_or_else(|error| Err(ApiError::internal(error)))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn model(State(studio): App) -> impl IntoResponse {
    Json(studio.shared().model.view(studio.shared().jobs.limit))
}

async fn unknown_path(uri: Uri) -> impl IntoResponse {
    let next = "read GET /api/openapi.json";
    let error = ApiError::bad_request("there is no such path", "a path of the interface", uri.path(), next);
    (StatusCode::NOT_FOUND, error)
}

async fn refused_method(method: Method, uri: Uri) -> impl IntoResponse {
    let (expected, next) = ("a method of the header `Allow`", "read GET /api/openapi.json");
    let error = ApiError::bad_request(format!("the method does not fit {}", uri.path()), expected, method, next);
    (StatusCode::METHOD_NOT_ALLOWED, error)
}

/// Answers a request whose handler panicked.
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    ApiError::internal(panic_message(&*panic)).into_response()
}

/// Returns a PNG file as a response, with a value of `Cache-Control`.
fn png(file: impl Into<axum::body::Body>, cache: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, cache)];
    (headers, file.into()).into_response()
}
