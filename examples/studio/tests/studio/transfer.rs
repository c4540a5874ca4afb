//! Sessions as zip files, and hostile zip files.

use std::fs;
use std::io::{Cursor, Read, Write};

use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::harness::{Server, images, text};

/// Files of a zip file.
type Files = Vec<(String, Vec<u8>)>;

fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file(name, options).expect("a file");
        zip.write_all(bytes).expect("a file");
    }
    zip.finish().expect("a zip file").into_inner()
}

fn unpacked(zip: &[u8]) -> Files {
    let mut zip = ZipArchive::new(Cursor::new(zip)).expect("a zip file");
    let mut files = Vec::new();
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).expect("a file");
        let name = String::from_utf8(file.name_raw().to_vec()).expect("a name");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("a file");
        files.push((name, bytes));
    }
    files
}

/// A server with a session of two rounds, and the session's files.
async fn exported() -> (Server, Value, Files) {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 2).await;
    let vote = json!({"image": images(&session, 0)[0], "strength": 1, "reason": null});
    server.post(&format!("{path}/votes"), vote).await.expect(200);
    let session = server.round(&path, 1).await;
    let zip = server.get(&format!("{path}/export")).await;
    assert_eq!((zip.status, zip.header("content-type")), (200, "application/zip"));
    let files = unpacked(&zip.bytes);
    (server, session, files)
}

#[tokio::test]
async fn an_exported_session_is_imported_as_it_was() {
    let (server, session, files) = exported().await;
    let mut names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!((names.len(), names[3], names[4]), (5, "session.json", "studio.json"));

    let same = |imported: &Value| {
        let mut imported = imported.clone();
        assert_ne!(imported["id"], session["id"]);
        imported["id"] = session["id"].clone();
        assert_eq!(imported, session);
    };
    same(&server.import(packed(&files)).await.expect(201));
    let other = Server::new();
    let imported = other.import(packed(&files)).await.expect(201);
    same(&imported);
    // It goes on, and can be exported again.
    let path = format!("/api/sessions/{}", imported["id"].as_str().expect("an id"));
    let mut again = unpacked(&other.get(&format!("{path}/export")).await.bytes);
    let mut files = files.clone();
    again.sort();
    files.sort();
    assert_eq!(again[..4], files[..4]);
    other.round(&path, 1).await;
}

#[tokio::test]
async fn a_session_of_another_program_has_no_studio_file() {
    let (server, session, mut files) = exported().await;
    files.retain(|(name, _)| name != "studio.json");
    files.push(("images/".to_owned(), Vec::new()));
    let imported = server.import(packed(&files)).await.expect(201);
    assert_eq!((&imported["title"], &imported["rounds"]), (&json!("a red star"), &session["rounds"]));
}

#[tokio::test]
async fn a_session_folder_of_another_program_can_be_exported() {
    let server = Server::new();
    let path = server.session(1).await;
    let session = server.round(&path, 1).await;
    let server = server.restarted(|place| {
        fs::remove_file(place.join(text(&session["id"])).join("studio.json")).expect("a file");
    });
    let zip = server.get(&format!("{path}/export")).await;
    assert_eq!(zip.status, 200, "{}", zip.text());
    let imported = server.import(zip.bytes.to_vec()).await.expect(201);
    assert_eq!((&imported["title"], &imported["rounds"]), (&json!("a red star"), &session["rounds"]));
}

#[tokio::test]
async fn zip_files_with_other_files_are_refused_and_leave_nothing_behind() {
    let (server, _, files) = exported().await;
    let before = server.names();
    for name in [
        "../evil.json",
        "../../evil.json",
        "/tmp/evil.json",
        "images/../evil.png",
        "images/evil.png",
        "images\\evil.png",
        "C:\\evil.json",
        "session.json/evil",
        "evil",
    ] {
        let mut with = files.clone();
        with.push((name.to_owned(), b"evil".to_vec()));
        server.import(packed(&with)).await.is_error(422, "broken_session");
        with.rotate_right(1);
        server.import(packed(&with)).await.is_error(422, "broken_session");
    }
    assert_eq!(server.names(), before);
    let parent = server.folder().parent().expect("a folder");
    assert!(!parent.join("evil.json").exists());
}

#[tokio::test]
async fn damaged_zip_files_and_sessions_are_refused_and_leave_nothing_behind() {
    let (server, _, files) = exported().await;
    let before = server.names();
    let whole = packed(&files);
    for zip in [Vec::new(), b"no zip".to_vec(), whole[..whole.len() / 2].to_vec(), whole[100..].to_vec()] {
        server.import(zip).await.is_error(422, "broken_session");
    }
    // A byte of the first file's content.
    let mut flipped = whole.clone();
    flipped[200] ^= 0xff;
    server.import(flipped).await.is_error(422, "broken_session");
    let changed = |name: &str, bytes: &[u8]| {
        let change = |(own, old): &(String, Vec<u8>)| {
            let bytes = if own.starts_with(name) { bytes.to_vec() } else { old.clone() };
            (own.clone(), bytes)
        };
        packed(&files.iter().map(change).collect::<Files>())
    };
    let changes: [(&str, &[u8]); 6] = [
        ("session.json", b"{}"),
        ("session.json", b"\xff"),
        ("studio.json", b"{\"title\": 1}"),
        ("studio.json", b"{\"evil\": 1}"),
        ("images/", b"no image"),
        ("images/", b""),
    ];
    for (name, bytes) in changes {
        server.import(changed(name, bytes)).await.is_error(422, "broken_session");
    }
    for missing in ["session.json", "images/"] {
        let left: Files = files.iter().filter(|(name, _)| !name.starts_with(missing)).cloned().collect();
        server.import(packed(&left)).await.is_error(422, "broken_session");
    }
    assert_eq!(server.names(), before);
}

#[tokio::test]
async fn a_zip_file_that_is_too_large_unpacked_is_refused() {
    let (server, _, mut files) = exported().await;
    let before = server.names();
    // Spaces are packed to a thousandth, and JSON may have any number of them.
    let (_, json) = files.iter_mut().find(|(name, _)| name == "session.json").expect("a file");
    json.resize((64 << 20) + 1, b' ');
    let zip = packed(&files);
    assert!(zip.len() < 1 << 20, "{} bytes", zip.len());
    server.import(zip).await.is_error(413, "too_large");
    assert_eq!(server.names(), before);

    // The list of files alone.
    let long: Files = (0..70).map(|at| (format!("{at}{}", "x".repeat(65_000)), Vec::new())).collect();
    server.import(packed(&long)).await.is_error(413, "too_large");
    let many: Files = (0..10_001).map(|at| (format!("images/{at:064x}.png"), Vec::new())).collect();
    server.import(packed(&many)).await.is_error(413, "too_large");
    assert_eq!(server.names(), before);
}

#[tokio::test]
async fn a_parent_that_is_not_there_is_forgotten() {
    let (server, session, _) = exported().await;
    let path = format!("/api/sessions/{}", session["id"].as_str().expect("an id"));
    let branch = server.post(&format!("{path}/branch"), json!({"round": 0})).await.expect(201);
    let path = format!("/api/sessions/{}", branch["id"].as_str().expect("an id"));
    let zip = server.get(&format!("{path}/export")).await.bytes.to_vec();
    assert_eq!(server.import(zip.clone()).await.expect(201)["parent"], branch["parent"]);
    assert_eq!(Server::new().import(zip).await.expect(201)["parent"], Value::Null);
}
