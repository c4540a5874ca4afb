//! Requests that cannot be answered: each has its code, and changes nothing.

use axum::body::Body;
use serde_json::json;

use crate::harness::{Server, images, in_base64, request};

const NONE: &str = "0123456789abcdef";

#[tokio::test]
async fn bodies_that_are_no_json_objects_are_told_from_bad_fields() {
    let server = Server::new();
    for body in ["{", "{\"prompt\": }", "nothing", "\u{feff}{}", "{\"prompt\": \"a\"} {}"] {
        server.send(request("POST", "/api/sessions", body)).await.is_error(400, "bad_json");
    }
    for body in [
        "",
        "{}",
        "[]",
        "[\"a star\"]",
        "null",
        "\"a star\"",
        "{\"prompt\": 1}",
        "{\"prompt\": \"a\", \"promptt\": \"b\"}",
        "{\"prompt\": \"a\", \"seed\": -1}",
        "{\"prompt\": \"a\", \"seed\": 0.5}",
    ] {
        server.send(request("POST", "/api/sessions", body)).await.is_error(400, "bad_request");
    }
    let long = "x".repeat(70_000);
    server.post("/api/sessions", json!({"prompt": long})).await.is_error(400, "bad_request");
    server.post("/api/sessions", json!({"prompt": "", "title": long})).await.is_error(400, "bad_request");
    assert_eq!(server.get("/api/sessions").await.expect(200)["sessions"], json!([]));
    assert!(server.names().is_empty(), "{:?}", server.names());
}

#[tokio::test]
async fn values_out_of_range_are_refused() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let image = images(&session, 0)[0].clone();
    for images in [0, 9, 1_000_000] {
        server.post(&format!("{path}/rounds"), json!({"images": images})).await.is_error(400, "bad_request");
    }
    for (strength, reason) in [(json!(1.5), json!(null)), (json!("1"), json!(null)), (json!(1), json!("size"))] {
        let vote = json!({"image": image, "strength": strength, "reason": reason});
        server.post(&format!("{path}/votes"), vote).await.is_error(400, "bad_request");
    }
    let wordless = json!({"image": image, "strength": 1, "reason": {"words": " "}});
    server.post(&format!("{path}/votes"), wordless).await.is_error(400, "bad_request");
    let hash = json!({"hash": image});
    for condition in [
        json!({"image": hash, "scale": -1}),
        json!({"image": hash, "window": [0.5, 0.2]}),
        json!({"image": hash, "window": [0.5]}),
        json!({"image": {"hash": image, "data": ""}}),
        json!({"image": {"path": "/etc/passwd"}}),
        json!({"image": {"hash": "../x"}}),
    ] {
        let conditions = json!({"conditions": [condition]});
        server.put(&format!("{path}/conditions"), conditions).await.is_error(400, "bad_request");
    }
    let many = json!({"conditions": vec![json!({"image": hash}); 65]});
    server.put(&format!("{path}/conditions"), many).await.is_error(400, "bad_request");
    let init_image = json!({"init_image": {"image": hash, "strength": 2}});
    server.put(&format!("{path}/init_image"), init_image).await.is_error(400, "bad_request");
    for settings in [json!({"steps": 0}), json!({"stepz": 2}), json!([]), json!({"guidance_scale": "high"})] {
        server.patch(&path, json!({"settings": settings})).await.is_error(422, "bad_setting");
        let body = json!({"prompt": "a star", "settings": settings});
        server.post("/api/sessions", body).await.is_error(422, "bad_setting");
    }
    assert_eq!(server.get(&path).await.expect(200), session);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_never_a_path() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let image = &images(&session, 0)[0];
    for id in [NONE, "0", "..%2f..%2fetc", "%2e%2e", "ABCDEF0123456789", "0123456789abcdef0", "%ff"] {
        server.get(&format!("/api/sessions/{id}")).await.is_error(404, "unknown_session");
        server.delete(&format!("/api/sessions/{id}")).await.is_error(404, "unknown_session");
        server.get(&format!("/api/sessions/{id}/images/{image}")).await.is_error(404, "unknown_session");
        server.get(&format!("/api/sessions/{id}/export")).await.is_error(404, "unknown_session");
    }
    for job in [NONE, "0", "x"] {
        server.get(&format!("/api/jobs/{job}")).await.is_error(404, "unknown_job");
        server.delete(&format!("/api/jobs/{job}")).await.is_error(404, "unknown_job");
        server.get(&format!("/api/jobs/{job}/events")).await.is_error(404, "unknown_job");
    }
    let none = "0".repeat(64);
    for hash in [none.as_str(), "..%2fsession", "session.json", &image[1..], &image.to_uppercase()] {
        server.get(&format!("{path}/images/{hash}")).await.is_error(404, "unknown_image");
        server.delete(&format!("{path}/votes/{hash}")).await.is_error(404, "unknown_image");
    }
    let vote = json!({"image": none, "strength": 1});
    server.post(&format!("{path}/votes"), vote).await.is_error(404, "unknown_image");
    for round in ["1", "-1", "x", "18446744073709551616"] {
        server.get(&format!("{path}/rounds/{round}/attention")).await.is_error(404, "unknown_round");
        server.get(&format!("{path}/rounds/{round}/timeline")).await.is_error(404, "unknown_round");
    }
    let empty = server.session(2).await;
    server.get(&format!("{empty}/sheet")).await.is_error(404, "unknown_round");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_json() {
    let server = Server::new();
    for path in ["/api", "/api/", "/api/nothing", "/api/sessions/", "/../Cargo.toml", "/page/app.js", "/src/lib.rs"] {
        server.get(path).await.is_error(404, "bad_request");
    }
    let answer = server.put("/api/sessions", json!({})).await;
    answer.is_error(405, "bad_request");
    assert_eq!(answer.header("allow"), "GET,HEAD,POST");
    server.send(request("OPTIONS", "/api/model", Body::empty())).await.is_error(405, "bad_request");
}

