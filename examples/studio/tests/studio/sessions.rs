//! Sessions: creation, changes, history, and what is on disk.

use std::fs;

use fabric_studio::{Studio, StudioError};
use serde_json::{Value, json};

use crate::harness::{Server, images, model, text};

#[tokio::test]
async fn a_session_is_as_it_was_created_and_changed() {
    let server = Server::new();
    let (prompts, settings) = (["a star", "blue"], json!({"steps": 3}));
    let body = json!({
        "prompt": prompts[0], "negative_prompt": prompts[1], "seed": 7, "settings": settings, "title": "A",
    });
    let session = server.post("/api/sessions", body).await.expect(201);
    let path = format!("/api/sessions/{}", text(&session["id"]));
    assert_eq!((&session["prompt"], &session["negative_prompt"]), (&json!(prompts[0]), &json!(prompts[1])));
    assert_eq!((&session["seed"], &session["title"], &session["parent"]), (&json!(7), &json!("A"), &Value::Null));
    // Settings that are left out are the model's.
    let model = server.get("/api/model").await.expect(200);
    let mut settings = model["settings"].clone();
    settings["steps"] = json!(3);
    assert_eq!(session["settings"], settings);

    let changes = json!({"prompt": "a heart", "title": "B", "settings": {"fabric": {"max_weight": 0.5}}});
    let session = server.patch(&path, changes).await.expect(200);
    settings["fabric"]["max_weight"] = json!(0.5);
    assert_eq!((&session["prompt"], &session["title"]), (&json!("a heart"), &json!("B")));
    assert_eq!((&session["settings"], &session["negative_prompt"]), (&settings, &json!("blue")));
    assert_eq!(server.get(&path).await.expect(200), session);

    let other = server.post("/api/sessions", json!({"prompt": "a circle"})).await.expect(201);
    assert_eq!((&other["settings"], &other["title"]), (&Value::Null, &json!("a circle")));
    let listed = server.get("/api/sessions").await.expect(200);
    let titles: Vec<&Value> = listed["sessions"].as_array().expect("a list").iter().map(|one| &one["title"]).collect();
    assert_eq!(titles.len(), 2);
    assert!(titles.contains(&&json!("B")) && titles.contains(&&json!("a circle")), "{titles:?}");
}

#[tokio::test]
async fn a_restart_keeps_sessions() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 2).await;
    let liked = &images(&session, 0)[1];
    let session = server.post(&format!("{path}/votes"), json!({"image": liked, "strength": 0.5})).await.expect(200);
    server.post(&format!("{path}/undo"), json!({})).await.expect(200);
    server.post(&format!("{path}/redo"), json!({})).await.expect(200);
    let (listed, gallery) = (server.get("/api/sessions").await.json(), server.get("/api/gallery").await.json());
    assert_eq!(listed["sessions"][0]["cover"], json!(liked));

    let server = server.restarted(|_| {});
    assert_eq!(server.get("/api/sessions").await.expect(200), listed);
    assert_eq!(server.get("/api/gallery").await.expect(200), gallery);
    assert_eq!(server.get(&path).await.expect(200), session);
    // The session goes on with seeds of its own.
    let session = server.round(&path, 1).await;
    assert_eq!(session["rounds"].as_array().map(Vec::len), Some(2));
    assert_ne!(session["rounds"][0]["seeds"][0], session["rounds"][1]["seeds"][0]);
}

#[tokio::test]
async fn a_folder_is_for_one_studio_at_a_time() {
    let server = Server::new();
    let error = Studio::open(model(), server.folder(), 1).expect_err("the folder is in use");
    assert!(matches!(error, StudioError::InUse { .. }), "{error}");
    server.restarted(|_| {});
}

