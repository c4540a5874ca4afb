//! Checks of every request: host, origin, token, content type, number at once. And the headers of all answers.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, Request, header};
use futures_util::stream;
use serde_json::json;

use crate::harness::{Answer, HOST, Server, request};

/// A request to list the sessions with one other header.
fn with(name: HeaderName, value: &str) -> Request<Body> {
    let mut request = request("GET", "/api/sessions", Body::empty());
    request.headers_mut().insert(name, value.parse().expect("a header"));
    request
}

#[tokio::test]
async fn only_names_of_this_machine_are_its_host() {
    let server = Server::new();
    for host in [HOST, "localhost:7860", "LocalHost:7860", "[::1]:7860"] {
        assert_eq!(server.send(with(header::HOST, host)).await.status, 200, "{host}");
    }
    for host in ["evil.example:7860", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:7860", "127.0.0.1:78601"] {
        server.send(with(header::HOST, host)).await.is_error(403, "refused_host");
    }
    let mut without = request("GET", "/", Body::empty());
    without.headers_mut().remove(header::HOST);
    server.send(without).await.is_error(403, "refused_host");
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let server = Server::new();
    assert_eq!(server.send(with(header::ORIGIN, &format!("http://{HOST}"))).await.status, 200);
    for origin in ["null", "http://evil.example", "http://127.0.0.1:3000", "http://127.0.0.1", "file://", HOST] {
        server.send(with(header::ORIGIN, origin)).await.is_error(403, "refused_origin");
    }
}

#[tokio::test]
async fn a_request_that_changes_something_needs_its_content_type() {
    let server = Server::new();
    let path = server.session(1).await;
    let typed = |method: &str, path: &str, kind: Option<&str>| {
        let mut request = request(method, path, "{}");
        request.headers_mut().remove(header::CONTENT_TYPE);
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().expect("a header"));
        }
        request
    };
    let undo = format!("{path}/undo");
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")] {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            for path in ["/api/sessions", &path, &undo] {
                server.send(typed(method, path, kind)).await.is_error(415, "unsupported_type");
            }
        }
    }
    server.send(typed("POST", "/api/import", Some("application/json"))).await.is_error(415, "unsupported_type");
    assert_eq!(server.send(typed("POST", &undo, Some("Application/JSON; charset=utf-8"))).await.status, 200);
    assert_eq!(server.send(typed("GET", &path, None)).await.status, 200);
}

#[tokio::test]
async fn with_a_token_every_request_needs_it() {
    let server = Server::with_token("s3cret");
    for path in ["/", "/app.js", "/api/model", "/api/sessions", "/?token=wrong", "/?token=", "/app.js?token=s3cret"] {
        server.get(path).await.is_error(401, "unauthorised");
    }
    assert_eq!(server.send(with(header::AUTHORIZATION, "Bearer s3cret")).await.status, 200);
    server.send(with(header::AUTHORIZATION, "Bearer s3cret2")).await.is_error(401, "unauthorised");

    let answer = server.get("/?token=s3cret").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/"));
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().expect("a cookie").to_owned();
    // Behind a proxy the server has another name, and may be reached by https.
    let mut page = with(header::COOKIE, &pair);
    page.headers_mut().insert(header::HOST, "studio.example".parse().expect("a header"));
    page.headers_mut().insert(header::ORIGIN, "https://studio.example".parse().expect("a header"));
    assert_eq!(server.send(page).await.status, 200);
    let mut other = with(header::COOKIE, &pair);
    other.headers_mut().insert(header::ORIGIN, "https://evil.example".parse().expect("a header"));
    server.send(other).await.is_error(403, "refused_origin");
}

#[tokio::test]
async fn all_answers_have_headers_that_keep_the_page_to_itself() {
    let server = Server::new();
    let has_them = |answer: &Answer| {
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
    };
    for path in ["/", "/style.css", "/icon.svg", "/app.js", "/api/model", "/api/nothing", "/favicon.ico"] {
        has_them(&server.get(path).await);
    }
    has_them(&server.send(with(header::HOST, "evil.example")).await);
    let page = server.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    for inline in ["<style", " style=", " onclick=", "javascript:"] {
        assert!(!page.text().contains(inline), "the policy forbids {inline}");
    }
    assert_eq!(server.get("/app.js").await.header("content-type"), "text/javascript; charset=utf-8");
}

#[tokio::test]
async fn of_more_than_64_requests_at_once_the_last_are_refused() {
    let server = Server::new();
    let waiting = || {
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        tokio::spawn(tower::ServiceExt::oneshot(server.router.clone(), request("POST", "/api/sessions", body)))
    };
    let requests: Vec<_> = (0..64).map(|_| waiting()).collect();
    // All of them are polled before this task goes on.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    server.post("/api/sessions", json!({"prompt": "a star"})).await.is_error(429, "too_many_requests");
    for request in requests {
        request.abort();
        assert!(request.await.is_err_and(|error| error.is_cancelled()));
    }
    server.post("/api/sessions", json!({"prompt": "a star"})).await.expect(201);
}
