//! Embedding of the images that are not in the index yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fabric_backends::catch_panic;
use fabric_core::image::{ContentHash, Image, ImageError};
use rayon::prelude::*;

use super::embedder::embed;
use super::error::is_gone;
use super::index::{self, Entry};
use super::rows::Row;
use super::stamp::Stamp;
use super::walk::Found;
use super::{CorpusError, CorpusOptions, CorpusProgress, ImageEmbedder, Skipped};

/// Number of files that are decoded at the same time. Decoding a photograph takes longer than embedding it on a GPU;
/// more at once would need gigabytes for large ones.
const DECODED: usize = 4;

/// Number of pixels from which a batch is embedded although it is not full: 200 MB.
const MAX_PENDING_PIXELS: usize = 1 << 26;

/// Function that receives the progress and may cancel.
type Observe<'a> = dyn FnMut(&CorpusProgress<'_>) -> ControlFlow<()> + 'a;

/// State of one opening of a corpus.
pub(super) struct Update<'a> {
    folder: &'a Path,
    encoder: &'a dyn ImageEmbedder,
    options: &'a CorpusOptions,
    index_path: &'a Path,
    /// Fingerprint of the encoder.
    probes: Vec<Row>,
    /// Entries of the index as it was read.
    old: Vec<Entry>,
    /// All known embeddings, by the pixels of their images.
    rows: HashMap<ContentHash, Row>,
    /// Entries of the files that were handled, by path.
    done: BTreeMap<PathBuf, Entry>,
    skipped: Vec<Skipped>,
    /// Images to embed in the next batch.
    pending: Vec<Pending>,
    embedded: usize,
    /// Number of images embedded since the index was saved.
    unsaved: usize,
}

/// Image that waits to be embedded, and all files that have its pixels.
struct Pending {
    image: Image,
    files: Vec<Found>,
}

/// Result of an update.
pub(super) struct Updated {
    /// Entries of all images, by path relative to the folder.
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    pub(super) skipped: Vec<Skipped>,
    /// Number of images that were embedded.
    pub(super) embedded: usize,
}

impl<'a> Update<'a> {
    pub(super) fn new(
        folder: &'a Path,
        encoder: &'a dyn ImageEmbedder,
        options: &'a CorpusOptions,
        index_path: &'a Path,
        probes: Vec<Row>,
        old: Vec<Entry>,
        skipped: Vec<Skipped>,
    ) -> Self {
        Self {
            folder,
            encoder,
            options,
            index_path,
            probes,
            rows: old.iter().map(|entry| (entry.hash, Row::clone(&entry.row))).collect(),
            old,
            done: BTreeMap::new(),
            skipped,
            pending: Vec::new(),
            embedded: 0,
            unsaved: 0,
        }
    }

    /// Embeds the new images among `files`, and writes the index if it changed.
    pub(super) fn run(mut self, files: Vec<Found>, observe: &mut Observe<'_>) -> Result<Updated, CorpusError> {
        let unread = self.take_unchanged(files);
        if !unread.is_empty() {
            index::check_writable(self.index_path).map_err(|source| CorpusError::Index { source })?;
        }
        if let Err(error) = self.read(&unread, observe) {
            self.save_progress()?;
            return Err(error);
        }
        if self.is_changed() {
            self.write(&self.done.values().collect::<Vec<_>>())?;
        }
        Ok(Updated { entries: self.done, skipped: self.skipped, embedded: self.embedded })
    }

    /// Takes the entries of files that have the stamp of the index, and returns the other files.
    fn take_unchanged(&mut self, files: Vec<Found>) -> Vec<Found> {
        let known: HashMap<&str, &Entry> =
            self.old.iter().filter_map(|entry| Some((entry.key.as_deref()?, entry))).collect();
        let mut unread = Vec::new();
        for file in files {
            let entry = file.key.as_deref().and_then(|key| known.get(key).copied());
            match entry.filter(|entry| file.stamp.is_some() && entry.stamp == file.stamp) {
                Some(entry) => {
                    self.done.insert(file.path, entry.clone());
                }
                None => unread.push(file),
            }
        }
        unread
    }

