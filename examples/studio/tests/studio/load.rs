//! A server with real connections: many requests at once, and clients that break off.

use std::sync::Arc;

use fabric_studio::serve;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::Server;

/// Serves a studio at a free port of this machine and returns the address.
async fn served(server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(serve(listener, server.studio.clone(), None));
    address
}

/// Sends a request without a body and returns the connection.
async fn sent(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    stream
}

/// Returns the status and the body of a response.
async fn get(address: &str, path: &str) -> (u16, String) {
    let (mut stream, mut bytes) = (sent(address, path).await, Vec::new());
    stream.read_to_end(&mut bytes).await.expect("a response");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_at_once_are_answered_or_refused() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let address: Arc<str> = served(&server).await.into();
    let image = format!("{path}/images/{}", session["rounds"][0]["images"][0].as_str().expect("a hash"));
    let mut requests = tokio::task::JoinSet::new();
    for at in 0..200 {
        let paths = ["/api/model", "/api/sessions", "/api/gallery", "/", &path, &image];
        let (address, path) = (address.clone(), paths[at % paths.len()].to_owned());
        requests.spawn(async move { get(&address, &path).await });
    }
    let mut answered = 0;
    while let Some(answer) = requests.join_next().await {
        match answer.expect("an answer") {
            (200, _) => answered += 1,
            (429, body) => assert!(body.contains("too_many_requests"), "{body}"),
            (status, body) => panic!("{status}: {body}"),
        }
    }
    assert!(answered >= 64, "{answered}");
    assert_eq!(get(&address, &path).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_breaks_off_stops_neither_the_round_nor_the_server() {
    let server = Server::new();
    let address = served(&server).await;
    let path = server.session(1).await;
    server.patch(&path, json!({"settings": {"steps": 30}})).await.expect(200);
    let job = server.start(&path, 1).await;
    let mut stream = sent(&address, &format!("{job}/events")).await;
    let mut beginning = [0; 64];
    stream.read_exact(&mut beginning).await.expect("the beginning of a response");
    assert!(beginning.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&beginning));
    drop(stream);
    assert_eq!(server.finished(&job).await["state"], "done");
    let (status, body) = get(&address, &path).await;
    let session: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, session["rounds"].as_array().map(Vec::len)), (200, Some(1)));
}

#[tokio::test]
async fn another_port_is_another_host() {
    let server = Server::new();
    let address = served(&server).await;
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:7860\r\nConnection: close\r\n\r\n").await.expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("a response");
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("refused_host"), "{text}");
}
