//! Sessions as zip files: `session.json`, `studio.json` and `images/HASH.png`, and nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fabric::core::image::ContentHash;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::about::ABOUT_FILE;
use crate::edits::check_texts;
use crate::error::{ApiError, ErrorCode};
use crate::ids::Id;
use crate::sessions::Sessions;
use crate::studio_session::StudioSession;

const SESSION_FILE: &str = "session.json";
const IMAGES: &str = "images";

/// Largest number of files of a session. A session holds at most 2048 images of 512x512.
const MOST_FILES: usize = 10_000;

/// Largest number of bytes to read for the list of files of a zip file, which is in memory as a whole.
const MOST_LISTED: usize = 4 << 20;

/// Advice for a zip file that cannot be imported.
const NEXT: &str = "import a file that the studio exported";

/// Largest size of all files of a session in bytes, unpacked.
const MOST_BYTES: u64 = 1 << 30;

/// Largest size of a JSON file of a session in bytes, unpacked; that of the library.
const MOST_JSON: u64 = 64 << 20;

/// Packs a session folder into a file without a name in the folder `place`.
pub(crate) fn pack(folder: &Path, place: &Path) -> Result<File, ApiError> {
    let pack = || -> io::Result<File> {
        let mut zip = ZipWriter::new(tempfile::tempfile_in(place)?);
        let options = |method| SimpleFileOptions::default().compression_method(method);
        for name in [SESSION_FILE, ABOUT_FILE] {
            zip.start_file(name, options(CompressionMethod::Deflated))?;
            zip.write_all(&fs::read(folder.join(name))?)?;
        }
        for entry in fs::read_dir(folder.join(IMAGES))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = format!("{IMAGES}/{name}");
            // Not a temporary file. PNG files are compressed already.
            if accepted(name.as_bytes()).is_some() {
                zip.start_file(name, options(CompressionMethod::Stored))?;
                zip.write_all(&fs::read(&path)?)?;
            }
        }
        let mut file = zip.finish()?;
        file.rewind()?;
        Ok(file)
    };
    pack().map_err(|error| ApiError::storage("the session cannot be packed", error))
}

/// Adds the session of a zip file. It is unpacked beside the sessions and checked as a whole before it becomes one.
pub(crate) fn import(zip: File, sessions: &Sessions) -> Result<Id, ApiError> {
    let failed = |error: io::Error| ApiError::storage("the session cannot be unpacked", error);
    let place = tempfile::Builder::new().prefix(".import-").tempdir_in(sessions.folder()).map_err(failed)?;
    fs::create_dir(place.path().join(IMAGES)).map_err(failed)?;
    unpack(zip, place.path())?;
    let mut open = StudioSession::load(place.path()).map_err(|error| ApiError { next: NEXT.to_owned(), ..error })?;
    let (session, title) = (&open.session, &open.about.title);
    check_texts(Some(session.prompt()), Some(session.negative_prompt()), Some(title))?;
    open.session.remove_unused_images(place.path())?;
    open.about.parent = open.about.parent.filter(|parent| sessions.has(parent.session));
    open.about.write(place.path())?;
    sessions.add_folder(|path| fs::rename(place.path(), path).map_err(failed))
}

/// Unpacks a zip file into a folder.
fn unpack(zip: File, folder: &Path) -> Result<(), ApiError> {
    let mut zip = open_zip(BufReader::new(zip))?;
    if zip.len() > MOST_FILES {
        return Err(too_large(format!("at most {MOST_FILES} files"), zip.len()));
    }
    let mut left = MOST_BYTES;
    for index in 0..zip.len() {
        let file = zip.by_index(index).map_err(broken)?;
        let name = file.name_raw().to_vec();
        // Some programs list the folder, too.
        if name == b"images/" {
            continue;
        }
        let shown = String::from_utf8_lossy(&name);
        let path = accepted(&name).ok_or_else(|| {
            let expected = format!("{SESSION_FILE}, {ABOUT_FILE} and {IMAGES}/HASH.png alone");
            ApiError::new(ErrorCode::BrokenSession, "the zip file has another file", expected, &shown, NEXT)
        })?;
        let most = if name.ends_with(b".json") { left.min(MOST_JSON) } else { left };
        let copy = || -> io::Result<u64> {
            let mut to = File::create_new(folder.join(path))?;
            // One byte more tells a file that is too large; what a file says about its size is not trusted.
            io::copy(&mut file.take(most + 1), &mut to)
        };
        let copied = copy().map_err(|error| broken(format!("{shown}: {error}")))?;
        if copied > most {
            let expected = format!("at most {MOST_BYTES} bytes, and {MOST_JSON} for each JSON file");
            return Err(too_large(expected, format!("more, with {shown}")));
        }
        left -= copied;
    }
    Ok(())
}

/// Opens a zip file, if the list of its files has a size to expect.
fn open_zip<R: Read + Seek>(mut zip: R) -> Result<ZipArchive<R>, ApiError> {
    let mut limited = Limited { reader: &mut zip, left: MOST_LISTED };
    let listed = ZipArchive::new(&mut limited).map(drop);
    if limited.left == 0 {
        return Err(too_large(format!("a list of files of at most {MOST_LISTED} bytes"), "a longer one"));
    }
    listed.map_err(broken)?;
    ZipArchive::new(zip).map_err(broken)
}

/// Reader that ends after a number of bytes, wherever they are read.
struct Limited<R> {
    reader: R,
    left: usize,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left);
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

impl<R: Seek> Seek for Limited<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

/// Returns the path of a file of a zip file, if a session has such a file.
fn accepted(name: &[u8]) -> Option<PathBuf> {
    let name = str::from_utf8(name).ok()?;
    if [SESSION_FILE, ABOUT_FILE].contains(&name) {
        return Some(PathBuf::from(name));
    }
    let image = name.strip_prefix(IMAGES)?.strip_prefix('/')?.strip_suffix(".png")?;
    let image: ContentHash = image.parse().ok()?;
    Some(Path::new(IMAGES).join(format!("{image}.png")))
}

fn broken(got: impl ToString) -> ApiError {
    ApiError { next: NEXT.to_owned(), ..ApiError::broken_session(got) }
}

fn too_large(expected: String, got: impl ToString) -> ApiError {
    let (message, next) = ("the session of the zip file is too large", "import a smaller one");
    ApiError::new(ErrorCode::TooLarge, message, expected, got, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_a_session_are_accepted() {
        let hash = "0f".repeat(32);
        for name in ["session.json".to_owned(), "studio.json".to_owned(), format!("images/{hash}.png")] {
            assert_eq!(accepted(name.as_bytes()), Some(PathBuf::from(&name)));
        }
        for name in [
            String::new(),
            "/etc/passwd".to_owned(),
            "../session.json".to_owned(),
            "images/../session.json".to_owned(),
            "images/../../x.png".to_owned(),
            format!("images/{}.png", hash.to_uppercase()),
            format!("images/{hash}.png/"),
            format!("images\\{hash}.png"),
            format!("/images/{hash}.png"),
            format!("images/{hash}.svg"),
            "session.json\0".to_owned(),
        ] {
            assert_eq!(accepted(name.as_bytes()), None, "{name}");
        }
        assert_eq!(accepted(b"session.json\xff"), None);
    }
}
