//! Errors of a corpus, and files that are left out of it.

use std::io;
use std::path::PathBuf;

use fabric_core::image::ImageError;
use fabric_core::{Error, InvalidValue, printable_value};

use crate::load::LoadError;

/// Error while opening a corpus, searching it, or reading one of its images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// The folder does not exist or cannot be read.
    #[error(
        "corpus folder `{}` cannot be read: expected a folder with images, got the error `{source}`; \
         check the path and its permissions",
        printable_value(folder.display()), source = printable_value(.source)
    )]
    Folder {
        /// Path of the folder.
        folder: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The path of the folder is that of a file.
    #[error(
        "corpus folder `{}` is a file, expected a folder with images: give the folder of this file",
        printable_value(folder.display())
    )]
    NotAFolder {
        /// The path.
        folder: PathBuf,
    },
    /// The folder has no image that can be used.
    #[error(
        "corpus folder `{}` has 0 usable images, expected at least 1 PNG, JPEG or WebP file; {}",
        printable_value(folder.display()), reasons(skipped)
    )]
    NoImages {
        /// Path of the folder.
        folder: PathBuf,
        /// Files and folders that were left out, with their errors.
        skipped: Vec<Skipped>,
    },
    /// The index file cannot be written.
    #[error("index of the corpus: {source}; name a path that can be written to in `CorpusOptions::index`")]
    Index {
        /// Error of writing, with the path.
        source: LoadError,
    },
    /// The encoder does not project its features, so they cannot be compared with texts.
    #[error(
        "the image encoder has no projection, expected one whose embeddings can be compared with those of texts: \
         load a `CLIPVisionModelWithProjection` or a whole `CLIPModel`"
    )]
    NoProjection,
    /// An option, a weight or an embedding cannot be used.
    #[error(transparent)]
    Settings(#[from] InvalidValue),
    /// The encoder or its device failed. Images that were embedded before are in the index.
    #[error("embedding the corpus: {0}")]
    Encoder(#[source] Error),
    /// The embedding of an image contains NaN or infinity.
    #[error(
        "the embedding of `{}` is not finite, expected finite numbers: run the encoder in f32, or remove the image",
        printable_value(path.display())
    )]
    NotFinite {
        /// Path of the image.
        path: PathBuf,
    },
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The file of a candidate was deleted or moved since the corpus was opened.
    #[error("image `{}` is gone since the corpus was opened: open the corpus again", printable_value(path.display()))]
    Gone {
        /// Path of the image.
        path: PathBuf,
    },
    /// The file of a candidate has other pixels than when it was embedded.
    #[error("image `{}` was changed since it was embedded: open the corpus again", printable_value(path.display()))]
    Changed {
        /// Path of the image.
        path: PathBuf,
    },
    /// The observer cancelled the opening. Images that were embedded before are in the index.
    #[error("opening the corpus was cancelled after {embedded} images were embedded, with {remaining} files to read")]
    Cancelled {
        /// Number of images embedded by this opening.
        embedded: usize,
        /// Number of files that were not read yet.
        remaining: usize,
    },
    /// The observer panicked. Images that were embedded before are in the index.
    #[error(
        "the observer of the corpus panicked: {message}; correct the callback and open the corpus again",
        message = printable_value(.message)
    )]
    Callback {
        /// Message of the panic.
        message: String,
    },
    /// The opening failed, and the images that were embedded since the last save could not be saved either.
    #[error("{first}; saving the images that were embedded before failed too: {save}")]
    NotSaved {
        /// Error that ended the opening.
        #[source]
        first: Box<Self>,
        /// Error of writing the index, with the path.
        save: LoadError,
    },
    /// The device failed while the embeddings of a query were read from it.
    #[error("query to the corpus: {0}")]
    Query(#[source] Error),
}

/// File or folder that was left out of a corpus.
#[derive(Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// Path of the file or folder.
    pub path: PathBuf,
    /// The reason.
    pub error: CorpusError,
}

/// Number of reasons that a message shows.
const SHOWN: usize = 3;

/// Describes how many files were skipped and why.
fn reasons(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        return "no file was skipped: check the path".to_owned();
    }
    let shown: Vec<String> = skipped.iter().take(SHOWN).map(|one| one.error.to_string()).collect();
    let more = if skipped.len() > SHOWN { ", and so on" } else { "" };
    format!("{} skipped: {}{more}", skipped.len(), shown.join("; "))
}

/// Returns whether an image cannot be read because its file does not exist.
pub(super) fn is_gone(error: &ImageError) -> bool {
    matches!(error, ImageError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_texts::{assert_printable, hostile_texts};

    #[test]
    fn no_message_hands_the_name_of_a_file_to_the_terminal() {
        for text in hostile_texts() {
            let (name, path) = (|| text.clone(), || PathBuf::from(&text));
            let gone = || CorpusError::Gone { path: path() };
            let errors = [
                CorpusError::Folder { folder: path(), source: io::Error::other("gone") },
                CorpusError::Folder { folder: "x".into(), source: io::Error::other(name()) },
                CorpusError::NotAFolder { folder: path() },
                CorpusError::NoImages { folder: "x".into(), skipped: vec![Skipped { path: path(), error: gone() }] },
                CorpusError::NoImages { folder: path(), skipped: Vec::new() },
                CorpusError::Index { source: LoadError::io(&path(), "write", io::Error::other("full")) },
                CorpusError::Settings(InvalidValue::new("weight", &text, "a number", "choose one")),
                CorpusError::NotFinite { path: path() },
                CorpusError::Image(ImageError::Read { place: name(), source: io::Error::other("gone") }),
                CorpusError::Image(ImageError::Corrupt { place: "x".to_owned(), format: "PNG", source: name().into() }),
                gone(),
                CorpusError::Changed { path: path() },
            ];
            errors.iter().for_each(|error| assert_printable(&error.to_string()));
        }
    }
}
