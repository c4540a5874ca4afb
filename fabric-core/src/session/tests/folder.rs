//! Folders of sessions: saving, loading, crashes, and files that were changed.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use super::*;

#[test]
fn a_folder_gives_back_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = eventful();
    session.save(folder.path().join("deep/down")).unwrap();
    assert_eq!(FeedbackSession::load(folder.path().join("deep/down")).unwrap(), session);
    // Undone steps too.
    session.redo();
    let mut loaded = FeedbackSession::load(folder.path().join("deep/down")).unwrap();
    assert!(loaded.redo());
    assert_eq!(loaded, session);
}

#[test]
fn saving_again_writes_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = eventful();
    session.save(folder.path()).unwrap();
    let file = folder.path().join(format!("images/{}.png", image(1).content_hash()));
    let written = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = written(&file);
    round(&mut session, &[77]);
    session.save(folder.path()).unwrap();
    assert_eq!(written(&file), before);
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), session);
    let files = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!((files(folder.path()), files(&folder.path().join("images"))), (2, 10), "nothing is left beside them");
}

#[test]
fn prompts_and_settings_that_are_too_long_are_refused_before_a_round_and_by_saving_and_loading() {
    type Change = fn(&mut FeedbackSession, String);
    let changes: [(Change, &str); 3] = [
        (|session, text| session.set_prompt(text), "prompt"),
        (|session, text| session.set_negative_prompt(text), "negative prompt"),
        (|session, text| session.set_settings(json!({ "text": text })), "settings"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let good = eventful();
    good.save(folder.path()).unwrap();
    let long = || "x".repeat(2_000_000);
    for (change, name) in changes {
        let mut session = good.clone();
        change(&mut session, long());
        let got = session.push_round(vec![(image(50), 1)], Value::Null).unwrap_err();
        assert!(matches!(&got, SessionError::Condition(value) if value.what == name), "{got:.200}");
        assert!(session.check_texts().is_err());
        let got = session.save(folder.path()).unwrap_err();
        let said = format!("{name} of step {} is 20000", good.step_count());
        assert!(matches!(&got, SessionError::NotLoadable { .. }) && got.to_string().contains(&said), "{got:.400}");
        assert_eq!(FeedbackSession::load(folder.path()).unwrap(), good);
    }
    for field in ["prompt", "negative_prompt", "settings"] {
        for place in [format!("/{field}"), format!("/steps/0/{field}")] {
            let got = load_changed(|json| *json.pointer_mut(&place).unwrap() = json!(long()));
            let is_named = matches!(&got, SessionError::Inconsistent { got, .. } if got.starts_with("20000"));
            assert!(is_named, "{got:.200}");
        }
    }
}

#[test]
fn a_file_whose_values_take_far_more_memory_than_its_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    eventful().save(folder.path()).unwrap();
    let path = folder.path().join("session.json");
    let good = fs::read_to_string(&path).unwrap();
    for (value, count) in [("0,", 5_000_000), ("{\"\":0},", 400_000)] {
        let values = value.repeat(count);
        let text = good.replacen("\"report\": {", &format!("\"report\": {{\"values\": [{values}0],"), 1);
        assert!(text.len() > values.len());
        fs::write(&path, text).unwrap();
        let got = FeedbackSession::load(folder.path()).unwrap_err();
        assert!(matches!(got, SessionError::TooManyValues { .. }), "{got:.200}");
    }
}

#[test]
fn a_crash_while_saving_leaves_the_session_before() {
    let folder = tempfile::tempdir().unwrap();
    let before = eventful();
    before.save(folder.path()).unwrap();
    // Everything a save does before its last rename: new images, and incomplete temporary files of an image and
    // a JSON.
    let mut after = before.clone();
    let new = round(&mut after, &[200]);
    let png = new[0].to_png_bytes().unwrap();
    fs::write(folder.path().join(format!("images/{}.png", new[0].content_hash())), &png).unwrap();
    fs::write(folder.path().join("images/.half.png.1-0.tmp"), &png[..9]).unwrap();
    fs::write(folder.path().join(".session.json.1-0.tmp"), "{\"format\":").unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), before);
    // A save that cannot finish changes nothing that can be loaded.
    let other = tempfile::tempdir().unwrap();
    before.save(other.path()).unwrap();
    fs::remove_dir_all(other.path().join("images")).unwrap();
    fs::write(other.path().join("images"), "in the way").unwrap();
    let json = fs::read(other.path().join("session.json")).unwrap();
    assert!(matches!(after.save(other.path()), Err(SessionError::Io { .. })));
    assert_eq!(fs::read(other.path().join("session.json")).unwrap(), json);
    after.save(folder.path()).unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), after);
}

