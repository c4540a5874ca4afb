//! Writing of image files: to a temporary file that is then renamed, so that no reader sees a partial file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageResult};

use super::{Image, ImageError};

/// JPEG quality: differences to the original are hard to see, and files remain small.
const JPEG_QUALITY: u8 = 95;

/// Age from which a temporary file is taken to be left over: writing a file takes seconds, on slow disks minutes.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl Image {
    /// Saves the image as PNG or JPEG (quality 95), by the extension of `path`. An existing file is replaced
    /// atomically.
    ///
    /// # Errors
    ///
    /// Returns an error if the extension is not supported or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ImageError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let extension = path.extension().map(|ext| ext.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let bytes = match extension.as_str() {
            "png" => self.encode_png(),
            "jpg" | "jpeg" => self.encode_jpeg(),
            _ => return Err(ImageError::Extension { place, got: extension }),
        };
        let bytes = bytes.map_err(|e| ImageError::Write { place: place.clone(), source: e.into() })?;
        write_beside(path, &bytes).map_err(|e| ImageError::Write { place, source: e.into() })
    }

    /// Returns the bytes of a PNG file of this image; decoding them yields the same pixels.
    ///
    /// # Errors
    ///
    /// Returns an error if the encoder fails, which is not expected.
    pub fn to_png_bytes(&self) -> Result<Vec<u8>, ImageError> {
        self.encode_png().map_err(|e| ImageError::Write { place: "in memory".to_owned(), source: e.into() })
    }

    fn encode_png(&self) -> ImageResult<Vec<u8>> {
        let mut bytes = Vec::new();
        let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive);
        self.encode(encoder)?;
        Ok(bytes)
    }

    fn encode_jpeg(&self) -> ImageResult<Vec<u8>> {
        let mut bytes = Vec::new();
        self.encode(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
        Ok(bytes)
    }

    fn encode(&self, encoder: impl ImageEncoder) -> ImageResult<()> {
        // Sides fit into `u32`: no image is longer than `MAX_SIDE`.
        encoder.write_image(self.rgb(), self.width() as u32, self.height() as u32, ExtendedColorType::Rgb8)
    }
}

/// Writes a temporary file beside `path`, syncs it to disk, then renames it to `path`.
///
/// After any failure, `path` holds either its old content or the new one.
pub(crate) fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut beside = OsString::from(".");
    beside.push(name);
    // The temporary name is random: two threads or processes that write the same file must not share it, nor
    // reuse one that a crash left behind. Process ids do not suffice, since most are 1 in containers.
    beside.push(format!(".{:016x}.tmp", RandomState::new().hash_one(std::process::id())));
    let beside = path.with_file_name(beside);

    let written = File::create_new(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // Best effort: the first error is the one to return.
        let _ = fs::remove_file(&beside);
    }
    written?;
    sync_folder(path)
}

/// Deletes temporary files of [`write_beside`] from a folder that processes left there when they were ended. Only those
/// are deleted that were written for a file whose name `is_ours` accepts.
///
/// Files younger than a day stay, because another process may be writing them. Errors are ignored: the files only take
/// room.
pub(crate) fn remove_leftovers(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().and_then(written_for).is_some_and(&is_ours) {
            continue;
        }
        // Metadata of the entry itself, and not of what a link leads to.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|modified| modified.elapsed().ok());
        if metadata.is_file() && age.is_some_and(|age| age > LEFTOVER_AGE) {
            // Best effort.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Returns the name of the file that a temporary file of [`write_beside`] was written for; `None` for other files.
fn written_for(name: &str) -> Option<&str> {
    let (of, random) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    (random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(of)
}

/// Makes the rename durable, on systems where folders can be opened as files.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
