//! The queue: places, limits, and cancelling.

use axum::body::Body;
use serde_json::{Value, json};

use crate::harness::{Server, request};

#[tokio::test]
async fn the_queue_has_places_and_a_limit() {
    let server = Server::with_queue(2);
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(server.endless_session().await);
    }
    let first = server.start(&sessions[0], 1).await;
    server.until_running(&first).await;
    let (second, third) = (server.start(&sessions[1], 1).await, server.start(&sessions[2], 1).await);
    let place = async |job: &str| server.get(job).await.expect(200)["place"].clone();
    assert_eq!([place(&first).await, place(&second).await, place(&third).await], [0, 1, 2]);
    let fourth = server.post(&format!("{}/rounds", sessions[3]), json!({"images": 1})).await;
    fourth.is_error(503, "queue_full");

    // A cancelled job makes room.
    assert_eq!(server.delete(&second).await.expect(202)["state"], "cancelled");
    assert_eq!(place(&third).await, 1);
    server.start(&sessions[3], 1).await;
    server.delete(&first).await.expect(202);
    server.until_running(&third).await;
}

#[tokio::test]
async fn a_cancelled_round_leaves_the_session_without_it() {
    let server = Server::new();
    let path = server.endless_session().await;
    let job = server.start(&path, 1).await;
    let mut events = server.events(&job).await;
    while events.next().await.is_some_and(|(name, _)| name != "step") {}
    server.delete(&job).await.expect(202);
    let ended = server.finished(&job).await;
    assert_eq!((&ended["state"], &ended["error"]), (&json!("cancelled"), &Value::Null));
    let session = server.get(&path).await.expect(200);
    assert_eq!((&session["rounds"], &session["jobs"]), (&json!([]), &json!([])));
    // Cancelling again changes nothing, and the session goes on.
    assert_eq!(server.delete(&job).await.expect(202)["state"], "cancelled");
    server.patch(&path, json!({"settings": {"steps": 2}})).await.expect(200);
    server.round(&path, 1).await;
}

#[tokio::test]
async fn a_session_has_one_unfinished_round_and_stays_while_it_has() {
    let server = Server::new();
    let path = server.endless_session().await;
    let job = server.start(&path, 1).await;
    let session = server.get(&path).await.expect(200);
    assert_eq!(job, format!("/api/jobs/{}", session["jobs"][0].as_str().expect("a job")));
    server.post(&format!("{path}/rounds"), json!({"images": 1})).await.is_error(409, "busy");
    server.delete(&path).await.is_error(409, "busy");
    server.delete(&job).await.expect(202);
    server.finished(&job).await;
    assert_eq!(server.delete(&path).await.status, 204);
    server.get(&path).await.is_error(404, "unknown_session");
}

#[tokio::test]
async fn a_job_that_fails_says_why_and_the_next_one_runs() {
    let server = Server::new();
    let path = server.session(1).await;
    // More steps than the noise schedule has; only the run knows.
    server.patch(&path, json!({"settings": {"steps": 5000}})).await.expect(200);
    let job = server.start(&path, 1).await;
    let failed = server.finished(&job).await;
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("bad_setting")), "{failed}");
    server.patch(&path, json!({"settings": {"steps": 2}})).await.expect(200);
    server.round(&path, 1).await;
}

#[tokio::test]
async fn the_last_64_finished_jobs_are_kept() {
    let server = Server::new();
    let path = server.session(1).await;
    server.patch(&path, json!({"settings": {"steps": 1}})).await.expect(200);
    let session = server.round(&path, 1).await;
    let busy = server.endless_session().await;
    let running = server.start(&busy, 1).await;
    server.until_running(&running).await;
    let mut jobs = Vec::new();
    for _ in 0..65 {
        let job = server.post(&format!("{path}/compare"), json!({"round": 0})).await.expect(202);
        let job = format!("/api/jobs/{}", job["id"].as_str().expect("an id"));
        server.delete(&job).await.expect(202);
        jobs.push(job);
    }
    server.get(&jobs[0]).await.is_error(404, "unknown_job");
    assert_eq!(server.get(&jobs[1]).await.expect(200)["state"], "cancelled");
    server.delete(&running).await.expect(202);
    server.finished(&running).await;

    // Images of rounds are those of the session.
    let job = server.start(&path, 1).await;
    server.finished(&job).await;
    let image = server.get(&format!("{job}/images/0")).await.image().content_hash().to_string();
    assert_eq!(server.get(&path).await.expect(200)["rounds"][1]["images"], json!([image]));
    assert_eq!(session["rounds"].as_array().map(Vec::len), Some(1));
    server.send(request("GET", &format!("{job}/previews/0"), Body::empty())).await.is_error(404, "unknown_image");
}
