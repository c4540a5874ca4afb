//! Disks that are full, folders that cannot be written to, and files that vanish or shrink while they are in use: typed
//! errors, and the old data stays.
//!
//! A full disk is a process whose files may have no more than 4 KiB, so that a longer write fails half way. What a spill
//! folder does when its files are damaged or vanish is tested in `tests/laws/cached.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fabric::core::Error;
use fabric::core::fabric::ReferencePass;
use fabric::core::image::{Image, ImageError};
use fabric::core::session::{FeedbackSession, SessionError};
use fabric::models::load::{Dtype, HostTensor, LoadError, TensorInfo, write_safetensors};
use fabric::models::{ConvertOptions, ModelConversion, ModelError};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use tempfile::TempDir;

use crate::images::{assert_same, request};
use crate::models::{device, folder, pipeline};

/// Image of noise, which a PNG file cannot compress: 12 kB.
fn noise(seed: u64) -> Image {
    let mut draws = ChaCha12Rng::seed_from_u64(seed);
    Image::from_rgb(64, 64, (0..64 * 64 * 3).map(|_| draws.random()).collect()).expect("an image")
}

/// Writes a file of 8 kB of weights.
fn write_weights(path: &Path, value: u8) -> Result<(), LoadError> {
    let info = TensorInfo { dtype: Dtype::U8, shape: vec![8000] };
    let infos = [("a".to_owned(), info.clone())];
    write_safetensors(path, &BTreeMap::new(), &infos, |_| {
        Ok(HostTensor { info: info.clone(), bytes: vec![value; 8000] })
    })
}

fn convert(to: &Path) -> Result<(), ModelError> {
    ModelConversion::open(folder(), &device(), &ConvertOptions::default()).expect("a model").write(to).map(drop)
}

/// A session of one small image.
fn session() -> FeedbackSession {
    let mut session = FeedbackSession::new("a star").with_seed(1);
    let small = Image::filled(8, 8, [200, 0, 0]).expect("an image");
    session.push_round(vec![(small, 1)], serde_json::Value::Null).expect("a round");
    session
}

/// The session with another round, whose image is large.
fn longer(mut session: FeedbackSession) -> FeedbackSession {
    session.push_round(vec![(noise(2), 2)], serde_json::Value::Null).expect("a round");
    session
}

/// Asserts that every writer fails in this folder with its typed error; `said` is in each message.
fn assert_refused(place: &Path, said: &str) {
    let has_said = |error: &dyn std::error::Error| {
        // The reason may be in the message or in its source.
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error} {source}").contains(said), "{error}; {source}");
    };
    let error = longer(session()).save(place.join("session")).expect_err("a session");
    assert!(matches!(error, SessionError::Io { .. }), "{error:?}");
    has_said(&error);
    let error = noise(3).save(place.join("image.png")).expect_err("an image");
    assert!(matches!(error, ImageError::Write { .. }), "{error:?}");
    has_said(&error);
    let error = write_weights(&place.join("weights.safetensors"), 2).expect_err("a file of weights");
    assert!(matches!(error, LoadError::Io { .. }), "{error:?}");
    has_said(&error);
    let error = convert(&place.join("model")).expect_err("a model folder");
    assert!(matches!(error, ModelError::Load(LoadError::Io { .. })), "{error:?}");
    has_said(&error);
}

