//! Image files that were verified before, so that a save does not decode all of them again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Length and modification time of a file.
type Stamp = (u64, SystemTime);

/// Age below which a file is not remembered: another change in the same tick of the file system's clock would not show.
const TICK: Duration = Duration::from_secs(3);

/// Files that a session has read and found intact, with the length and modification time that they had then.
///
/// A file that still has both is taken to be intact. Shared by copies of a session, and no part of its value.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownFiles(Arc<Mutex<BTreeMap<PathBuf, Stamp>>>);

impl PartialEq for KnownFiles {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl KnownFiles {
    /// Whether a file is intact: unchanged since it was verified, or verified now by `check`.
    pub(super) fn is_intact(&self, path: &Path, check: impl FnOnce() -> bool) -> bool {
        // Taken before the file is read: a change during the check is seen at the next one.
        let stamp = stamp(path);
        if stamp.is_some() && self.stamp_of(path) == stamp {
            return true;
        }
        let old_enough = |(_, modified): &Stamp| modified.elapsed().is_ok_and(|age| age > TICK);
        let stamp = stamp.filter(old_enough);
        let intact = check();
        if let (true, Some(stamp)) = (intact, stamp) {
            self.remember(path, stamp);
        }
        intact
    }

    fn stamp_of(&self, path: &Path) -> Option<Stamp> {
        let path = std::path::absolute(path).ok()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&path).copied()
    }

    fn remember(&self, path: &Path, stamp: Stamp) {
        if let Ok(path) = std::path::absolute(path) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, stamp);
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_is_checked_again_only_after_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let known = KnownFiles::default();
        let checked = |result: bool| {
            let mut checked = false;
            let intact = known.is_intact(&path, || {
                checked = true;
                result
            });
            (checked, intact)
        };
        let write = |text: &str, seconds_ago: u64| {
            fs::write(&path, text).unwrap();
            let time = SystemTime::now() - Duration::from_secs(seconds_ago);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        assert_eq!(checked(false), (true, false), "no such file");
        write("one", 0);
        assert_eq!([checked(true), checked(true)], [(true, true); 2], "too new to be sure");
        write("one", 60);
        assert_eq!([checked(true), checked(true)], [(true, true), (false, true)]);
        write("two", 30);
        assert_eq!([checked(false), checked(false)], [(true, false); 2], "another time");
        write("longer", 60);
        assert_eq!(checked(false), (true, false), "another length");
    }
}
