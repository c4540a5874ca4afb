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

/// Returns the image files in a folder and its subfolders, and what could not be read.
///
/// Every folder is listed once, so symbolic links that form a loop end the search.
pub(super) fn image_files(folder: &Path) -> (Vec<Found>, Vec<Skipped>) {
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    let mut visited = HashSet::new();
    let (mut folders, mut links) = (vec![PathBuf::new()], Vec::new());
    // Links come last, so that a folder inside the corpus has its own path, not that of a link to it.
    while let Some(relative) = folders.pop().or_else(|| links.pop()) {
        let place = folder.join(&relative);
        let names = list(&place, &mut visited).unwrap_or_else(|source| {
            skipped.extend(unreadable(&place, source));
            Vec::new()
        });
        for name in names {
            let path = relative.join(name);
            let place = folder.join(&path);
            match fs::metadata(&place) {
                Ok(kind) if kind.is_dir() => {
                    let is_link = fs::symlink_metadata(&place).is_ok_and(|kind| kind.is_symlink());
                    if is_link { links.push(path) } else { folders.push(path) }
                }
                Ok(kind) if is_image(&path) => found.push(Found { key: key(&path), stamp: Stamp::of(&kind), path }),
                Err(source) if is_image(&path) => skipped.extend(unreadable(&place, source)),
                _ => {}
            }
        }
    }
    (found, skipped)
}

/// Returns the names in a folder, sorted; none if the folder was visited before.
fn list(place: &Path, visited: &mut HashSet<PathBuf>) -> io::Result<Vec<OsString>> {
    if !visited.insert(fs::canonicalize(place)?) {
        return Ok(Vec::new());
    }
    let mut names = fs::read_dir(place)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Returns the report on a file or folder that cannot be read; `None` if it vanished.
fn unreadable(place: &Path, source: io::Error) -> Option<Skipped> {
    let error = ImageError::Read { place: place.display().to_string(), source };
    (!super::error::is_gone(&error)).then(|| Skipped { path: place.to_owned(), error: error.into() })
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn key(path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}
