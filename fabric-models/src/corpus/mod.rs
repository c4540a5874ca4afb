//! Candidates for the first round of a feedback session, found in a folder of images.
//!
//! FABRIC's paper names this as future work: instead of generating the first images, show those of a corpus that are
//! nearest to the prompt, and to images that are liked already, by their CLIP embeddings.
//!
//! [`Corpus::open`] embeds all images of a folder and keeps the embeddings in an index file, so that the next opening
//! embeds only new and changed images. [`Corpus::nearest`] compares every image with a [`Query`].

mod candidate;
mod embedder;
mod error;
mod fingerprint;
mod index;
mod nearest;
mod options;
mod query;
mod rows;
mod stamp;
#[cfg(test)]
mod tests;
mod update;
mod walk;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fabric_core::image::ContentHash;
use fabric_core::printable_value;
use rayon::prelude::*;

pub use candidate::Candidate;
pub use embedder::ImageEmbedder;
pub use error::{CorpusError, Skipped};
pub use options::{CorpusOptions, CorpusProgress};
pub use query::Query;

use fingerprint::{fingerprint, is_same_encoder};
use rows::Row;
use update::Update;

/// Name of the index file in the folder, unless [`CorpusOptions::index`] names another path.
const INDEX_NAME: &str = ".fabric-corpus.safetensors";

/// The images of a folder and their embeddings.
///
/// ```no_run
/// use fabric_core::image::Image;
/// use fabric_core::session::FeedbackSession;
/// use fabric_models::clip::PreferenceModel;
/// use fabric_models::corpus::{Corpus, Query};
///
/// let model = PreferenceModel::open("models/clip-vit-large-patch14", &fabric_backends::default_device()?)?;
/// let corpus = Corpus::open("photos", &model)?;
///
/// let liked = [Image::open("liked.png")?];
/// let query = Query::new()
///     .with_text(model.embed_text(&["a cat on a roof"])?, 1.0)
///     .with_liked(model.embed_images(&liked)?, 0.5)
///     .without(liked.iter().map(Image::content_hash))
///     .with_mmr_lambda(0.8);
/// let images = corpus.nearest(&query, 4)?.iter().map(|candidate| candidate.open()).collect::<Result<Vec<_>, _>>()?;
/// let mut session = FeedbackSession::new("a cat on a roof");
/// let candidates = session.push_candidates(images, "photos".into())?;
/// session.like(&candidates[0])?.because("the colour")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Corpus {
    folder: PathBuf,
    /// Sorted by path.
    files: Vec<CorpusFile>,
    /// Length of an embedding.
    dim: usize,
    skipped: Vec<Skipped>,
    embedded: usize,
    index_note: Option<String>,
}

/// An image of the corpus.
#[derive(Debug)]
struct CorpusFile {
    /// Path relative to the folder.
    path: PathBuf,
    hash: ContentHash,
    row: Row,
}

impl Corpus {
    /// Opens a folder and embeds its images with the default options, see [`Self::open_with`].
    ///
    /// # Errors
    ///
    /// Same as [`Self::open_with`].
    pub fn open(folder: impl AsRef<Path>, encoder: &dyn ImageEmbedder) -> Result<Self, CorpusError> {
        Self::open_with(folder, encoder, &CorpusOptions::default(), |_| ControlFlow::Continue(()))
    }

