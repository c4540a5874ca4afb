//! Writers that are killed (SIGKILL) at random points: what is on disk afterwards loads, and is the old version or the new
//! one.
//!
//! A writer is this program, run again for one test alone. It writes numbered versions for ever, and says on its standard
//! output which it has finished. `FABRIC_KILLS` sets how often each is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use fabric::core::fabric::ReferencePass;
use fabric::core::image::Image;
use fabric::core::pipeline::Request;
use fabric::core::session::FeedbackSession;
use fabric::models::load::{Dtype, HostTensor, SafetensorsFile, TensorInfo, TensorSource, write_safetensors};
use fabric::models::{ConvertOptions, ModelConversion};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::child::{command, figure, place};
use crate::images::{assert_same, image, request};
use crate::models::{device, folder, pipeline};

/// Kills of each writer: few enough for every check of the repository.
const KILLS: usize = 6;

/// Longest time that a writer of small files lives after it has begun, in milliseconds: some versions of each.
pub(crate) const LIFE: u64 = 60;

/// Longest time that a writer of a whole model lives.
const LIFE_OF_CONVERSION: u64 = 500;

/// Returns a random time below this number of milliseconds.
fn life(draws: &mut ChaCha12Rng, most: u64) -> Duration {
    Duration::from_micros(draws.random_range(0..1000 * most))
}

fn kills() -> usize {
    let Ok(asked) = std::env::var("FABRIC_KILLS") else { return KILLS };
    asked.parse().unwrap_or_else(|_| panic!("FABRIC_KILLS: expected a number, as in 100, got {asked:?}"))
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // The test's own line has no end yet.
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("somebody who listens");
}

/// Writes versions until this process is killed, beginning after `last`.
pub(crate) fn write_for_ever(last: Option<usize>, mut write: impl FnMut(usize)) {
    let first = last.map_or(0, |last| last + 1);
    say("begins");
    for version in first.. {
        write(version);
        say(&format!("finished {version}"));
    }
}

/// Starts a writer and kills it; returns the last version that it finished. It lives for `life` after it has begun, or
/// after it has finished a version.
fn killed_after(test: &str, place: &Path, life: Duration, finishes_one: bool) -> Option<usize> {
    let version = |line: &str| line.strip_prefix("finished ")?.parse().ok();
    let mut child = command(test, place).stdout(Stdio::piped()).spawn().expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
    let begun = lines.find(|line| if finishes_one { version(line).is_some() } else { line == "begins" });
    if begun.is_some() {
        sleep(life);
        assert!(child.try_wait().expect("a state").is_none(), "{test}: the writer ended by itself");
        child.kill().expect("a kill");
    }
    child.wait().expect("an end");
    let begun = begun.unwrap_or_else(|| panic!("{test}: the writer failed at once"));
    lines.filter_map(|line| version(&line)).last().or(version(&begun))
}

/// Kills the writer of a test at random points. `write` gets the folder and the last version in it, and ends with
/// [`write_for_ever`]. After each kill, `load` returns the version in the folder, if there is one, and panics if it is
/// torn.
pub(crate) fn drill(
    test: &str,
    longest_life: u64,
    write: impl FnOnce(&Path, Option<usize>),
    load: impl Fn(&Path) -> Option<usize>,
) {
    if let Some(place) = place() {
        let last = load(&place);
        return write(&place, last);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut draws = ChaCha12Rng::seed_from_u64(25);
    let (mut known, mut unreported) = (None, 0);
    for kill in 0..kills() {
        let finished = killed_after(test, folder.path(), life(&mut draws, longest_life), kill % 2 == 1).or(known);
        let got = load(folder.path());
        let next = finished.map_or(0, |last| last + 1);
        assert!(got == finished || got == Some(next), "kill {kill}: version {got:?}, expected {finished:?} or {next}");
        unreported += usize::from(got != finished);
        known = got;
    }
    let versions = known.map_or(0, |last| last + 1);
    figure(&format!("figure: {test}: {} kills, {versions} versions, 0 torn, {unreported} before the report", kills()));
    assert!(known.is_some(), "no version was finished, so this proves nothing");
}

/// Returns a session that tells its version: the prompt is its number, and the images depend on it.
fn session(version: usize) -> FeedbackSession {
    let mut session = FeedbackSession::new(version.to_string()).with_seed(1);
    for round in 0..=version % 3 {
        let images = (0..2).map(|at| (image(10 * version + 3 * round + at), at as u64)).collect();
        let round = session.push_round(images, serde_json::Value::Null).expect("a round");
        session.like(&round[0]).expect("a vote");
    }
    session
}

#[test]
fn a_session_is_whole_after_its_writer_was_killed() {
    let load = |place: &Path| {
        if !place.join("session.json").exists() {
            return None;
        }
        let loaded = FeedbackSession::load(place).expect("a session");
        let version = loaded.prompt().parse().expect("a version");
        let images = |of: &FeedbackSession| of.rounds().iter().map(|round| round.images.clone()).collect::<Vec<_>>();
        assert_eq!(images(&loaded), images(&session(version)));
        assert_eq!(loaded.liked().count(), version % 3 + 1);
        Some(version)
    };
    let write = |place: &Path, last: Option<usize>| {
        write_for_ever(last, |version| session(version).save(place).expect("a saved session"));
    };
    drill("killed_writers::a_session_is_whole_after_its_writer_was_killed", LIFE, write, load);
}

#[test]
fn an_image_is_whole_after_its_writer_was_killed() {
    /// Image whose first pixel is its version, and all others too.
    fn numbered(version: usize) -> Image {
        let [red, green, blue, ..] = version.to_le_bytes();
        Image::filled(300, 200, [red, green, blue]).expect("an image")
    }
    let load = |place: &Path| {
        let path = place.join("image.png");
        let image = path.exists().then(|| Image::open(path).expect("an image"))?;
        let [red, green, blue] = image.pixel(0, 0).map(usize::from);
        let version = red | green << 8 | blue << 16;
        assert!(image == numbered(version), "version {version} is mixed with another");
        Some(version)
    };
    let write = |place: &Path, last: Option<usize>| {
        write_for_ever(last, |version| numbered(version).save(place.join("image.png")).expect("a saved image"));
    };
    drill("killed_writers::an_image_is_whole_after_its_writer_was_killed", LIFE, write, load);
}

const VALUES: usize = 50_000;

#[test]
fn a_file_of_weights_is_whole_after_its_writer_was_killed() {
    let load = |place: &Path| {
        let path = place.join("weights.safetensors");
        let file = path.exists().then(|| SafetensorsFile::open(path).expect("a file"))?;
        let version: usize = file.metadata()["version"].parse().expect("a version");
        for name in ["a", "b"] {
            let tensor = file.read(name).expect("a tensor");
            assert!(
                tensor.bytes == (version as f32).to_le_bytes().repeat(VALUES),
                "version {version}: {name} is mixed"
            );
        }
        Some(version)
    };
    let write = |place: &Path, last: Option<usize>| {
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![VALUES] };
        let infos = ["a", "b"].map(|name| (name.to_owned(), info.clone()));
        write_for_ever(last, |version| {
            let metadata = BTreeMap::from([("version".to_owned(), version.to_string())]);
            let bytes = (version as f32).to_le_bytes().repeat(VALUES);
            let read = |_: &str| Ok(HostTensor { info: info.clone(), bytes: bytes.clone() });
            write_safetensors(place.join("weights.safetensors"), &metadata, &infos, read).expect("a file");
        });
    };
    drill("killed_writers::a_file_of_weights_is_whole_after_its_writer_was_killed", LIFE, write, load);
}

