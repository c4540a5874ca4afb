//! The example programs: errors reported before any computation, and files and settings that must not change.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use fabric::core::fabric::FabricSettings;
use fabric::core::image::{Image, ImageMetadata};
use fabric::core::pipeline::Settings;
use fabric::core::session::FeedbackSession;

#[path = "../examples/feedback_rounds.rs"]
#[allow(dead_code, reason = "their `main` is not called here")]
mod feedback_rounds;
#[path = "../examples/image_metadata.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "their `main` is not called here; both have the common part of the examples"
)]
mod image_metadata;
#[path = "../examples/text_to_image.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "their `main` is not called here; both have the common part of the examples"
)]
mod text_to_image;

/// Runs `feedback_rounds` with a liked red image, so that it does not ask at the terminal.
fn rounds(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let red = folder.join("red.png");
    Image::filled(64, 64, [200, 0, 0]).expect("an image").save(&red).expect("a file");
    let red = ["--like", red.to_str().expect("a path")];
    let words = ["feedback_rounds"].iter().chain(&red).chain(arguments);
    let arguments = feedback_rounds::Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    feedback_rounds::run(&arguments).map_err(|error| error.to_string())
}

fn session(out: &Path) -> FeedbackSession {
    FeedbackSession::load(out.join("session")).expect("a session")
}

/// Returns a temporary folder and an output folder in it, as a path and as an argument.
fn places() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let named = out.display().to_string();
    (folder, out, named)
}

#[test]
fn a_session_is_never_replaced_without_being_told_to() {
    let (folder, out, named) = places();
    let few = ["a red star", "--rounds", "1", "--steps", "2", "--out", &named];
    rounds(folder.path(), &[&few[..], &["--images", "2"]].concat()).expect("a round");
    let first = session(&out);
    assert_eq!(first.rounds()[0].len(), 2);

    let said = rounds(folder.path(), &few).expect_err("a session is there");
    assert!(said.contains("got a session in") && said.contains("--continue-from"), "{said}");
    // Continuing a session from another folder must not replace it either.
    let elsewhere = folder.path().join("elsewhere");
    first.save(&elsewhere).expect("a copy");
    let from = ["--continue-from", elsewhere.to_str().expect("a path")];
    let goes_on = ["--rounds", "1", "--steps", "2", "--out", &named];
    assert!(rounds(folder.path(), &[&goes_on[..], &from].concat()).is_err());
    assert_eq!(session(&out), first);

    rounds(folder.path(), &[&few[..], &["--replace", "--images", "1"]].concat()).expect("another session");
    assert_eq!(session(&out).rounds()[0].len(), 1);
}

#[test]
fn a_session_goes_on_with_its_own_settings_but_for_what_is_named() {
    let (folder, out, named) = places();
    let settings = "--rounds 1 --steps 2 --guidance 5.5 --preset paper-preference --pass two-passes --token-merge-ratio 0.25 \
                    --sampler ddim --clip-skip 1 --images 2 --prompt-weights";
    let words: Vec<&str> = ["a red star", "--out", &named].into_iter().chain(settings.split(' ')).collect();
    rounds(folder.path(), &words).expect("a round");
    let before: Settings = session(&out).generation_settings().expect("settings");
    assert_eq!((before.steps, before.guidance_scale, before.fabric.execution.token_merge_ratio), (2, 5.5, 0.25));

    let place = out.join("session").display().to_string();
    let goes_on = ["--continue-from", &place, "--rounds", "1", "--out", &named];
    rounds(folder.path(), &goes_on).expect("another round");
    let after = session(&out);
    assert_eq!(after.generation_settings().expect("settings"), before);
    assert_eq!(after.rounds().iter().map(|round| round.len()).collect::<Vec<_>>(), [2, 2]);

    rounds(folder.path(), &[&goes_on[..], &["--steps", "3", "--preset", "web-ui"]].concat()).expect("a third one");
    let execution = before.fabric.execution;
    let fabric = FabricSettings { execution, ..FabricSettings::web_ui() };
    assert_eq!(session(&out).generation_settings().expect("settings"), Settings { steps: 3, fabric, ..before });
}

