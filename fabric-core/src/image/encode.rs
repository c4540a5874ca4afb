//! Writing images: beside, then renamed, so that no reader ever sees half of one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageResult};

use super::{Image, ImageError};

/// JPEG quality: differences to the original are hard to see, files still small.
const JPEG_QUALITY: u8 = 95;

impl Image {
    /// Saves as PNG or JPEG (quality 95), by the extension of `path`. An old file there is replaced whole.
    ///
    /// # Errors
    ///
    /// If the extension is another, or the file cannot be written.
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

    /// The bytes of a PNG file of this image; decoding them gives the same pixels.
    ///
    /// # Errors
    ///
    /// If the encoder fails, which it has no reason to.
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
        // Sides fit: no image is longer than `MAX_SIDE`.
        encoder.write_image(self.rgb(), self.width() as u32, self.height() as u32, ExtendedColorType::Rgb8)
    }
}

/// Writes a new file beside `path`, makes sure it is on the disk, then renames it to `path`.
///
/// Whatever happens in between, `path` is either what it was or what it is to be.
pub(crate) fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut beside = OsString::from(".");
    beside.push(name);
    // Two threads or processes that write the same file must not share the one beside it, nor find one that a crash left:
    // in containers most process ids are 1, so the standard library's randomness names it.
    beside.push(format!(".{:016x}.tmp", RandomState::new().hash_one(std::process::id())));
    let beside = path.with_file_name(beside);

    let written = File::create_new(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&beside);
    }
    written?;
    sync_folder(path)
}

/// Makes the rename itself durable, where folders can be opened as files.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
