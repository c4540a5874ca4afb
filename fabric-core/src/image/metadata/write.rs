//! Writing of image files that say how they were made.

use std::path::Path;

use super::{ImageMetadata, MetadataError, chunks, json, parameters};
use crate::image::{Image, ImageError, write_beside};

impl Image {
    /// Saves the image as PNG, together with how it was made. An existing file is replaced atomically.
    ///
    /// The pixels are the same as those of [`Image::save`], which writes no metadata.
    ///
    /// # Errors
    ///
    /// Returns an error if the extension is not `.png`, a value or text of the metadata cannot be used (nothing is
    /// written then), or the file cannot be written.
    pub fn save_with_metadata(&self, path: impl AsRef<Path>, metadata: &ImageMetadata) -> Result<(), MetadataError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let extension = path.extension().map(|ext| ext.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        if extension != "png" {
            return Err(MetadataError::Extension { place, got: extension });
        }
        let bytes = self.to_png_bytes_with_metadata(metadata)?;
        write_beside(path, &bytes).map_err(|error| ImageError::Write { place, source: error.into() })?;
        Ok(())
    }

    /// Returns the bytes of a PNG file of this image with text chunks about how it was made.
    ///
    /// # Errors
    ///
    /// Returns an error if a value of the metadata cannot be used or a text is too long.
    pub fn to_png_bytes_with_metadata(&self, metadata: &ImageMetadata) -> Result<Vec<u8>, MetadataError> {
        // The JSON first: it checks the lengths of all texts.
        let own = json::write(metadata)?;
        let parameters = parameters::write(metadata);
        let texts = [(chunks::PARAMETERS, parameters.as_str()), (chunks::FABRIC, own.as_str())];
        Ok(chunks::insert(&self.to_png_bytes()?, &texts))
    }
}