    /// Opens a folder and embeds the PNG, JPEG and WebP files in it and in its subfolders, by their extensions.
    ///
    /// Folders behind symbolic links are read too, each folder once. Files that cannot be used, or that are larger than
    /// [`Image::open`](fabric_core::image::Image::open) allows, are left out and listed by [`Self::skipped`].
    ///
    /// An image is embedded only if the index has no embedding of the same pixels: files whose path, length and
    /// modification time are those in the index are not read, and moved or copied images are recognized by their
    /// content. Which encoder an index belongs to is found by embedding a few fixed images, so each opening costs one
    /// small batch. Rounding does not make it another encoder: products in bf16 (`FABRIC_MATMUL=bf16`) move embeddings
    /// by up to 0.01, so an index may have embeddings that differ by this from those that the encoder computes now.
    ///
    /// A damaged index is replaced. One of another encoder is renamed when the new one is saved for the first time: it
    /// gets `.old` after its name and replaces an older file of that name. See [`Self::index_note`].
    ///
    /// The index drops the embeddings of images that were deleted. It keeps those of files and folders that cannot be
    /// read now, those of links to nothing, and those of a folder that is empty, because it may belong to a file system
    /// that is not mounted; these images are not in the corpus until they can be read again. If no image can be used,
    /// the index stays as it is.
    ///
    /// `observe` is called after every few files that were read; [`ControlFlow::Break`] cancels. Whether the work is
    /// cancelled or fails, the index keeps everything that was embedded before; if the process is killed, at most
    /// [`CorpusOptions::save_every`] embeddings and one batch are lost.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be read or has no image that can be used, the encoder has no projection or
    /// fails, the index cannot be written, an option is out of range, or `observe` cancels or panics.
    pub fn open_with(
        folder: impl AsRef<Path>,
        encoder: &dyn ImageEmbedder,
        options: &CorpusOptions,
        mut observe: impl FnMut(&CorpusProgress<'_>) -> ControlFlow<()>,
    ) -> Result<Self, CorpusError> {
        let folder = folder.as_ref();
        options.validate()?;
        if !encoder.has_projection() {
            return Err(CorpusError::NoProjection);
        }
        check_folder(folder)?;
        let walk = walk::image_files(folder);
        if walk.found.is_empty() {
            return Err(CorpusError::NoImages { folder: folder.to_owned(), skipped: walk.skipped });
        }

        let probes = fingerprint(encoder)?;
        let dim = probes[0].len();
        let index_path = options.index.clone().unwrap_or_else(|| folder.join(INDEX_NAME));
        let place = printable_value(index_path.display());
        let (old, sets_aside, index_note) = match index::read(&index_path) {
            Ok(None) => (Vec::new(), false, None),
            Ok(Some(index)) if is_same_encoder(&index.probes, &probes) => (index.entries, false, None),
            Ok(Some(_)) => {
                let renamed = index::old_path(&index_path);
                let renamed = printable_value(renamed.display());
                let note = format!("index `{place}` was made with another encoder: it was renamed to `{renamed}`");
                (Vec::new(), true, Some(note))
            }
            Err(fault) => {
                (Vec::new(), false, Some(format!("index `{place}` was replaced: {}", printable_value(fault))))
            }
        };

        let update = Update::new(folder, encoder, options, &index_path, probes, old, sets_aside);
        let updated = update.run(walk, &mut observe)?;
        let mut skipped = updated.skipped;
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        if updated.entries.is_empty() {
            return Err(CorpusError::NoImages { folder: folder.to_owned(), skipped });
        }
        let file = |(path, entry): (PathBuf, index::Entry)| CorpusFile { path, hash: entry.hash, row: entry.row };
        Ok(Self {
            folder: folder.to_owned(),
            files: updated.entries.into_iter().map(file).collect(),
            dim,
            skipped,
            embedded: updated.embedded,
            index_note,
        })
    }

    /// Returns the `count` images with the highest scores, or all if there are fewer, best first; images with equal
    /// scores are sorted by path. [`Query`] defines the score; images that it excludes are not returned.
    ///
    /// Every image is compared: 100,000 images with embeddings of 768 values take about a tenth of a second on one
    /// core. With [`Query::with_mmr_lambda`], that is the time per returned image.
    ///
    /// # Errors
    ///
    /// Returns an error if the query is empty, its embeddings have another length than those of the corpus or are not
    /// finite, the device failed while they were read, or a weight or lambda is out of range.
    pub fn nearest(&self, query: &Query, count: usize) -> Result<Vec<Candidate>, CorpusError> {
        let direction = query.direction(self.dim)?;
        let files: Vec<&CorpusFile> = self.files.iter().filter(|file| !query.is_excluded(file.hash)).collect();
        let scores: Vec<f64> = files.par_iter().map(|file| rows::dot(&file.row, &direction)).collect();
        let chosen = match query.mmr_lambda()? {
            None => nearest::best(&scores, count),
            Some(lambda) => {
                let rows: Vec<&[f32]> = files.iter().map(|file| &*file.row).collect();
                nearest::diverse(&rows, &scores, count, lambda)
            }
        };
        let candidate = |at: usize| {
            let file = files[at];
            Candidate::new(self.folder.join(&file.path), scores[at], file.hash)
        };
        Ok(chosen.into_iter().map(candidate).collect())
    }

    /// Returns the number of images.
    pub fn image_count(&self) -> usize {
        self.files.len()
    }

    /// Returns the files and folders that were left out, sorted by path. Files that were deleted during the opening are
    /// not among them.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Returns the number of images that were embedded by this opening; the embeddings of the others were in the index,
    /// or are those of equal images.
    pub fn embedded(&self) -> usize {
        self.embedded
    }

    /// Returns why an existing index was not used, and the path that it was renamed to if it is of another encoder;
    /// `None` if it was used, or there was none.
    pub fn index_note(&self) -> Option<&str> {
        self.index_note.as_deref()
    }
}

fn check_folder(folder: &Path) -> Result<(), CorpusError> {
    let kind = fs::metadata(folder).map_err(|source| CorpusError::Folder { folder: folder.to_owned(), source })?;
    if kind.is_dir() { Ok(()) } else { Err(CorpusError::NotAFolder { folder: folder.to_owned() }) }
}
