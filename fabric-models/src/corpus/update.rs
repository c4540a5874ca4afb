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
use super::walk::{Found, Walk};
use super::{CorpusError, CorpusOptions, CorpusProgress, ImageEmbedder, Skipped};
use crate::load::LoadError;

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
    /// Whether the index file belongs to another encoder, so that it is renamed before the first write.
    sets_aside: bool,
    /// All known embeddings, by the pixels of their images.
    rows: HashMap<ContentHash, Row>,
    /// Entries of the files that were handled, by path.
    done: BTreeMap<PathBuf, Entry>,
    skipped: Vec<Skipped>,
    /// Paths of files and folders that could not be read and may still have images, see [`Walk::inaccessible`].
    inaccessible: Vec<PathBuf>,
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
        sets_aside: bool,
    ) -> Self {
        Self {
            folder,
            encoder,
            options,
            index_path,
            probes,
            rows: old.iter().map(|entry| (entry.hash, Row::clone(&entry.row))).collect(),
            old,
            sets_aside,
            done: BTreeMap::new(),
            skipped: Vec::new(),
            inaccessible: Vec::new(),
            pending: Vec::new(),
            embedded: 0,
            unsaved: 0,
        }
    }

    /// Embeds the new images among those that were found, and writes the index if it changed.
    pub(super) fn run(mut self, walk: Walk, observe: &mut Observe<'_>) -> Result<Updated, CorpusError> {
        self.skipped = walk.skipped;
        self.inaccessible = walk.inaccessible;
        let unread = self.take_unchanged(walk.found);
        if !unread.is_empty() {
            index::check_writable(self.index_path).map_err(|source| CorpusError::Index { source })?;
        }
        if let Err(error) = self.read(&unread, observe) {
            return Err(self.save_after(error));
        }
        self.save_result().map_err(|source| CorpusError::Index { source })?;
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
                    Err(error) => {
                        if matches!(error, ImageError::Read { .. }) {
                            self.inaccessible.push(file.path.clone());
                        }
                        self.skip(file, error.into());
                    }
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
            self.save_progress().map_err(|source| CorpusError::Index { source })?;
        }
        Ok(())
    }

    fn insert(&mut self, file: &Found, hash: ContentHash, row: Row) {
        self.done.insert(file.path.clone(), Entry { key: file.key.clone(), stamp: file.stamp, hash, row });
    }

    fn skip(&mut self, file: &Found, error: CorpusError) {
        self.skipped.push(Skipped { path: self.folder.join(&file.path), error });
    }

    /// Saves what was embedded before `error` ended the opening, and returns this error.
    fn save_after(&mut self, error: CorpusError) -> CorpusError {
        match (error, self.save_progress()) {
            // A second error of writing the index would repeat the first.
            (error @ CorpusError::Index { .. }, _) | (error, Ok(())) => error,
            (first, Err(save)) => CorpusError::NotSaved { first: Box::new(first), save },
        }
    }

    /// Saves what was embedded so far. Old entries stay, because they may be those of files that were not read yet.
    fn save_progress(&mut self) -> Result<(), LoadError> {
        if self.unsaved == 0 {
            return Ok(());
        }
        self.set_aside()?;
        let replaced: HashSet<&str> = self.done.values().filter_map(|entry| entry.key.as_deref()).collect();
        let is_replaced = |entry: &&Entry| entry.key.as_deref().is_some_and(|key| replaced.contains(key));
        let old = self.old.iter().filter(|entry| !is_replaced(entry));
        let entries: Vec<&Entry> = self.done.values().chain(old).collect();
        index::write(self.index_path, &self.probes, &entries)?;
        self.unsaved = 0;
        Ok(())
    }

    /// Writes the index if it changed. Entries of files that are gone are dropped; those of files that could not be
    /// read stay. An index without images of the corpus is not written, because it might replace a good one.
    fn save_result(&mut self) -> Result<(), LoadError> {
        if self.done.is_empty() {
            return Ok(());
        }
        // The index is written afterwards: it has entries, and an index of another encoder gave none.
        self.set_aside()?;
        let entries: Vec<&Entry> = self.done.values().chain(self.inaccessible_entries()).collect();
        if self.is_changed(&entries) {
            index::write(self.index_path, &self.probes, &entries)?;
        }
        Ok(())
    }

    /// Renames an index of another encoder, so that it is not overwritten.
    fn set_aside(&mut self) -> Result<(), LoadError> {
        if self.sets_aside {
            index::set_aside(self.index_path)?;
            self.sets_aside = false;
        }
        Ok(())
    }

    /// Returns the old entries of files that could not be read or lie in such folders. Entries without a key may be
    /// any of these.
    fn inaccessible_entries(&self) -> Vec<&Entry> {
        if self.inaccessible.is_empty() {
            return Vec::new();
        }
        let places: HashSet<&Path> = self.inaccessible.iter().map(PathBuf::as_path).collect();
        let keys: HashSet<&str> = self.done.values().filter_map(|entry| entry.key.as_deref()).collect();
        let hashes: HashSet<ContentHash> = self.done.values().map(|entry| entry.hash).collect();
        let is_inaccessible = |entry: &&Entry| match entry.key.as_deref() {
            Some(key) => !keys.contains(key) && Path::new(key).ancestors().any(|place| places.contains(place)),
            None => !hashes.contains(&entry.hash),
        };
        self.old.iter().filter(is_inaccessible).collect()
    }

    /// Returns whether the entries differ from those of the index as it was read.
    fn is_changed(&self, entries: &[&Entry]) -> bool {
        fn identity(entry: &Entry) -> (Option<&str>, Option<Stamp>, ContentHash) {
            (entry.key.as_deref(), entry.stamp, entry.hash)
        }
        let old: HashSet<_> = self.old.iter().map(identity).collect();
        self.old.len() != entries.len() || entries.iter().any(|entry| !old.contains(&identity(entry)))
    }
}

/// Reads an image and computes its content hash, which the image keeps.
fn decode(path: &Path) -> Result<Image, ImageError> {
    let image = Image::open(path)?;
    image.content_hash();
    Ok(image)
}