#[tokio::test]
async fn bodies_that_are_too_long_are_refused() {
    let server = Server::new();
    let path = server.session(1).await;
    let long = "x".repeat(1 << 20);
    server.post("/api/sessions", json!({"prompt": long})).await.is_error(413, "too_large");
    // Bodies with images may be longer.
    let conditions = json!({"conditions": [{"image": {"data": long}}]});
    server.put(&format!("{path}/conditions"), conditions).await.is_error(422, "broken_image");
    let longer = "x".repeat(24 << 20);
    server.put(&format!("{path}/conditions"), json!({"conditions": [], "x": longer})).await.is_error(413, "too_large");
    // A length alone is enough, so that nothing is sent in vain.
    let mut announced = request("POST", "/api/sessions", "{}");
    announced.headers_mut().insert("content-length", "2000000".parse().expect("a header"));
    server.send(announced).await.is_error(413, "too_large");
}

#[tokio::test]
async fn images_that_cannot_be_read_are_refused() {
    let server = Server::new();
    let path = server.session(1).await;
    // The beginning of a PNG file that says it has 65535x65535 pixels.
    let mut huge = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0".to_vec();
    huge.extend([0; 4]);
    for data in ["!", "data:image/png;base64,AAAA", &in_base64(b"no image"), &in_base64(&huge), ""] {
        let conditions = json!({"conditions": [{"image": {"data": data}}]});
        server.put(&format!("{path}/conditions"), conditions).await.is_error(422, "broken_image");
        let init_image = json!({"init_image": {"image": {"data": data}, "strength": 0.5}});
        server.put(&format!("{path}/init_image"), init_image).await.is_error(422, "broken_image");
    }
    assert_eq!(server.get(&path).await.expect(200)["can_undo"], false);
}