/// Names of everything in a folder and its folders, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        names.push(path.display().to_string());
        if path.is_dir() {
            names.extend(self::names(&path));
        }
    }
    names.sort();
    names
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_a_typed_error_of_every_writer_and_keeps_what_was_there() {
    use crate::child;

    const TEST: &str = "disks::a_full_disk_is_a_typed_error_of_every_writer_and_keeps_what_was_there";
    if let Some(place) = child::place() {
        assert_refused(&place, "File too large");
        let mut spilling = request();
        spilling.settings.fabric.execution.pass = ReferencePass::Cached { chunk: 1, budget: 0, half: false };
        let full = pipeline().with_spill(&place, 1 << 30).expect("an empty folder fits");
        let made = full.generate(&spilling).expect("images all the same");
        assert_same(&made, &pipeline().generate(&spilling).expect("images"), "without a disk");
        let error = made.report.spill_error.expect("an error of the disk");
        assert!(error.contains("File too large") && made.report.cache.disk_bytes == 0, "{error}");
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let [image, weights] = ["image.png", "weights.safetensors"].map(|name| place.path().join(name));
    session().save(place.path().join("session")).expect("a session");
    noise(1).save(&image).expect("an image");
    write_weights(&weights, 1).expect("a file of weights");
    let old_session = FeedbackSession::load(place.path().join("session")).expect("a session");
    let (old_weights, old_names) = (fs::read(&weights).expect("a file"), names(place.path()));

    child::limited(TEST, place.path());
    assert_eq!(FeedbackSession::load(place.path().join("session")).expect("a session"), old_session);
    assert!(Image::open(&image).expect("an image") == noise(1));
    assert!(fs::read(&weights).expect("a file") == old_weights);
    assert_eq!(names(place.path()), old_names, "nothing unfinished is left");
}

/// Returns a folder that cannot be written to, even by the administrator.
fn unwritable() -> (Option<TempDir>, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut permissions = fs::metadata(folder.path()).expect("a folder").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(folder.path(), permissions).expect("other permissions");
    if fs::File::create(folder.path().join("trial")).is_err() {
        let path = folder.path().to_owned();
        return (Some(folder), path);
    }
    // The administrator may write everywhere but in the system's view of processes.
    (None, "/proc/self".into())
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_to_is_a_typed_error_of_every_writer() {
    let (_folder, place) = unwritable();
    assert_refused(&place, "os error");
    let error = pipeline().with_spill(&place, 1 << 30).expect_err("a spill folder");
    assert!(matches!(error, Error::SpillFolder { .. }), "{error:?}");
}

#[test]
fn files_of_a_session_that_vanish_are_written_again_by_the_next_save() {
    let place = tempfile::tempdir().expect("a folder");
    let session = longer(session());
    session.save(place.path()).expect("a saved session");
    let image = place.path().join(format!("images/{}.png", noise(2).content_hash()));
    let images = place.path().join("images");
    let vanish: [&dyn Fn(); 3] =
        [&|| fs::remove_file(&image).expect("an image"), &|| fs::remove_dir_all(&images).expect("a folder"), &|| {
            fs::remove_dir_all(place.path()).expect("a folder");
        }];
    for (at, vanish) in vanish.into_iter().enumerate() {
        vanish();
        let error = FeedbackSession::load(place.path()).expect_err("an incomplete session").to_string();
        assert!(error.contains(if at < 2 { "images" } else { "session.json" }), "{error}");
        session.save(place.path()).expect("a saved session");
        assert_eq!(FeedbackSession::load(place.path()).expect("a session"), session, "{at}");
    }
}

#[test]
fn weights_that_shrink_while_a_model_is_converted_are_a_typed_error_and_leave_no_folder() {
    let place = tempfile::tempdir().expect("a folder");
    let (model, out) = (place.path().join("model"), place.path().join("out"));
    convert(&model).expect("a model");
    let conversion = ModelConversion::open(&model, &device(), &ConvertOptions::default()).expect("a model");
    let weights = model.join("unet/diffusion_pytorch_model.safetensors");
    let length = fs::metadata(&weights).expect("a file").len();
    fs::File::options().write(true).open(&weights).and_then(|file| file.set_len(length / 2)).expect("a shorter file");
    let error = conversion.write(&out).expect_err("half a network");
    assert!(error.to_string().contains("diffusion_pytorch_model.safetensors"), "{error}");
    let left: Vec<String> = names(place.path()).into_iter().filter(|name| !name.contains("/model")).collect();
    assert!(left.is_empty(), "{left:?}");
}