#[test]
fn temporary_files_of_a_crash_are_deleted_a_day_later() {
    let folder = tempfile::tempdir().unwrap();
    let session = eventful();
    session.save(folder.path()).unwrap();
    let ours = [
        ".session.json.0123456789abcdef.tmp".to_owned(),
        format!("images/.{}.png.fedcba9876543210.tmp", image(1).content_hash()),
    ];
    let others = [".notes.txt.0123456789abcdef.tmp", ".session.json.tmp", "images/.a.png.0123456789abcdef.tmp"];
    let write = |name: &str, hours: u64| {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    let exists = |name: &str| folder.path().join(name).exists();
    let save = || session.save(folder.path()).unwrap();
    let remove_unused = || assert_eq!(session.remove_unused_images(folder.path()).unwrap(), 0, "they do not count");
    for clean_up in [&save as &dyn Fn(), &remove_unused] {
        ours.iter().for_each(|name| write(name, 23));
        others.iter().for_each(|name| write(name, 100));
        clean_up();
        assert!(ours.iter().all(|name| exists(name)), "another process may be writing them");
        ours.iter().for_each(|name| write(name, 25));
        clean_up();
        assert!(!ours.iter().any(|name| exists(name)));
        assert!(others.iter().all(|name| exists(name)), "they are not of a session");
    }
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), session);
}

/// Saves a session, changes its JSON, and returns the error of loading it.
fn load_changed(change: impl FnOnce(&mut Value)) -> SessionError {
    let folder = tempfile::tempdir().unwrap();
    eventful().save(folder.path()).unwrap();
    let path = folder.path().join("session.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
    FeedbackSession::load(folder.path()).unwrap_err()
}

#[test]
fn a_json_that_was_tampered_with_is_refused() {
    for version in [1, 2, 3, 4] {
        let earlier = load_changed(|json| json["version"] = json!(version));
        let names_it = earlier.to_string().contains(&format!("version {version}"));
        assert!(matches!(earlier, SessionError::Version { .. }) && names_it, "{earlier}");
    }
    assert!(matches!(load_changed(|json| json["version"] = json!(6)), SessionError::Version { .. }));
    assert!(matches!(load_changed(|json| json["format"] = json!("other")), SessionError::Version { .. }));
    assert!(matches!(load_changed(|json| json["done"] = json!(1000)), SessionError::Inconsistent { .. }));
    assert!(matches!(load_changed(|json| json["seeds_drawn"] = json!(u64::MAX)), SessionError::Inconsistent { .. }));
    assert!(matches!(load_changed(|json| json["done"] = json!(-1)), SessionError::Json { .. }));
    assert!(matches!(load_changed(|json| json["steps"][0]["seeds"] = json!([1])), SessionError::Inconsistent { .. }));
    assert!(matches!(
        load_changed(|json| {
            json["steps"][0]["seeds"] = json!([]);
            json["steps"][0]["images"] = json!([]);
        }),
        SessionError::Inconsistent { .. }
    ));
    assert!(matches!(
        load_changed(|json| json["steps"][1]["vote"]["strength"] = json!(1.5)),
        SessionError::Json { .. }
    ));
    assert!(matches!(load_changed(|json| json["steps"][1]["step"] = json!("shout")), SessionError::Json { .. }));
    assert!(matches!(load_changed(|json| json["extra"] = json!(1)), SessionError::Json { .. }));
    assert!(matches!(load_changed(|json| *json = json!([])), SessionError::Json { .. }));
}

#[test]
fn names_in_the_json_never_become_paths() {
    for name in ["../../../../etc/passwd", "/etc/passwd", "..", "", "a\0b", &"A".repeat(64), &"0".repeat(65)] {
        let got = load_changed(|json| json["steps"][1]["image"] = json!(name));
        assert!(matches!(got, SessionError::Json { .. }), "{name}: {got}");
    }
    let got = load_changed(|json| json["steps"][1]["image"] = json!("0".repeat(64)));
    assert!(matches!(got, SessionError::Image { source: ImageError::Read { .. } }), "{got}");
}

#[test]
fn missing_damaged_and_swapped_images_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    eventful().save(folder.path()).unwrap();
    let file = |shade| folder.path().join(format!("images/{}.png", image(shade).content_hash()));
    let load = || FeedbackSession::load(folder.path()).unwrap_err();
    let png = fs::read(file(1)).unwrap();
    fs::write(file(1), &png[..png.len() / 2]).unwrap();
    assert!(matches!(load(), SessionError::Image { source: ImageError::Corrupt { .. } }));
    fs::copy(file(2), file(1)).unwrap();
    assert!(matches!(load(), SessionError::WrongImage { .. }));
    fs::remove_file(file(1)).unwrap();
    assert!(matches!(load(), SessionError::Image { source: ImageError::Read { .. } }));
    fs::write(file(1), &png).unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap().rounds().len(), 2);
}

