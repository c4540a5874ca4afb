//! Checks of every request before its handler: number at once, host, token, origin and content type.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::access::{Access, COOKIE};
use crate::error::{ApiError, ErrorCode};

/// Largest number of requests at once, without those that are listening to events.
const MOST_REQUESTS: usize = 64;

/// Headers of all responses. The page loads nothing from elsewhere and has no script or style in its text.
pub(crate) const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
         form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// Rules of a server and the number of requests that it takes.
#[derive(Debug)]
pub(crate) struct Guard {
    access: Access,
    requests: Semaphore,
}

impl Guard {
    pub(crate) fn new(access: Access) -> Self {
        Self { access, requests: Semaphore::new(MOST_REQUESTS) }
    }

    /// Checks host, token, origin and content type.
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let host = text(headers, header::HOST).unwrap_or_default();
        match self.access.token() {
            None if !self.access.is_host(host) => {
                let (expected, next) = (format!("one of {}", self.access.hosts()), "open one of these addresses");
                return Err(ApiError::new(ErrorCode::RefusedHost, "the host is not this server", expected, host, next));
            }
            Some(token) if !token.is_in(headers) => return Err(unauthorised()),
            _ => {}
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = text(headers, header::ORIGIN).unwrap_or_default();
            // A proxy before a server with a token may speak https.
            let mut names = ["http://", "https://"].iter().filter_map(|scheme| origin.strip_prefix(scheme));
            let is_own = names.any(|name| name.eq_ignore_ascii_case(host));
            if !is_own {
                let (message, next) = ("a page of another site sent the request", "use the page of this server");
                return Err(ApiError::new(ErrorCode::RefusedOrigin, message, format!("http://{host}"), origin, next));
            }
        }
        check_content_type(request)
    }

    /// Answers `GET /?token=TOKEN` with a cookie. `None` is another request.
    fn log_in(&self, request: &Request) -> Option<Response> {
        let token = self.access.token()?;
        let mut parameters = request.uri().query()?.split('&');
        let given = parameters.find_map(|parameter| parameter.strip_prefix("token="))?;
        if request.method() != Method::GET || request.uri().path() != "/" {
            return None;
        }
        if !token.is(given) {
            return Some(unauthorised().into_response());
        }
        // A token has only characters that a cookie can hold.
        let cookie = format!("{COOKIE}={given}; Path=/; HttpOnly; SameSite=Strict");
        let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, "/".to_owned())];
        Some((StatusCode::SEE_OTHER, headers).into_response())
    }
}

/// Checks a request and passes it on.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = guard.requests.try_acquire() else {
        return too_many(format!("at most {MOST_REQUESTS} requests at once")).into_response();
    };
    if let Some(answer) = guard.log_in(&request) {
        return answer;
    }
    let checked = guard.check(&request);
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The error of a client that asks for more at once than the server does.
pub(crate) fn too_many(expected: impl Into<String>) -> ApiError {
    let (message, next) = ("the server is busy with other requests", "try again in a moment");
    ApiError::new(ErrorCode::TooManyRequests, message, expected, "one more", next)
}

fn unauthorised() -> ApiError {
    let expected = "`Authorization: Bearer TOKEN`, or the cookie of the page";
    let next = "open the address with ?token= that the server printed when it started";
    ApiError::new(ErrorCode::Unauthorised, "the token is missing or wrong", expected, "another or none", next)
}

/// Checks the type of the body of a request that changes something. A form of another site cannot send these types.
fn check_content_type(request: &Request) -> Result<(), ApiError> {
    if request.method().is_safe() {
        return Ok(());
    }
    let expected = if request.uri().path() == "/api/import" { "application/zip" } else { "application/json" };
    let got = text(request.headers(), header::CONTENT_TYPE).unwrap_or("none");
    let essence = got.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let (message, next) = ("the type of the body cannot be used", format!("send `Content-Type: {expected}`"));
    Err(ApiError::new(ErrorCode::UnsupportedType, message, expected, got, next))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