#[test]
fn places_that_cannot_take_the_results_are_refused_before_anything_is_loaded() {
    let (folder, out, named) = places();
    // The model does not exist, so that a check after loading would fail with another error.
    let model = ["--model", "no/such/model", "--out", &named];
    let draw = || {
        let words = [&["text_to_image", "a red star", "--images", "2", "--seed", "7"], &model[..]].concat();
        let arguments = text_to_image::Arguments::try_parse_from(words).expect("arguments");
        text_to_image::run(arguments).expect_err("no model").to_string()
    };
    let feed_back = || rounds(folder.path(), &[&["a red star"], &model[..]].concat()).expect_err("no model");
    assert!(draw().contains("no/such/model") && feed_back().contains("no/such/model"), "a good place");

    fs::create_dir_all(out.join("seed-8.png")).expect("a folder");
    assert!(draw().contains("got a folder named seed-8.png"), "{}", draw());
    fs::remove_dir_all(&out).expect("removed");
    fs::create_dir_all(out.join("session/session.json/x")).expect("a folder");
    assert!(feed_back().contains("--out"), "{}", feed_back());
    fs::remove_dir_all(&out).expect("removed");
    fs::create_dir_all(&out).expect("a folder");
    fs::write(out.join("session"), "in the way").expect("a file");
    assert!(feed_back().contains("--out"), "{}", feed_back());
    fs::remove_dir_all(&out).expect("removed");
    fs::write(&out, "in the way").expect("a file");
    for said in [draw(), feed_back()] {
        assert!(said.starts_with("--out") && said.contains("choose another"), "{said}");
    }
    assert_eq!(fs::read_to_string(&out).expect("a file"), "in the way");
}

#[test]
fn no_rounds_and_rounds_of_no_images_are_refused() {
    let (folder, out, named) = places();
    for option in ["--rounds", "--images"] {
        let said = rounds(folder.path(), &["a red star", option, "0", "--out", &named]).expect_err("nothing to make");
        assert!(said.starts_with(&format!("{option}: expected at least 1, got 0")), "{said}");
    }
    assert!(!out.exists());
}

#[test]
fn a_sheet_that_is_too_large_is_no_reason_to_stop() {
    let (folder, out, named) = places();
    let mut old = FeedbackSession::new("a red star");
    let grey = Image::filled(64, 64, [90, 90, 90]).expect("an image");
    // 1000 rows make the contact sheet taller than the largest image.
    for seed in 0..1000 {
        old.push_round(vec![(grey.clone(), seed)], serde_json::Value::Null).expect("a round");
    }
    let from = folder.path().join("old").display().to_string();
    old.save(&from).expect("saved");
    let goes_on = ["--continue-from", &from, "--rounds", "2", "--steps", "1", "--out", &named];
    rounds(folder.path(), &goes_on).expect("two rounds");
    assert_eq!(session(&out).rounds().len(), 1002);
    assert!(out.join("round-1002.png").exists() && !out.join("session.png").exists());
}

#[test]
fn metadata_of_a_hostile_image_is_printed_without_commands_to_the_terminal() {
    let executed = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    for text in ["\u{1b}[2J\u{9b}31m\u{202e}", "a\r\nerror: all is well", &"é\u{7}".repeat(1 << 14)] {
        let mut metadata = ImageMetadata::default();
        metadata.prompt = text.to_owned();
        metadata.software = text.to_owned();
        metadata.not_restored = vec![text.to_owned(); 3];
        let image = Image::filled(8, 8, [200, 0, 0]).expect("an image");
        let file = image.to_png_bytes_with_metadata(&metadata).expect("a file");
        let found = ImageMetadata::from_png_bytes(&file).expect("metadata");

        let shown = image_metadata::description(&found);
        assert!(!shown.contains(executed) && shown.len() < 1 << 17, "{} bytes: {shown:.200}", shown.len());
        assert!(shown.lines().all(|line| line.starts_with("  ")), "{shown:.200}");
        let json = image_metadata::json_line(Path::new(text), &found).expect("JSON");
        assert!(!json.contains(executed) && !json.contains('\n'), "{json:.200}");
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&read["path"], &read["metadata"]["prompt"]), (&text.into(), &text.into()));
    }
}