#[tokio::test]
async fn votes_that_come_at_once_are_all_kept() {
    let server = Server::new();
    let path = server.session(1).await;
    let made = images(&server.round(&path, 4).await, 0);
    let address = format!("{path}/votes");
    let vote = async |at: usize| server.post(&address, json!({"image": made[at], "strength": 1})).await.status;
    assert_eq!(tokio::join!(vote(0), vote(1), vote(2), vote(3)), (200, 200, 200, 200));
    let count = async |server: &Server| server.get(&path).await.expect(200)["votes"].as_array().map(Vec::len);
    assert_eq!(count(&server).await, Some(4));
    assert_eq!(count(&server.restarted(|_| {})).await, Some(4));
}

#[tokio::test]
async fn settings_that_cannot_be_used_can_be_set_anew() {
    let server = Server::new();
    let path = server.session(1).await;
    let folder = text(&server.get(&path).await.expect(200)["id"]).to_owned();
    let server = server.restarted(|place| {
        let file = place.join(folder).join("session.json");
        let mut session: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        session["settings"] = json!({"steps": "many"});
        fs::write(file, session.to_string()).expect("a file");
    });
    server.post(&format!("{path}/rounds"), json!({"images": 1})).await.is_error(422, "bad_setting");
    server.patch(&path, json!({"settings": {"steps": 2}})).await.expect(200);
    server.round(&path, 1).await;
}

#[tokio::test]
async fn sessions_that_cannot_be_read_are_listed_with_their_error_and_kept() {
    let server = Server::new();
    let (path, other) = (server.session(1).await, server.session(2).await);
    let session = server.round(&path, 1).await;
    let folder = text(&session["id"]).to_owned();
    let server = server.restarted(|place| {
        fs::write(place.join(&folder).join("session.json"), "{").expect("a file");
        // Not the name of a session.
        fs::create_dir(place.join("notes")).expect("a folder");
        // What a crash leaves behind.
        fs::create_dir(place.join(".import-x")).expect("a folder");
    });
    let listed = server.get("/api/sessions").await.expect(200);
    let errors: Vec<bool> =
        listed["sessions"].as_array().expect("a list").iter().map(|one| one["error"].is_string()).collect();
    assert_eq!(errors.iter().filter(|error| **error).count(), 1, "{listed}");
    server.get(&path).await.is_error(422, "broken_session");
    server.get(&other).await.expect(200);
    assert!(server.folder().join(&folder).join("session.json").is_file(), "it is not deleted");
    assert!(server.names().contains(&"notes".to_owned()) && !server.names().contains(&".import-x".to_owned()));

    assert_eq!(server.delete(&path).await.status, 204);
    server.get(&path).await.is_error(404, "unknown_session");
    assert!(!server.folder().join(&folder).exists());
}

#[tokio::test]
async fn a_summary_of_another_form_is_made_anew() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let vote = json!({"image": images(&session, 0)[0], "strength": 1});
    server.post(&format!("{path}/votes"), vote).await.expect(200);
    let gallery = server.get("/api/gallery").await.expect(200);
    assert_eq!(gallery["images"][0]["liked"], true);
    let server = server.restarted(|place| {
        let file = place.join(text(&session["id"])).join("studio.json");
        let mut about: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        let image = about["summary"]["images"][0].as_object_mut().expect("an image");
        image.remove("liked").expect("the field");
        fs::write(file, about.to_string()).expect("a file");
    });
    assert_eq!(server.get("/api/gallery").await.expect(200), gallery);
    assert_eq!(server.get("/api/sessions").await.expect(200)["sessions"][0]["votes"], 1);
}

#[tokio::test]
async fn a_damaged_image_is_an_error_of_its_session_alone() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let (folder, image) = (text(&session["id"]).to_owned(), images(&session, 0)[0].clone());
    let server = server.restarted(|place| {
        fs::write(place.join(folder).join("images").join(format!("{image}.png")), "no image").expect("a file");
    });
    server.get(&path).await.is_error(422, "broken_session");
    let listed = server.get("/api/sessions").await.expect(200);
    assert!(text(&listed["sessions"][0]["error"]).contains(&image), "{listed}");
    server.session(2).await;
}

