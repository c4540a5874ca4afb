//! Saves and loads sessions: a folder with `session.json` and `images/HASH.png`, named by content hash.
//!
//! Images are written first and the JSON last, each to a temporary file that is then renamed, so the folder
//! always has one complete session, the old one or the new one. The JSON is parsed before it replaces the old
//! one, so a session that cannot be loaded is never saved. If two programs save to one folder at the same time,
//! the last one to finish wins without corruption, because images are only added. Files that no step refers
//! to (from undone rounds) stay until [`FeedbackSession::remove_unused_images`] deletes them. Temporary files of
//! processes that were ended are deleted a day later.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::{State, Step};
use super::known_files::KnownFiles;
use super::limits::check_texts;
use super::{FeedbackSession, MAX_SESSION_PIXELS, SessionError, check_pixels, pixels};
use crate::InvalidValue;
use crate::image::{ContentHash, Image, remove_leftovers, write_beside};
use crate::json::memory_of_values;

const JSON_FILE: &str = "session.json";

const FORMAT: &str = "fabric-session";
const VERSION: u64 = 5;

/// Maximum size of `session.json` in bytes: enough for a hundred thousand steps with long reports.
const MAX_JSON: u64 = 64 << 20;

/// Maximum memory of the values of `session.json` in bytes, as [`memory_of_values`] estimates it: enough for ten thousand
/// rounds or a hundred thousand votes. Without it, a file of 64 MiB could take several gigabytes.
const MAX_VALUES: u64 = 256 << 20;

/// Fields that every version of the format has; read first.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u64,
}

/// Content of `session.json`, borrowed from a session to be saved, or owned after reading.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionFile<'a> {
    format: Cow<'a, str>,
    version: u64,
    prompt: Cow<'a, str>,
    negative_prompt: Cow<'a, str>,
    settings: Cow<'a, Value>,
    seed: u64,
    seeds_drawn: u64,
    done: usize,
    steps: Cow<'a, [Step]>,
}

impl FeedbackSession {
    /// Saves the session, including undone steps, to a folder, which is created if necessary.
    ///
    /// Undamaged images that are already there are not written again. An image file is decoded to check it, unless an
    /// earlier save of this session checked it and its length and modification time are unchanged. The folder stays
    /// consistent even if the power fails: it has the previously saved session until it has this one. If two programs
    /// save to it at the same time, the last one wins. Temporary files that a save left there because its process was
    /// ended are deleted if they are older than a day.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be written, `session.json` would be too long, or the session could
    /// not be loaded again ([`SessionError::NotLoadable`]). A session saved there before is then unchanged.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), SessionError> {
        let folder = folder.as_ref();
        let file = SessionFile {
            format: FORMAT.into(),
            version: VERSION,
            prompt: self.origin.prompt.as_str().into(),
            negative_prompt: self.origin.negative_prompt.as_str().into(),
            settings: Cow::Borrowed(&self.origin.settings),
            seed: self.seed,
            seeds_drawn: self.seeds_drawn,
            done: self.done,
            steps: Cow::Borrowed(self.steps.as_slice()),
        };
        let json_path = folder.join(JSON_FILE);
        let place = json_path.display().to_string();
        let json =
            serde_json::to_vec_pretty(&file).map_err(|source| SessionError::Json { place: place.clone(), source })?;
        // Check that the JSON can be loaded again: the parser has limits that the writer does not have.
        check_length(&json_path, json.len() as u64)?;
        parse(&place, &json).map_err(|source| SessionError::NotLoadable { place, source: Box::new(source) })?;

        let images = folder.join("images");
        fs::create_dir_all(&images).map_err(io_error("make the folder", &images))?;
        for (hash, image) in &self.images {
            let path = image_path(folder, *hash);
            // Replace a damaged file, or an unrelated one with this name.
            if !self.known_files.is_intact(&path, || load_image(folder, *hash).is_ok()) {
                write_beside(&path, &image.to_png_bytes()?).map_err(io_error("write", &path))?;
            }
        }
        write_beside(&json_path, &json).map_err(io_error("write", &json_path))?;
        remove_temporary_files(folder);
        Ok(())
    }

    /// Deletes image files of a folder that no step of this session names, undone steps included, and returns how many.
    ///
    /// Such files are left over from undone rounds. Only files named by a hash, as [`Self::save`] names them, are
    /// deleted, and as there, old temporary files, which do not count. Call it after saving this session to the same
    /// folder, and not while another program saves there.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or a file cannot be deleted.
    pub fn remove_unused_images(&self, folder: impl AsRef<Path>) -> Result<usize, SessionError> {
        let images = folder.as_ref().join("images");
        let mut removed = 0;
        for entry in fs::read_dir(&images).map_err(io_error("read", &images))? {
            let path = entry.map_err(io_error("read", &images))?.path();
            let Some(hash) = path.file_name().and_then(|name| hash_of(name.to_str()?)) else { continue };
            if path.is_file() && !self.images.contains_key(&hash) {
                fs::remove_file(&path).map_err(io_error("delete", &path))?;
                removed += 1;
            }
        }
        remove_temporary_files(folder.as_ref());
        Ok(removed)
    }

    /// Loads a session saved by [`FeedbackSession::save`] and validates all of it.
    ///
    /// # Errors
    ///
    /// Returns an error if a file is missing or damaged, was written by another version or is inconsistent, or the
    /// content of an image does not match its file name.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, SessionError> {
        let folder = folder.as_ref();
        let json_path = folder.join(JSON_FILE);
        let place = json_path.display().to_string();
        let file = parse(&place, &read_json(&json_path)?)?;

        let origin = State {
            negative_prompt: file.negative_prompt.into_owned(),
            settings: file.settings.into_owned(),
            ..State::new(file.prompt.into_owned())
        };
        let mut session = Self {
            state: origin.clone(),
            origin,
            seed: file.seed,
            seeds_drawn: file.seeds_drawn,
            steps: file.steps.into_owned(),
            done: file.done,
            images: BTreeMap::new(),
            known_files: KnownFiles::default(),
        };
        let hashes: Vec<ContentHash> = session.steps.iter().flat_map(Step::images).collect();
        let mut total = 0;
        for hash in hashes {
            if let Entry::Vacant(free) = session.images.entry(hash) {
                let image = load_image(folder, hash)?;
                total += pixels(std::iter::once(&image));
                check_pixels(total, MAX_SESSION_PIXELS)?;
                free.insert(image);
            }
        }
        session.replay();
        Ok(session)
    }
}

