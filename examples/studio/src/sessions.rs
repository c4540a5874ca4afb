//! All sessions of the studio: folders on disk, of which those in use are in memory.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fabric::core::image::ContentHash;
use serde::de::IgnoredAny;

use crate::about::About;
use crate::error::ApiError;
use crate::ids::Id;
use crate::studio_session::StudioSession;
use crate::{StudioError, lock};

/// Largest number of sessions in memory. Others are loaded again when they are needed.
const MOST_LOADED: usize = 16;

/// File that a studio locks as long as it uses a folder: what two of them keep in memory would not agree.
const LOCK_FILE: &str = ".lock";

/// Beginnings of the names of folders that a crash can leave behind.
const UNFINISHED: [&str; 2] = [".deleted-", ".import-"];

/// A session: on disk alone, in memory too, unreadable, or deleted by another request that came first.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each session, and most of them are small")]
enum Entry {
    Stored(About),
    Loaded(StudioSession),
    Broken(String),
    Deleted,
}

/// The sessions of a folder. Each has a lock of its own, which no one holds while images are generated.
#[derive(Debug)]
pub(crate) struct Sessions {
    folder: PathBuf,
    entries: Mutex<BTreeMap<Id, Arc<Mutex<Entry>>>>,
    /// Sessions in memory, the one used last at the end.
    recent: Mutex<Vec<Id>>,
    _lock: File,
}