#[tokio::test]
async fn undo_and_redo_go_through_the_history() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let vote = json!({"image": images(&session, 0)[0], "strength": -1});
    let voted = server.post(&format!("{path}/votes"), vote).await.expect(200);
    assert_eq!((&voted["can_undo"], &voted["can_redo"]), (&json!(true), &json!(false)));
    let undone = server.post(&format!("{path}/undo"), json!({})).await.expect(200);
    assert_eq!((&undone["votes"], &undone["can_redo"]), (&json!([]), &json!(true)));
    assert_eq!(server.post(&format!("{path}/redo"), json!({})).await.expect(200), voted);
    for _ in 0..3 {
        server.post(&format!("{path}/undo"), json!({})).await.expect(200);
    }
    let first = server.get(&path).await.expect(200);
    assert_eq!((&first["rounds"], &first["can_undo"]), (&json!([]), &json!(false)));
    let back = server.delete(&format!("{path}/votes/{}", images(&session, 0)[0])).await;
    back.is_error(404, "unknown_image");
}

#[tokio::test]
async fn a_branch_has_the_history_up_to_its_round_with_the_votes_on_it() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 2).await;
    let vote = json!({"image": images(&session, 0)[0], "strength": 1});
    let voted = server.post(&format!("{path}/votes"), vote).await.expect(200);
    let session = server.round(&path, 1).await;
    let vote = json!({"image": images(&session, 1)[0], "strength": -1});
    let whole = server.post(&format!("{path}/votes"), vote).await.expect(200);

    let branch = server.post(&format!("{path}/branch"), json!({"round": 0})).await.expect(201);
    assert_eq!((&branch["rounds"], &branch["votes"]), (&voted["rounds"], &voted["votes"]));
    assert_eq!(branch["parent"], json!({"session": whole["id"], "round": 0}));
    assert_eq!(branch["can_redo"], false, "the rounds of the other session cannot be redone");
    assert_eq!(server.get(&path).await.expect(200), whole, "the other session is unchanged");
    let folder = server.folder().join(text(&branch["id"])).join("images");
    assert_eq!(fs::read_dir(folder).expect("a folder").count(), 2);

    let session = server.round(&format!("/api/sessions/{}", text(&branch["id"])), 1).await;
    assert_eq!(session["rounds"][1]["made_with"]["liked"], json!([images(&whole, 0)[0]]));
    server.post(&format!("{path}/branch"), json!({"round": 2})).await.is_error(404, "unknown_round");
}

#[tokio::test]
async fn votes_follow_the_rules_of_the_library() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let image = images(&session, 0)[0].clone();
    let vote = async |strength: f64, reason: Value| {
        let vote = json!({"image": image, "strength": strength, "reason": reason});
        server.post(&format!("{path}/votes"), vote).await.expect(200)["votes"].clone()
    };
    assert_eq!(vote(1.0, Value::Null).await.as_array().map(Vec::len), Some(1));
    let refined = vote(0.5, json!("style")).await;
    assert_eq!(refined, json!([{"image": image, "strength": 0.5, "reason": "style"}]));
    for (at, reason) in [json!({"object": "lamp"}), json!({"words": "its warm light"})].into_iter().enumerate() {
        assert_eq!(vote(-1.0, reason.clone()).await[at + 1]["reason"], reason);
    }
    let session = server.delete(&format!("{path}/votes/{image}")).await.expect(200);
    assert_eq!(session["votes"], json!([]));
}

#[tokio::test]
async fn a_change_that_cannot_be_saved_is_an_error_and_no_change() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.get(&path).await.expect(200);
    let (folder, aside) = (server.folder().join(text(&session["id"])), server.folder().join("aside"));
    fs::rename(&folder, &aside).expect("a folder");
    fs::write(&folder, "no folder").expect("a file");
    server.patch(&path, json!({"prompt": "a heart"})).await.is_error(500, "storage");
    assert_eq!(server.get(&path).await.expect(200), session);
    fs::remove_file(&folder).expect("a file");
    fs::rename(&aside, &folder).expect("a folder");
    assert_eq!(server.patch(&path, json!({"prompt": "a heart"})).await.expect(200)["prompt"], "a heart");
}