#[test]
fn what_is_no_session_folder_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let load = || FeedbackSession::load(folder.path()).unwrap_err();
    assert!(matches!(load(), SessionError::Io { .. }));
    let path = folder.path().join("session.json");
    fs::create_dir(&path).unwrap();
    assert!(matches!(load(), SessionError::Io { .. }));
    fs::remove_dir(&path).unwrap();
    for text in ["", "{", "null", "{\"format\":\"fabric-session\",\"version\":5}", &"[".repeat(100_000)] {
        fs::write(&path, text).unwrap();
        assert!(matches!(load(), SessionError::Json { .. }), "{text:.40}");
    }
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    assert!(matches!(load(), SessionError::TooLong { .. }));
}

/// A value nested in this many arrays.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!("the innermost"), |value, _| json!([value]))
}

#[test]
fn what_cannot_be_loaded_again_leaves_the_session_saved_before() {
    let folder = tempfile::tempdir().unwrap();
    let good = eventful();
    good.save(folder.path()).unwrap();
    let mut deep_report = good.clone();
    deep_report.push_round(vec![(image(50), 1)], nested(126)).unwrap();
    let mut deep_settings = good.clone();
    deep_settings.set_settings(nested(1000));
    let deep_origin = FeedbackSession::new("other").with_settings(nested(200));
    let mut too_many_seeds = good.clone();
    too_many_seeds.seeds_drawn = u64::MAX;
    for bad in [deep_report, deep_settings, deep_origin, too_many_seeds] {
        let got = bad.save(folder.path()).unwrap_err();
        assert!(matches!(got, SessionError::NotLoadable { .. }), "{got}");
        assert_eq!(FeedbackSession::load(folder.path()).unwrap(), good);
    }
    // Settings that the parser accepts are saved.
    let mut deep = good.clone();
    deep.push_round(vec![(image(50), 1)], nested(100)).unwrap();
    deep.save(folder.path()).unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), deep);
}

#[test]
fn a_damaged_image_of_the_folder_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let session = eventful();
    session.save(folder.path()).unwrap();
    let file = |shade| folder.path().join(format!("images/{}.png", image(shade).content_hash()));
    fs::write(file(1), "half a pic").unwrap();
    fs::copy(file(3), file(2)).unwrap();
    session.save(folder.path()).unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), session);
}

#[test]
fn only_image_files_that_no_step_names_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = FeedbackSession::new("");
    round(&mut session, &[1, 2]);
    let undone = round(&mut session, &[3, 2]);
    session.undo_round();
    session.save(folder.path()).unwrap();
    fs::write(folder.path().join("images/notes.png"), "not ours").unwrap();
    assert_eq!(session.remove_unused_images(folder.path()).unwrap(), 0, "an undone round can be redone");
    round(&mut session, &[4]);
    session.save(folder.path()).unwrap();
    assert_eq!(session.remove_unused_images(folder.path()).unwrap(), 1);
    assert!(!folder.path().join(format!("images/{}.png", undone[0].content_hash())).exists());
    assert!(folder.path().join("images/notes.png").exists());
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), session);
}

#[test]
fn a_session_file_with_values_that_no_session_saves_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = FeedbackSession::new("a star");
    let image = Image::filled(8, 8, [1, 0, 0]).unwrap();
    session.add_image_condition(crate::ImageCondition::new(image.clone()).using("the style")).unwrap();
    session.set_init_image(Some(InitImage { image, strength: 0.5, mask: None })).unwrap();
    session.save(folder.path()).unwrap();
    let path = folder.path().join("session.json");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, word) in [
        ("\"scale\": 1.0", "\"scale\": -1.0", "step 0"),
        ("\"style\"", "{\"words\": \"\"}", "step 0"),
        ("\"strength\": 0.5", "\"strength\": 5", "step 1"),
        ("0.0,\n", "2.0,\n", "window"),
    ] {
        assert!(good.contains(from), "{from}: {good}");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let message = FeedbackSession::load(folder.path()).unwrap_err().to_string();
        assert!(message.contains(word), "{to}: {message}");
    }
}