/// Reads `session.json` and checks that it is consistent.
fn parse(place: &str, json: &[u8]) -> Result<SessionFile<'static>, SessionError> {
    let json_error = |source| SessionError::Json { place: place.to_owned(), source };
    let Header { format, version } = serde_json::from_slice(json).map_err(json_error)?;
    if (format.as_str(), version) != (FORMAT, VERSION) {
        let got = format!("`{}` version {version}", format.chars().take(80).collect::<String>());
        let expected = format!("`{FORMAT}` version {VERSION}");
        return Err(SessionError::Version { place: place.to_owned(), got, expected });
    }
    check_values(place, json)?;
    let file: SessionFile<'_> = serde_json::from_slice(json).map_err(json_error)?;
    check_steps(place, &file)?;
    Ok(file)
}

/// Checks that the values will not take far more memory than the text.
fn check_values(place: &str, json: &[u8]) -> Result<(), SessionError> {
    let got = memory_of_values(json);
    if got <= MAX_VALUES {
        return Ok(());
    }
    Err(SessionError::TooManyValues { place: place.to_owned(), got, expected: MAX_VALUES })
}

/// Deletes temporary files that a save left in the folder of a session, because its process was ended.
fn remove_temporary_files(folder: &Path) {
    remove_leftovers(folder, |name| name == JSON_FILE);
    remove_leftovers(&folder.join("images"), |name| hash_of(name).is_some());
}

/// Returns the hash in the name of an image file.
fn hash_of(name: &str) -> Option<ContentHash> {
    name.strip_suffix(".png")?.parse().ok()
}

/// Path of an image. A hash has only hex digits, so a name in the JSON cannot lead outside the folder.
fn image_path(folder: &Path, hash: ContentHash) -> PathBuf {
    folder.join("images").join(format!("{hash}.png"))
}

fn load_image(folder: &Path, hash: ContentHash) -> Result<Image, SessionError> {
    let path = image_path(folder, hash);
    let image = Image::open(&path)?;
    let got = image.content_hash();
    if got == hash { Ok(image) } else { Err(SessionError::WrongImage { place: path.display().to_string(), got }) }
}

fn read_json(path: &Path) -> Result<Vec<u8>, SessionError> {
    let kind = fs::metadata(path).map_err(io_error("read", path))?;
    if !kind.is_file() {
        return Err(io_error("read", path)(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
    }
    check_length(path, kind.len())?;
    let mut json = Vec::new();
    let file = File::open(path).map_err(io_error("read", path))?;
    file.take(MAX_JSON).read_to_end(&mut json).map_err(io_error("read", path))?;
    Ok(json)
}

fn check_length(path: &Path, got: u64) -> Result<(), SessionError> {
    if got <= MAX_JSON {
        Ok(())
    } else {
        Err(SessionError::TooLong { place: path.display().to_string(), got, expected: MAX_JSON })
    }
}

/// Maximum number of seeds drawn by a session.
const MOST_SEEDS: u64 = 1 << 48;

fn check_steps(place: &str, file: &SessionFile<'_>) -> Result<(), SessionError> {
    let inconsistent = |what: String, got: String, expected: String| {
        Err(SessionError::Inconsistent { place: place.to_owned(), what, got, expected })
    };
    let unusable = |of: &str, InvalidValue { what, got, expected, .. }: InvalidValue| {
        inconsistent(format!("{what} of {of}"), got, expected)
    };
    if file.done > file.steps.len() {
        let expected = format!("at most {} steps", file.steps.len());
        return inconsistent("`done`".to_owned(), file.done.to_string(), expected);
    }
    // The limit is far above any real use and leaves room to count further without overflow.
    if file.seeds_drawn > MOST_SEEDS {
        let expected = format!("at most {MOST_SEEDS}");
        return inconsistent("`seeds_drawn`".to_owned(), file.seeds_drawn.to_string(), expected);
    }
    if let Err(error) = check_texts(&file.prompt, &file.negative_prompt, &file.settings) {
        return unusable("the session", error);
    }
    for (index, step) in file.steps.iter().enumerate() {
        if let Err(error) = step.validate() {
            return unusable(&format!("step {index}"), error);
        }
        if let Step::Round { images, seeds, .. } = step {
            if images.is_empty() {
                return inconsistent(format!("images of step {index}"), "0".to_owned(), "at least 1".to_owned());
            }
            // Images that were not generated have no seeds.
            if !seeds.is_empty() && images.len() != seeds.len() {
                let expected = format!("{}, one per image, or none", images.len());
                return inconsistent(format!("number of seeds of step {index}"), seeds.len().to_string(), expected);
            }
        }
    }
    Ok(())
}

fn io_error(doing: &'static str, place: &Path) -> impl FnOnce(io::Error) -> SessionError {
    move |source| SessionError::Io { doing, place: place.display().to_string(), source }
}
