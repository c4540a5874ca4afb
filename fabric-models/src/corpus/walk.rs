//! Search for image files in a folder and its subfolders.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use fabric_core::image::ImageError;

use super::Skipped;
use super::stamp::Stamp;

/// Extensions of image files, in lower case.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Image file that was found in the folder.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Path relative to the folder.
    pub(super) path: PathBuf,
    /// Name of the file in the index: the path with `/` between its parts. `None` if it is not Unicode; such a file is
    /// read at every opening, and recognized by its content.
    pub(super) key: Option<String>,
    /// Length and modification time before the file is read, so that a change while it is read shows later.
    pub(super) stamp: Option<Stamp>,
}

/// Result of a search.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The image files.
    pub(super) found: Vec<Found>,
    /// Reports on files and folders that could not be read.
    pub(super) skipped: Vec<Skipped>,
    /// Paths, relative to the folder, of files and folders that may have images although none could be found: what
    /// could not be read, links to nothing, and empty folders, which may be those of file systems that are not mounted.
    pub(super) inaccessible: Vec<PathBuf>,
}

/// Returns the image files in a folder and its subfolders, and what could not be read.
///
/// Every folder is listed once, so symbolic links that form a loop end the search.
pub(super) fn image_files(folder: &Path) -> Walk {
    let mut walk = Walk::default();
    let mut visited = HashSet::new();
    let (mut folders, mut links) = (vec![PathBuf::new()], Vec::new());
    // Links come last, so that a folder inside the corpus has its own path, not that of a link to it.
    while let Some(relative) = folders.pop().or_else(|| links.pop()) {
        let place = folder.join(&relative);
        let names = match list(&place, &mut visited) {
            Ok(Some(names)) => names,
            Ok(None) => continue,
            Err(source) => {
                if source.kind() != io::ErrorKind::NotFound {
                    walk.inaccessible.push(relative);
                }
                walk.skipped.extend(unreadable(&place, source));
                continue;
            }
        };
        if names.is_empty() {
            walk.inaccessible.push(relative);
            continue;
        }
        for name in names {
            let path = relative.join(name);
            let place = folder.join(&path);
            match fs::metadata(&place) {
                Ok(kind) if kind.is_dir() => {
                    if is_link(&place) {
                        links.push(path);
                    } else {
                        folders.push(path);
                    }
                }
                Ok(kind) if is_image(&path) => {
                    walk.found.push(Found { key: key(&path), stamp: Stamp::of(&kind), path });
                }
                Ok(_) => {}
                Err(source) => {
                    let has_vanished = source.kind() == io::ErrorKind::NotFound && !is_link(&place);
                    if is_image(&path) {
                        walk.skipped.extend(unreadable(&place, source));
                    }
                    if !has_vanished {
                        walk.inaccessible.push(path);
                    }
                }
            }
        }
    }
    walk
}

/// Returns the names in a folder, sorted; `None` if the folder was visited before.
fn list(place: &Path, visited: &mut HashSet<PathBuf>) -> io::Result<Option<Vec<OsString>>> {
    if !visited.insert(fs::canonicalize(place)?) {
        return Ok(None);
    }
    let mut names = fs::read_dir(place)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(Some(names))
}

/// Returns the report on a file or folder that cannot be read; `None` if it vanished.
fn unreadable(place: &Path, source: io::Error) -> Option<Skipped> {
    let error = ImageError::Read { place: place.display().to_string(), source };
    (!super::error::is_gone(&error)).then(|| Skipped { path: place.to_owned(), error: error.into() })
}

fn is_link(place: &Path) -> bool {
    fs::symlink_metadata(place).is_ok_and(|kind| kind.is_symlink())
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn key(path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}