    /// Reads files, and embeds those whose pixels are new.
    fn read(&mut self, unread: &[Found], observe: &mut Observe<'_>) -> Result<(), CorpusError> {
        let (folder, total) = (self.folder, unread.len());
        let mut read = 0;
        for files in unread.chunks(DECODED) {
            let decoded: Vec<Result<Image, ImageError>> =
                files.par_iter().map(|file| decode(&folder.join(&file.path))).collect();
            for (file, image) in files.iter().zip(decoded) {
                match image {
                    Ok(image) => self.add(file, image)?,
                    // It was deleted or moved after it was found.
                    Err(error) if is_gone(&error) => {}
                    Err(error) => self.skip(file, error.into()),
                }
            }
            read += files.len();
            if read == total {
                self.embed_pending()?;
            }
            let path = files.last().map_or(folder, |file| file.path.as_path());
            let progress = CorpusProgress { path, read, total, embedded: self.embedded };
            let answer = catch_panic(|| observe(&progress)).map_err(|message| CorpusError::Callback { message })?;
            if answer.is_break() {
                return Err(CorpusError::Cancelled { embedded: self.embedded, remaining: total - read });
            }
        }
        Ok(())
    }

    /// Takes the known embedding of an image, or adds the image to the next batch.
    fn add(&mut self, file: &Found, image: Image) -> Result<(), CorpusError> {
        let hash = image.content_hash();
        if let Some(row) = self.rows.get(&hash).cloned() {
            self.insert(file, hash, row);
            return Ok(());
        }
        match self.pending.iter_mut().find(|pending| pending.image.content_hash() == hash) {
            Some(pending) => pending.files.push(file.clone()),
            None => self.pending.push(Pending { image, files: vec![file.clone()] }),
        }
        let pixels: usize = self.pending.iter().map(|pending| pending.image.width() * pending.image.height()).sum();
        if self.pending.len() >= self.options.batch || pixels >= MAX_PENDING_PIXELS {
            self.embed_pending()?;
        }
        Ok(())
    }

    fn embed_pending(&mut self) -> Result<(), CorpusError> {
        let pending = mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        let images: Vec<Image> = pending.iter().map(|pending| pending.image.clone()).collect();
        let rows = embed(self.encoder, &images, Some(self.probes[0].len()))?;
        for (Pending { image, files }, row) in pending.into_iter().zip(rows) {
            let Some(row) = row else {
                for file in &files {
                    self.skip(file, CorpusError::NotFinite { path: self.folder.join(&file.path) });
                }
                continue;
            };
            let hash = image.content_hash();
            for file in &files {
                self.insert(file, hash, Row::clone(&row));
            }
            self.rows.insert(hash, row);
            self.embedded += 1;
            self.unsaved += 1;
        }
        if self.unsaved >= self.options.save_every {
            self.save_progress()?;
        }
        Ok(())
    }

    fn insert(&mut self, file: &Found, hash: ContentHash, row: Row) {
        self.done.insert(file.path.clone(), Entry { key: file.key.clone(), stamp: file.stamp, hash, row });
    }

    fn skip(&mut self, file: &Found, error: CorpusError) {
        self.skipped.push(Skipped { path: self.folder.join(&file.path), error });
    }

    /// Saves what was embedded so far. Old entries stay, because they may be those of files that were not read yet.
    fn save_progress(&mut self) -> Result<(), CorpusError> {
        if self.unsaved == 0 {
            return Ok(());
        }
        let replaced: HashSet<&str> = self.done.values().filter_map(|entry| entry.key.as_deref()).collect();
        let is_replaced = |entry: &&Entry| entry.key.as_deref().is_some_and(|key| replaced.contains(key));
        let old = self.old.iter().filter(|entry| !is_replaced(entry));
        let entries: Vec<&Entry> = self.done.values().chain(old).collect();
        self.write(&entries)?;
        self.unsaved = 0;
        Ok(())
    }

    fn write(&self, entries: &[&Entry]) -> Result<(), CorpusError> {
        index::write(self.index_path, &self.probes, entries).map_err(|source| CorpusError::Index { source })
    }

    /// Returns whether the entries differ from those of the index as it was read.
    fn is_changed(&self) -> bool {
        fn identity(entry: &Entry) -> (Option<&str>, Option<Stamp>, ContentHash) {
            (entry.key.as_deref(), entry.stamp, entry.hash)
        }
        let old: HashSet<_> = self.old.iter().map(identity).collect();
        self.old.len() != self.done.len() || self.done.values().any(|entry| !old.contains(&identity(entry)))
    }
}

/// Reads an image and computes its content hash, which the image keeps.
fn decode(path: &Path) -> Result<Image, ImageError> {
    let image = Image::open(path)?;
    image.content_hash();
    Ok(image)
}
