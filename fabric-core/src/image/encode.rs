//! Writing of image files: to a temporary file that is then renamed, so that no reader sees a partial file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageResult};

use super::{Image, ImageError};

/// JPEG quality: differences to the original are hard to see, and files remain small.
const JPEG_QUALITY: u8 = 95;

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

/// Makes the rename durable, on systems where folders can be opened as files.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
