//! The `fabric` text: metadata as JSON, from which it is restored exactly.

use serde::{Deserialize, Serialize};

use super::chunks::{FABRIC, MAX_TEXT};
use super::{ImageMetadata, MetadataError, Parsed, shown, without_folders};
use crate::InvalidValue;
use crate::json::memory_of_values;

const FORMAT: &str = "fabric-image";
const VERSION: u64 = 1;

/// Maximum memory of the values of a text in bytes, as [`memory_of_values`] estimates it: enough for the largest number
/// of seeds. Without it, a text of 2 MiB could take two hundred.
const MAX_VALUES: u64 = 16 << 20;

/// Fields that every version of the format has; read first.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u64,
}

#[derive(Serialize)]
struct Written<'a> {
    format: &'a str,
    version: u64,
    image: &'a ImageMetadata,
}

/// The fields of this version, besides those of the header.
#[derive(Deserialize)]
struct Body {
    image: ImageMetadata,
}

/// Returns the text of metadata, without folders in the names of files.
///
/// # Errors
///
/// Returns an error if a value cannot be used, or the text is too long or could not be read back.
pub(super) fn write(metadata: &ImageMetadata) -> Result<String, InvalidValue> {
    metadata.validate()?;
    let mut image = metadata.clone();
    for text in image.origin.iter_mut().chain(&mut image.not_restored) {
        *text = without_folders(text);
    }
    let refused = |got: String, expected: String| {
        InvalidValue::new("metadata of an image", got, expected, "shorten it, or save the image without metadata")
    };
    let written = Written { format: FORMAT, version: VERSION, image: &image };
    let text = serde_json::to_string(&written).map_err(|error| refused(error.to_string(), "plain data".to_owned()))?;
    if text.len() > MAX_TEXT {
        return Err(refused(format!("{} bytes of JSON", text.len()), format!("at most {MAX_TEXT} bytes")));
    }
    // The parser has limits that the writer does not have, such as the depth of the settings.
    match read("in memory", &text) {
        Ok(_) => Ok(text),
        Err(error) => Err(refused(error.to_string(), "metadata that can be read back".to_owned())),
    }
}

/// Reads metadata as [`write`] writes it.
pub(super) fn read(place: &str, text: &str) -> Result<Parsed, MetadataError> {
    let text_error = |source: Box<dyn std::error::Error + Send + Sync>| MetadataError::Text {
        place: place.to_owned(),
        keyword: FABRIC,
        source,
    };
    let Header { format, version } = serde_json::from_str(text).map_err(|error| text_error(error.into()))?;
    if (format.as_str(), version) != (FORMAT, VERSION) {
        let got = format!("`{}` version {version}", shown(&format));
        let expected = format!("`{FORMAT}` version {VERSION}");
        return Err(MetadataError::Version { place: place.to_owned(), got, expected });
    }
    let got = memory_of_values(text.as_bytes());
    if got > MAX_VALUES {
        let what = format!("its values would take {got} bytes of memory, expected at most {MAX_VALUES}");
        return Err(text_error(what.into()));
    }
    let Body { image } = serde_json::from_str(text).map_err(|error| text_error(error.into()))?;
    image.validate().map_err(|error| text_error(error.into()))?;
    Ok(Parsed { metadata: image, unread: Vec::new() })
}
