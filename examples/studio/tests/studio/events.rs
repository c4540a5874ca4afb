//! Events of jobs, and clients that come late or go away.

use axum::body::Body;
use serde_json::{Value, json};

use crate::harness::{Events, Server, request};

/// All events until the end.
async fn all(mut events: Events) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    all
}

fn of<'a>(events: &'a [(String, Value)], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|(own, _)| own == name).map(|(_, data)| data).collect()
}

#[tokio::test]
async fn a_listener_learns_the_whole_course_of_a_round() {
    let server = Server::new();
    // The job waits until the listener is there.
    let (before, path) = (server.endless_session().await, server.session(1).await);
    let running = server.start(&before, 1).await;
    server.until_running(&running).await;
    let job = server.start(&path, 2).await;
    let mut events = server.events(&job).await;
    let (name, state) = events.next().await.expect("the first event");
    assert_eq!((name.as_str(), &state["state"], &state["place"]), ("state", &json!("waiting"), &json!(1)));
    assert_eq!(state, server.get(&job).await.expect(200));
    server.delete(&running).await.expect(202);

    let events = all(events).await;
    assert_eq!(of(&events, "place").last(), Some(&&json!({"place": 0})));
    assert_eq!(of(&events, "step").last(), Some(&&json!({"step": 2, "steps": 2})));
    assert_eq!(of(&events, "image").last(), Some(&&json!({"image": 1})));
    assert!(!of(&events, "phase").is_empty(), "{events:?}");
    assert_eq!(events.last(), Some(&("done".to_owned(), json!({"round": 0}))));
    let session = server.get(&path).await.expect(200);
    assert_eq!(session["rounds"].as_array().map(Vec::len), Some(1), "the round is saved before the event");
}

#[tokio::test]
async fn previews_are_made_while_someone_listens() {
    let server = Server::new();
    let path = server.session_with(json!({"prompt": "a red star", "settings": {"steps": 80}})).await;
    let job = server.start(&path, 2).await;
    let mut events = server.events(&job).await;
    let preview = loop {
        let (name, data) = events.next().await.expect("a preview");
        if name == "preview" {
            break data;
        }
    };
    let preview = format!("{job}/previews/{}?step={}", preview["image"], preview["step"]);
    assert_eq!(server.get(&preview).await.image().width(), 64);
    server.get(&format!("{job}/previews/2")).await.is_error(404, "unknown_image");
    server.delete(&job).await.expect(202);
    assert_eq!(all(events).await.last(), Some(&("cancelled".to_owned(), json!({}))));
    server.get(&preview).await.is_error(404, "unknown_image");
}

#[tokio::test]
async fn a_listener_that_comes_after_the_end_learns_the_result() {
    let server = Server::new();
    let path = server.session(1).await;
    let job = server.start(&path, 1).await;
    server.finished(&job).await;
    let events = all(server.events(&job).await).await;
    assert_eq!((events[0].0.as_str(), &events[0].1["state"]), ("state", &json!("done")));
    assert_eq!(of(&events, "image"), [&json!({"image": 0})]);
    assert_eq!(events.last(), Some(&("done".to_owned(), json!({"round": 0}))));
}

#[tokio::test]
async fn a_client_that_goes_away_stops_nothing_and_makes_room() {
    let server = Server::new();
    let path = server.session(1).await;
    server.patch(&path, json!({"settings": {"steps": 20}})).await.expect(200);
    let job = server.start(&path, 1).await;
    // More clients than may listen at once, one after another.
    for _ in 0..40 {
        let mut events = server.events(&job).await;
        assert_eq!(events.next().await.expect("an event").0, "state");
    }
    assert_eq!(server.finished(&job).await["state"], "done");
}

#[tokio::test]
async fn only_32_clients_listen_at_once() {
    let server = Server::new();
    let path = server.endless_session().await;
    let job = server.start(&path, 1).await;
    let mut listeners = Vec::new();
    for _ in 0..32 {
        listeners.push(server.events(&job).await);
    }
    assert_eq!(listeners.len(), 32);
    let one_more = async || server.send(request("GET", &format!("{job}/events"), Body::empty())).await;
    one_more().await.is_error(429, "too_many_requests");
    // Other requests are answered.
    server.get(&job).await.expect(200);
    listeners.pop();
    assert_eq!(server.events(&job).await.next().await.expect("an event").0, "state");
}