/// The content of all files of a folder, by their paths in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("a path in it").to_owned();
                found.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    found
}

fn conversion() -> ModelConversion {
    ModelConversion::open(folder(), &device(), &ConvertOptions::default()).expect("a model")
}

#[test]
fn a_model_folder_is_whole_or_absent_after_its_writer_was_killed() {
    let whole = tempfile::tempdir().expect("a folder");
    conversion().write(whole.path().join("whole")).expect("a model");
    let whole = contents(&whole.path().join("whole"));
    assert!(whole.len() >= 8, "{:?}", whole.keys());
    let load = |place: &Path| {
        let entries = fs::read_dir(place).expect("a folder").map(|entry| entry.expect("an entry").path());
        let number = |path: PathBuf| path.file_name()?.to_str()?.strip_prefix("model-")?.parse::<usize>().ok();
        let versions: Vec<usize> = entries.filter_map(number).collect();
        for version in &versions {
            assert!(contents(&place.join(format!("model-{version}"))) == whole, "version {version} is torn");
        }
        versions.into_iter().max()
    };
    let write = |place: &Path, last: Option<usize>| {
        let conversion = conversion();
        write_for_ever(last, |version| {
            conversion.write(place.join(format!("model-{version}"))).expect("a model");
        });
    };
    const TEST: &str = "killed_writers::a_model_folder_is_whole_or_absent_after_its_writer_was_killed";
    drill(TEST, LIFE_OF_CONVERSION, write, load);
}

/// A request whose references go to disk.
fn spilling() -> Request {
    let mut request = request().with_seeds([1]);
    request.settings.fabric.execution.pass = ReferencePass::Cached { chunk: 1, budget: 0, half: false };
    request
}

#[test]
fn a_cache_on_disk_of_a_killed_process_is_never_read_and_is_deleted() {
    const TEST: &str = "killed_writers::a_cache_on_disk_of_a_killed_process_is_never_read_and_is_deleted";
    if let Some(place) = place() {
        let pipeline = pipeline().with_spill(place, 1 << 30).expect("room to spill");
        return write_for_ever(None, |_| {
            pipeline.clear_caches();
            pipeline.generate(&spilling()).expect("an image");
        });
    }
    let folder = tempfile::tempdir().expect("a folder");
    let expected = pipeline().generate(&spilling()).expect("an image");
    let mut draws = ChaCha12Rng::seed_from_u64(26);
    let left = || fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files = 0;
    for kill in 0..kills() {
        killed_after(TEST, folder.path(), life(&mut draws, LIFE), false);
        files += left().map(|own| fs::read_dir(own).expect("a spill folder").count()).sum::<usize>();
        let pipeline = pipeline().with_spill(folder.path(), 1 << 30).expect("room to spill");
        for _ in 0..2 {
            assert_same(&pipeline.generate(&spilling()).expect("an image"), &expected, &format!("kill {kill}"));
        }
        assert_eq!(pipeline.cache_stats().disk_failures, 0);
        drop(pipeline);
        assert_eq!(left().count(), 1, "the folder of the killed process is kept for an hour");
        for own in left() {
            let long_ago = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
            fs::File::open(own).and_then(|own| own.set_modified(long_ago)).expect("another time");
        }
        drop(crate::models::pipeline().with_spill(folder.path(), 1 << 30).expect("room to spill"));
        assert_eq!(left().count(), 0, "and deleted then");
    }
    figure(&format!("figure: {TEST}: {} kills, {files} files left, 0 read", kills()));
}
