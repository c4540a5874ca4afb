//! A studio in a folder of its own, and requests to it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, Response, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fabric::core::image::Image;
use fabric::core::pipeline::Pipeline;
use fabric::models::{ModelOptions, demo_folder, load_model};
use fabric_studio::{Access, Model, Studio, router};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// Name of the server in requests.
pub(crate) const HOST: &str = "127.0.0.1:7860";

/// Steps of a round that does not end by itself during a test.
const ENDLESS: usize = 900;

/// A studio without an adapter, in a temporary folder.
pub(crate) struct Server {
    pub(crate) studio: Arc<Studio>,
    pub(crate) router: Router,
    folder: TempDir,
}

/// The model that ships, loaded once.
pub(crate) fn model() -> Model {
    static PIPELINE: OnceLock<Pipeline> = OnceLock::new();
    let pipeline = PIPELINE.get_or_init(|| {
        let device = fabric::default_device().expect("a device");
        load_model(demo_folder().expect("the model ships"), &device, &ModelOptions::default()).expect("a model").0
    });
    Model::new("world", pipeline.clone())
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::open(tempfile::tempdir().expect("a folder"), 16, None)
    }

    pub(crate) fn with_queue(queue: usize) -> Self {
        Self::open(tempfile::tempdir().expect("a folder"), queue, None)
    }

    pub(crate) fn with_token(token: &str) -> Self {
        Self::open(tempfile::tempdir().expect("a folder"), 16, Some(token))
    }

    fn open(folder: TempDir, queue: usize, token: Option<&str>) -> Self {
        let studio = Arc::new(Studio::open(model(), folder.path(), queue).expect("a studio"));
        let access = Access::new(HOST.parse().expect("an address"), token).expect("access");
        Self { router: router(studio.clone(), access), studio, folder }
    }

    /// Ends the studio, changes its folder, and opens it again.
    pub(crate) fn restarted(self, change: impl FnOnce(&Path)) -> Self {
        let Self { studio, router, folder } = self;
        drop((studio, router));
        change(folder.path());
        Self::open(folder, 16, None)
    }

    /// The folder of the sessions.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Names of what is in the folder of the sessions, without the file that locks it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }

    pub(crate) async fn respond(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.expect("an answer")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.respond(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, Body::empty())).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(request("POST", path, body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(request("PUT", path, body.to_string())).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(request("PATCH", path, body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request("DELETE", path, Body::empty())).await
    }

    /// Imports a zip file.
    pub(crate) async fn import(&self, zip: Vec<u8>) -> Answer {
        let mut request = request("POST", "/api/import", zip);
        request.headers_mut().insert(header::CONTENT_TYPE, "application/zip".parse().expect("a header"));
        self.send(request).await
    }

    /// Creates a session with two steps, and returns its path.
    pub(crate) async fn session(&self, seed: u64) -> String {
        self.session_with(json!({"prompt": "a red star", "seed": seed, "settings": {"steps": 2}})).await
    }

    /// Creates a session whose rounds take too long to end during a test, and returns its path.
    pub(crate) async fn endless_session(&self) -> String {
        self.session_with(json!({"prompt": "a red star", "settings": {"steps": ENDLESS}})).await
    }

    pub(crate) async fn session_with(&self, body: Value) -> String {
        let session = self.post("/api/sessions", body).await.expect(201);
        format!("/api/sessions/{}", text(&session["id"]))
    }

    /// Starts a round and returns the path of its job.
    pub(crate) async fn start(&self, session: &str, images: usize) -> String {
        let job = self.post(&format!("{session}/rounds"), json!({"images": images})).await.expect(202);
        format!("/api/jobs/{}", text(&job["id"]))
    }

    /// Makes a round and returns the session.
    pub(crate) async fn round(&self, session: &str, images: usize) -> Value {
        let job = self.start(session, images).await;
        let job = self.finished(&job).await;
        assert_eq!(job["state"], "done", "{job}");
        self.get(session).await.expect(200)
    }

    /// Waits for the end of a job and returns it.
    pub(crate) async fn finished(&self, job: &str) -> Value {
        let mut events = self.events(job).await;
        while events.next().await.is_some() {}
        self.get(job).await.expect(200)
    }

    /// Waits until a job runs.
    pub(crate) async fn until_running(&self, job: &str) {
        let mut events = self.events(job).await;
        while let Some((name, data)) = events.next().await {
            if name == "place" && data["place"] == 0 {
                let state = self.get(job).await.expect(200)["state"].clone();
                assert!(state == "running" || state == "done", "{state}");
                return;
            }
        }
        panic!("the job ended");
    }

    /// Listens to a job.
    pub(crate) async fn events(&self, job: &str) -> Events {
        let response = self.respond(request("GET", &format!("{job}/events"), Body::empty())).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body().into_data_stream(), text: String::new() }
    }
}

/// A request with the headers of the page. `body` is JSON or empty.
pub(crate) fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header(header::HOST, HOST);
    builder.header(header::CONTENT_TYPE, "application/json").body(body.into()).expect("a request")
}

/// A response that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a body");
        Self { status: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The JSON of an answer with this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Asserts that this is an error with a status and a code, which says what to do.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) {
        let error = &self.expect(status)["error"];
        assert_eq!(error["code"], code, "{error}");
        for field in ["message", "expected", "got", "next"] {
            assert!(error[field].is_string(), "{field} of {error}");
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    /// The image of a PNG file.
    #[track_caller]
    pub(crate) fn image(&self) -> Image {
        assert_eq!((self.status, self.header("content-type")), (200, "image/png"), "{}", self.text());
        Image::from_bytes(&self.bytes).expect("an image")
    }
}

/// Events of a job.
pub(crate) struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    /// The next event with its data. `None` is the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let (name, data) = (field("event: "), field("data: "));
                self.text = rest.to_owned();
                // Comments keep the connection alive.
                let (Some(name), Some(data)) = (name, data) else { continue };
                return Some((name, serde_json::from_str(&data).expect("JSON")));
            }
            let part = self.body.next().await?.expect("a part");
            self.text.push_str(str::from_utf8(&part).expect("a text"));
        }
    }
}

/// The text of a JSON string.
#[track_caller]
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The hashes of the images of a round.
pub(crate) fn images(session: &Value, round: usize) -> Vec<String> {
    let images = session["rounds"][round]["images"].as_array().expect("a round");
    images.iter().map(|hash| text(hash).to_owned()).collect()
}

/// A file in base64.
pub(crate) fn in_base64(file: &[u8]) -> String {
    STANDARD.encode(file)
}
