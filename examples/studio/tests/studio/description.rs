//! `openapi.json` describes the interface: the same paths and methods, and the fields of the answers.

use std::collections::BTreeSet;

use axum::body::Body;
use fabric_studio::api_paths;
use serde_json::{Value, json};

use crate::harness::{Server, images, request};

/// A path with values for its parameters.
fn filled(path: &str) -> String {
    let (id, hash) = ("0123456789abcdef", "0".repeat(64));
    let path = path.replace("{session}", id).replace("{job}", id).replace("{image}", &hash);
    path.replace("{round}", "0").replace("{index}", "0")
}

/// The methods of a path of the description, in capitals.
fn methods(path: &Value) -> BTreeSet<String> {
    let names = path.as_object().expect("a path").keys().filter(|name| *name != "parameters");
    names.map(|name| name.to_uppercase()).collect()
}

#[tokio::test]
async fn the_description_has_the_paths_and_methods_of_the_server() {
    let server = Server::new();
    let description = server.get("/api/openapi.json").await.expect(200);
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let paths = description["paths"].as_object().expect("paths");
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(described, BTreeSet::from_iter(api_paths()));
    for (path, described) in paths {
        let refused = server.send(request("TRACE", &filled(path), Body::empty())).await;
        refused.is_error(405, "bad_request");
        let allowed = refused.header("allow").split(',').filter(|method| *method != "HEAD").map(str::to_owned);
        assert_eq!(allowed.collect::<BTreeSet<_>>(), methods(described), "{path}");
        for method in methods(described) {
            let answer = server.send(request(&method, &filled(path), Body::empty())).await;
            // What does not exist has a code of its own; an unknown path is a bad request.
            let is_unknown = answer.status == 405 || (answer.status == 404 && answer.text().contains("bad_request"));
            assert!(!is_unknown, "{method} {path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn answers_have_the_fields_of_the_description() {
    let server = Server::new();
    let description = server.get("/api/openapi.json").await.expect(200);
    let is_described = |value: &Value, name: &str| {
        let schema = &description["components"]["schemas"][name]["properties"];
        let keys = |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<BTreeSet<_>>());
        assert!(schema.is_object(), "{name}");
        assert_eq!(keys(value), keys(schema), "{name}");
    };
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let image = json!({"hash": images(&session, 0)[0]});
    let vote = json!({"image": image["hash"], "strength": 1});
    server.post(&format!("{path}/votes"), vote).await.expect(200);
    let init_image = json!({"init_image": {"image": image, "strength": 0.5}});
    server.put(&format!("{path}/init_image"), init_image).await.expect(200);
    let conditions = json!({"conditions": [{"image": image}]});
    let session = server.put(&format!("{path}/conditions"), conditions).await.expect(200);
    is_described(&session, "Session");
    is_described(&session["rounds"][0], "Round");
    is_described(&session["votes"][0], "Vote");
    is_described(&session["conditions"][0], "Condition");
    is_described(&session["init_image"], "InitImage");
    is_described(&server.get("/api/sessions").await.json()["sessions"][0], "ListedSession");
    is_described(&server.get("/api/gallery").await.json()["images"][0], "GalleryImage");
    let model = server.get("/api/model").await.expect(200);
    is_described(&model, "Model");
    is_described(&model["presets"][0], "Preset");
    is_described(&server.get("/api/nothing").await.json(), "Error");
    is_described(&server.get(&format!("{path}/rounds/0/timeline")).await.expect(200), "Timeline");
    server.put(&format!("{path}/conditions"), json!({"conditions": []})).await.expect(200);
    let fabric = json!({"start": 0.0, "end": 1.0, "max_weight": 0.8});
    let settings = json!({"measure_attention": true, "fabric": fabric});
    server.patch(&path, json!({"settings": settings})).await.expect(200);
    server.round(&path, 1).await;
    let attention = server.get(&format!("{path}/rounds/1/attention")).await.expect(200);
    is_described(&attention, "Attention");
    is_described(&attention["references"][0], "ReferenceAttention");
    let job = server.post(&format!("{path}/compare"), json!({"round": 0})).await.expect(202);
    is_described(&job, "Job");
}

#[tokio::test]
async fn presets_keep_what_the_model_recommends() {
    let server = Server::new();
    let model = server.get("/api/model").await.expect(200);
    assert_eq!((&model["name"], &model["width"], &model["height"]), (&json!("world"), &json!(64), &json!(64)));
    assert_eq!((&model["max_images"], &model["queue_limit"]), (&json!(8), &json!(16)));
    let presets = model["presets"].as_array().expect("presets");
    let names: Vec<&str> = presets.iter().filter_map(|preset| preset["name"].as_str()).collect();
    assert_eq!(names, ["official-demo", "official-api", "paper-preference", "paper-target", "web-ui"]);
    for preset in presets {
        let mut settings = preset["settings"].clone();
        settings["fabric"] = model["settings"]["fabric"].clone();
        assert_eq!(settings, model["settings"], "{preset}");
        // Each of them can be used.
        let body = json!({"prompt": "a star", "settings": preset["settings"]});
        let session = server.post("/api/sessions", body).await.expect(201);
        assert_eq!(session["settings"], preset["settings"]);
    }
}