impl Sessions {
    /// Lists the sessions of a folder, which is created if necessary. Unreadable ones are listed with their error.
    pub(crate) fn open(folder: &Path) -> Result<Self, StudioError> {
        let failed = |source| StudioError::Folder { place: folder.display().to_string(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock_file = File::create(folder.join(LOCK_FILE)).map_err(failed)?;
        // Some file systems have no locks.
        if let Err(TryLockError::WouldBlock) = lock_file.try_lock() {
            return Err(StudioError::InUse { place: folder.display().to_string() });
        }
        let mut entries = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(id) = name.parse::<Id>() {
                entries.insert(id, Arc::new(Mutex::new(listed(&path))));
            } else if UNFINISHED.iter().any(|beginning| name.starts_with(beginning)) {
                fs::remove_dir_all(&path).map_err(failed)?;
            }
        }
        let (entries, recent) = (Mutex::new(entries), Mutex::default());
        Ok(Self { folder: folder.to_owned(), entries, recent, _lock: lock_file })
    }

    /// The folder of all sessions.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// All sessions by id, with the error of those that cannot be read.
    pub(crate) fn list(&self) -> Vec<(Id, Result<About, String>)> {
        let entries: Vec<_> = lock(&self.entries).iter().map(|(id, entry)| (*id, entry.clone())).collect();
        let about = |(id, entry): (Id, Arc<Mutex<Entry>>)| {
            let about = match &*lock(&entry) {
                Entry::Stored(about) => Ok(about.clone()),
                Entry::Loaded(session) => Ok(session.about.clone()),
                Entry::Broken(error) => Err(error.clone()),
                Entry::Deleted => return None,
            };
            Some((id, about))
        };
        entries.into_iter().filter_map(about).collect()
    }

    /// Whether there is a session with this id.
    pub(crate) fn has(&self, id: Id) -> bool {
        lock(&self.entries).contains_key(&id)
    }

    /// Path of an image's file, whether or not it exists.
    pub(crate) fn image_path(&self, id: Id, image: ContentHash) -> PathBuf {
        self.path(id).join("images").join(format!("{image}.png"))
    }

    /// Reads a session.
    pub(crate) fn read<T>(
        &self,
        id: Id,
        work: impl FnOnce(&StudioSession) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.with(id, |session, _| work(session))
    }

    /// Changes a session and saves it. If either fails, the session stays as it was.
    pub(crate) fn change<T>(
        &self,
        id: Id,
        work: impl FnOnce(&mut StudioSession) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.with(id, |session, folder| {
            let mut changed = session.clone();
            let result = work(&mut changed)?;
            changed.save(folder)?;
            *session = changed;
            Ok(result)
        })
    }

    /// Works on a session and its folder under the session's lock.
    pub(crate) fn with<T>(
        &self,
        id: Id,
        work: impl FnOnce(&mut StudioSession, &Path) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let (entry, path) = (self.entry(id)?, self.path(id));
        let result = work(loaded(&mut lock(&entry), id, &path)?, &path);
        self.unload_others(id);
        result
    }

    /// Saves a new session and returns its id.
    pub(crate) fn add(&self, mut session: StudioSession) -> Result<Id, ApiError> {
        self.add_folder(|path| {
            let saved = session.save(path);
            if saved.is_err() {
                // Best effort: the error of saving is the one to return.
                let _ = fs::remove_dir_all(path);
            }
            saved
        })
    }

    /// Adds the session that `make` saves in the folder of the given path, which does not exist yet.
    pub(crate) fn add_folder(&self, make: impl FnOnce(&Path) -> Result<(), ApiError>) -> Result<Id, ApiError> {
        let id = std::iter::repeat_with(Id::random).find(|id| !self.has(*id) && !self.path(*id).exists());
        let id = id.ok_or_else(|| ApiError::internal("no free id"))?;
        make(&self.path(id))?;
        // Read before the lock is taken, which all requests need.
        let entry = listed(&self.path(id));
        lock(&self.entries).insert(id, Arc::new(Mutex::new(entry)));
        Ok(id)
    }

    /// Deletes a session with its folder, unless `check` refuses.
    pub(crate) fn delete(&self, id: Id, check: impl FnOnce() -> Result<(), ApiError>) -> Result<(), ApiError> {
        let failed = |error| ApiError::storage("the session cannot be deleted", error);
        let (entry, path) = (self.entry(id)?, self.folder.join(format!(".deleted-{id}")));
        let mut entry = lock(&entry);
        if matches!(*entry, Entry::Deleted) {
            return Err(ApiError::unknown_session(id));
        }
        check()?;
        // Renamed first: after a crash there is a whole session or none.
        let renamed = fs::rename(self.path(id), &path);
        let is_gone = renamed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if !is_gone {
            renamed.map_err(failed)?;
        }
        *entry = Entry::Deleted;
        lock(&self.entries).remove(&id);
        if is_gone { Ok(()) } else { fs::remove_dir_all(&path).map_err(failed) }
    }

    /// The folder of a session. An id has only hex digits, so it cannot lead elsewhere.
    fn path(&self, id: Id) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn entry(&self, id: Id) -> Result<Arc<Mutex<Entry>>, ApiError> {
        lock(&self.entries).get(&id).cloned().ok_or_else(|| ApiError::unknown_session(id))
    }

    /// Notes that a session was used, and lets go of those that were not used for longest. All of them are saved.
    fn unload_others(&self, id: Id) {
        let mut recent = lock(&self.recent);
        recent.retain(|other| *other != id);
        recent.push(id);
        let excess = recent.len().saturating_sub(MOST_LOADED);
        let old: Vec<Id> = recent.drain(..excess).collect();
        drop(recent);
        for entry in old.into_iter().filter_map(|id| self.entry(id).ok()) {
            // A session that is locked is in use, and noted again afterwards.
            let Ok(mut entry) = entry.try_lock() else { continue };
            if let Entry::Loaded(session) = &*entry {
                let about = session.about.clone();
                *entry = Entry::Stored(about);
            }
        }
    }
}

/// Loads a session unless it is in memory already.
fn loaded<'a>(entry: &'a mut Entry, id: Id, path: &Path) -> Result<&'a mut StudioSession, ApiError> {
    match entry {
        Entry::Loaded(_) => {}
        Entry::Deleted => return Err(ApiError::unknown_session(id)),
        // An unreadable one may have been repaired.
        Entry::Stored(_) | Entry::Broken(_) => match StudioSession::load(path) {
            Ok(session) => *entry = Entry::Loaded(session),
            Err(error) => {
                *entry = Entry::Broken(error.to_string());
                return Err(error);
            }
        },
    }
    let Entry::Loaded(session) = entry else { unreachable!("the session was just loaded") };
    Ok(session)
}

/// Returns the entry of a folder. Its images are read only if there is no summary.
fn listed(path: &Path) -> Entry {
    let is_json = |text: Vec<u8>| serde_json::from_slice::<IgnoredAny>(&text).is_ok();
    let about = About::read(path).ok().flatten().filter(|about| about.summary.is_some());
    match about {
        Some(about) if fs::read(path.join("session.json")).is_ok_and(is_json) => Entry::Stored(about),
        _ => match StudioSession::load(path) {
            Ok(session) => Entry::Stored(session.about),
            Err(error) => Entry::Broken(error.to_string()),
        },
    }
}
