//! Reference keys and values, kept for later under a byte budget: in memory, and on disk what does not fit there.

use std::path::Path;
use std::sync::Arc;

use super::TokensBySite;
use super::shelf::{Kept, Shelf};
use super::spill::{SpillFolder, SpilledTokens};
use crate::Error;
use crate::noise::ReferenceId;

/// What determines a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey {
    /// The picture, and how it was encoded.
    pub id: ReferenceId,
    /// The bits of the noise level's timestep, alpha and sigma: samplers that round timesteps tell the network the same of
    /// different levels.
    pub level: [u64; 3],
    /// A digest of what else the pass was given (its text, SDXL's time ids).
    pub conditions: u64,
    /// Whether it was rounded to half precision.
    pub half: bool,
    /// The bits of the share of tokens that were merged.
    pub merge: u64,
}

/// How well a [`TokenCache`] serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CacheStats {
    /// Recordings found in memory.
    pub hits: u64,
    /// Recordings found on disk.
    pub disk_hits: u64,
    /// Recordings that had to be made.
    pub misses: u64,
    /// Bytes kept in memory now.
    pub bytes: u64,
    /// Bytes kept on disk now.
    pub disk_bytes: u64,
    /// Recordings that could not be written to disk, or were not read back as they had been written. No picture
    /// depends on it: what is not found is recorded again.
    pub disk_failures: u64,
}

/// Keys and values of references, kept under a byte budget.
///
/// A full cache drops what belongs to references that were not asked for lately; what the current references
/// need is never dropped for their own later steps (a run scans them in order, and dropping the oldest would then
/// drop everything just before it is needed again), so a budget too small for a run keeps its first steps.
///
/// With a folder to spill to, what is dropped or does not fit goes to disk, where the same rule holds under a budget
/// of its own. Each recording lies in one place only.
#[derive(Debug, Default)]
pub struct TokenCache {
    memory: Shelf<Arc<TokensBySite>>,
    disk: Option<Disk>,
    /// Counts; the bytes are those of the shelves.
    stats: CacheStats,
    run: u64,
}

#[derive(Debug)]
struct Disk {
    /// Before the folder, so that files go before the folder they lie in.
    files: Shelf<SpilledTokens>,
    folder: SpillFolder,
    budget: u64,
    /// Whether a write failed: then nothing more is written.
    off: bool,
    /// What went wrong last.
    error: Option<String>,
}

impl TokenCache {
    /// An empty cache that keeps up to `bytes` on disk, in a folder of its own within `folder`, which goes with it.
    ///
    /// # Errors
    ///
    /// When no folder can be made there.
    pub fn spilling(folder: &Path, bytes: u64) -> Result<Self, Error> {
        let made = SpillFolder::new(folder)
            .map_err(|source| Error::SpillFolder { place: folder.display().to_string(), source })?;
        let disk = Disk { files: Shelf::default(), folder: made, budget: bytes, off: false, error: None };
        Ok(Self { disk: Some(disk), ..Self::default() })
    }

    /// Hits, misses and bytes so far.
    pub fn stats(&self) -> CacheStats {
        let disk_bytes = self.disk.as_ref().map_or(0, |disk| disk.files.bytes());
        CacheStats { bytes: self.memory.bytes(), disk_bytes, ..self.stats }
    }

    /// What went wrong on disk: a write that failed, since when nothing is written any more, or the last recording of
    /// this run that was not read back.
    pub fn spill_error(&self) -> Option<&str> {
        self.disk.as_ref()?.error.as_deref()
    }

    /// Tells that a new run starts: what it does not ask for may be dropped.
    pub fn begin_run(&mut self) {
        self.run += 1;
        if let Some(disk) = self.disk.as_mut().filter(|disk| !disk.off) {
            disk.error = None;
        }
    }

    /// Forgets everything, also that the disk failed.
    pub fn clear(&mut self) {
        self.memory = Shelf::default();
        if let Some(disk) = &mut self.disk {
            (disk.files, disk.off, disk.error) = (Shelf::default(), false, None);
        }
    }

    /// What is kept under this key. From the disk it comes back into memory, if the budget there (in bytes) allows it.
    pub fn get(&mut self, key: &CacheKey, budget: u64) -> Option<Arc<TokensBySite>> {
        if let Some(kept) = self.memory.get(key, self.run) {
            self.stats.hits += 1;
            return Some(kept.thing.clone());
        }
        let Some((tokens, bytes)) = self.read_back(key) else {
            self.stats.misses += 1;
            return None;
        };
        self.stats.disk_hits += 1;
        let tokens = Arc::new(tokens);
        if self.memory.has_room(bytes, budget, self.run) {
            self.insert(*key, tokens.clone(), budget);
        }
        Some(tokens)
    }

    /// Keeps a recording if a budget allows it: the one in memory (this one, in bytes), else the one on disk.
    pub fn insert(&mut self, key: CacheKey, tokens: Arc<TokensBySite>, budget: u64) {
        let bytes = tokens.values().map(|lent| size_of_tensor(&lent.key) + size_of_tensor(&lent.value)).sum::<u64>();
        self.memory.take(&key);
        if let Some(disk) = &mut self.disk {
            disk.files.take(&key);
        }
        let kept = Kept { thing: tokens, bytes, last_run: self.run };
        let fits = self.memory.has_room(bytes, budget, self.run);
        let displaced = self.memory.make_room(bytes, budget, self.run);
        if fits {
            self.memory.put(key, kept);
        } else {
            self.spill(key, kept);
        }
        // The newest first: older ones would only be dropped for them again.
        for (key, kept) in displaced.into_iter().rev() {
            self.spill(key, kept);
        }
    }

    /// Moves to disk what has no place in memory, if it has one there.
    ///
    /// The caller's lock is held while it is written: the disk is one, and whoever waits would wait for that.
    fn spill(&mut self, key: CacheKey, Kept { thing, bytes, last_run }: Kept<Arc<TokensBySite>>) {
        let Some(disk) = &mut self.disk else { return };
        if disk.off || !disk.files.has_room(bytes, disk.budget, last_run) {
            return;
        }
        disk.files.make_room(bytes, disk.budget, last_run);
        match disk.folder.write(&thing) {
            Ok(thing) => disk.files.put(key, Kept { thing, bytes, last_run }),
            Err(error) => {
                self.stats.disk_failures += 1;
                disk.off = true;
                disk.error = Some(format!(
                    "{bytes} bytes of keys and values could not be spilled to disk: {error}; pictures are not affected, \
                     but nothing more is spilled: make room for it and clear the caches, or choose another folder"
                ));
            }
        }
    }

    /// What lies on disk under this key, and its size. What cannot be read is forgotten.
    fn read_back(&mut self, key: &CacheKey) -> Option<(TokensBySite, u64)> {
        let disk = self.disk.as_mut()?;
        let kept = disk.files.get(key, self.run)?;
        match kept.thing.read() {
            Ok(tokens) => Some((tokens, kept.bytes)),
            Err(error) => {
                disk.files.take(key);
                self.stats.disk_failures += 1;
                if !disk.off {
                    disk.error = Some(format!(
                        "a file of spilled keys and values was not as it had been written: {error}; pictures are not \
                         affected, it was recorded again: see whether the disk is sound and nobody else writes there"
                    ));
                }
                None
            }
        }
    }
}

fn size_of_tensor(x: &burn::tensor::Tensor<3>) -> u64 {
    (x.dims().iter().product::<usize>() * x.dtype().size()) as u64
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::attention::{AttnKind, AttnSite, Block};
    use crate::fabric::LentTokens;
    use burn::tensor::{Device, Tensor};

    fn site() -> AttnSite {
        AttnSite { block: Block::Mid, attention: 0, layer: 0, kind: AttnKind::SelfAttention }
    }

    /// 2 * 8 * 4 = 64 bytes.
    fn tokens(number: u8) -> Arc<TokensBySite> {
        let x = Tensor::<3>::full([1, 4, 2], f32::from(number), &Device::flex());
        Arc::new(TokensBySite::from([(site(), LentTokens { key: x.clone(), value: x, stands_for: Vec::new() })]))
    }

    fn key(id: u8, step: u8) -> CacheKey {
        CacheKey { id: ReferenceId([id; 32]), level: [u64::from(step); 3], conditions: 0, half: false, merge: 0 }
    }

    /// Asks for a recording, and makes it if it is not there; returns whether it was. What comes back must be what was
    /// kept.
    #[track_caller]
    fn ask(cache: &mut TokenCache, id: u8, step: u8, budget: u64) -> bool {
        let Some(found) = cache.get(&key(id, step), budget) else {
            cache.insert(key(id, step), tokens(16 * id + step), budget);
            return false;
        };
        let values: Vec<f32> = found[&site()].key.clone().into_data().iter::<f32>().collect();
        assert_eq!(values, [f32::from(16 * id + step); 8]);
        true
    }

    /// How many of a run's recordings were there.
    #[track_caller]
    fn run(cache: &mut TokenCache, ids: &[u8], steps: u8, budget: u64) -> usize {
        cache.begin_run();
        let asked = (0..steps).flat_map(|step| ids.iter().map(move |&id| (id, step)));
        asked.filter(|&(id, step)| ask(cache, id, step, budget)).count()
    }

    fn files(place: &tempfile::TempDir) -> Vec<PathBuf> {
        let own = fs::read_dir(place.path()).unwrap().next().expect("the cache's own folder").unwrap();
        fs::read_dir(own.path()).unwrap().map(|file| file.unwrap().path()).collect()
    }

    #[test]
    fn the_budget_is_kept_and_stale_references_go_first() {
        let (a, b) = (1, 2);
        let mut cache = TokenCache::default();
        cache.begin_run();
        for step in 0..3 {
            cache.insert(key(a, step), tokens(0), 128);
        }
        assert_eq!(cache.stats().bytes, 128);
        let has = |cache: &mut TokenCache, key| cache.get(&key, 128).is_some();
        assert!(has(&mut cache, key(a, 0)) && has(&mut cache, key(a, 1)), "a run keeps its first steps");
        assert!(!has(&mut cache, key(a, 2)));
        cache.begin_run();
        assert!(has(&mut cache, key(a, 0)));
        cache.insert(key(b, 0), tokens(0), 128);
        assert!(!has(&mut cache, key(a, 1)), "not asked for in this run");
        assert!(has(&mut cache, key(a, 0)) && has(&mut cache, key(b, 0)));
        assert_eq!(cache.stats().bytes, 128);
    }

    #[test]
    fn a_smaller_budget_frees_memory_even_for_what_will_not_fit() {
        let mut cache = TokenCache::default();
        run(&mut cache, &[1], 4, 1000);
        assert_eq!(cache.stats().bytes, 256);
        assert_eq!(run(&mut cache, &[2], 1, 63), 0);
        assert_eq!(cache.stats().bytes, 0);
    }

    #[test]
    fn what_memory_cannot_hold_is_found_on_disk() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = TokenCache::spilling(place.path(), 1 << 20).unwrap();
        assert_eq!(run(&mut cache, &[1, 2], 3, 128), 0);
        assert_eq!(files(&place).len(), 4);
        for _ in 0..3 {
            assert_eq!(run(&mut cache, &[1, 2], 3, 128), 6);
        }
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.disk_hits, stats.misses), (6, 12, 6));
        assert_eq!((stats.bytes, stats.disk_bytes, stats.disk_failures), (128, 256, 0));
        cache.clear();
        assert_eq!((cache.stats().bytes, cache.stats().disk_bytes, files(&place).len()), (0, 0, 0));
        assert_eq!(run(&mut cache, &[1], 1, 0), 0);
        drop(cache);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "its folder goes with it");
    }

    #[test]
    fn what_is_asked_for_again_changes_places_with_what_is_not() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = TokenCache::spilling(place.path(), 128).unwrap();
        run(&mut cache, &[1], 2, 128);
        run(&mut cache, &[2], 2, 128);
        assert_eq!((cache.stats().bytes, cache.stats().disk_bytes), (128, 128));
        // Both budgets are full: each recording frees its place on disk before it takes one in memory.
        assert_eq!(run(&mut cache, &[1], 2, 128), 2);
        assert_eq!(cache.stats().disk_hits, 2);
        assert_eq!(run(&mut cache, &[1], 2, 128), 2);
        assert_eq!((cache.stats().disk_hits, cache.stats().hits), (2, 2), "from memory now");
        assert_eq!(run(&mut cache, &[2], 2, 128), 2);
        assert_eq!((cache.stats().bytes, cache.stats().disk_bytes), (128, 128));
        assert_eq!(files(&place).len(), 2);
    }

    #[test]
    fn the_disk_budget_is_kept_and_stale_references_go_first() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = TokenCache::spilling(place.path(), 128).unwrap();
        assert_eq!(run(&mut cache, &[1], 3, 0), 0);
        assert_eq!(cache.stats().disk_bytes, 128);
        assert_eq!(run(&mut cache, &[1], 3, 0), 2, "a run keeps its first steps");
        assert_eq!(run(&mut cache, &[2], 1, 0), 0);
        assert_eq!((cache.stats().disk_bytes, files(&place).len()), (128, 2));
        assert_eq!(run(&mut cache, &[2], 1, 0), 1, "and gives way to the next one");
    }

    #[test]
    fn what_is_too_large_for_the_disk_drops_nothing_there() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = TokenCache::spilling(place.path(), 128).unwrap();
        run(&mut cache, &[1], 2, 0);
        let x = Tensor::<3>::zeros([1, 40, 2], &Device::flex());
        let large = LentTokens { key: x.clone(), value: x, stands_for: Vec::new() };
        cache.begin_run();
        cache.insert(key(3, 0), Arc::new(TokensBySite::from([(site(), large)])), 0);
        assert_eq!(run(&mut cache, &[1], 2, 0), 2);
    }

    #[test]
    fn a_damaged_file_is_a_miss_and_is_written_again() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = TokenCache::spilling(place.path(), 1 << 20).unwrap();
        run(&mut cache, &[1], 3, 0);
        let damaged = files(&place).pop().unwrap();
        fs::write(&damaged, "short").unwrap();
        assert_eq!(run(&mut cache, &[1], 3, 0), 2);
        assert_eq!(cache.stats().disk_failures, 1);
        assert!(cache.spill_error().unwrap().contains("has 5 bytes, wanted 64"), "{:?}", cache.spill_error());
        assert_eq!(run(&mut cache, &[1], 3, 0), 3);
        assert_eq!((cache.spill_error(), cache.stats().disk_failures), (None, 1), "that was another run's");
    }

    #[test]
    fn a_write_that_fails_switches_the_disk_off_until_the_caches_are_cleared() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = TokenCache::spilling(place.path(), 1 << 20).unwrap();
        run(&mut cache, &[1], 1, 0);
        let own = files(&place)[0].parent().unwrap().to_owned();
        let aside = place.path().join("aside");
        fs::rename(&own, &aside).unwrap();
        assert_eq!(run(&mut cache, &[1, 2], 2, 64), 0, "a run goes on");
        let stats = cache.stats();
        assert_eq!((stats.bytes, stats.disk_bytes, stats.disk_hits), (64, 0, 0), "{stats:?}");
        assert!(cache.spill_error().unwrap().contains("could not be spilled"));
        fs::rename(&aside, &own).unwrap();
        assert_eq!(run(&mut cache, &[1, 2], 2, 64), 1, "what memory holds is still found");
        assert_eq!(cache.stats().disk_failures, stats.disk_failures, "nothing more was tried");
        assert!(cache.spill_error().is_some(), "and it is still said");
        cache.clear();
        assert_eq!(cache.spill_error(), None);
        run(&mut cache, &[1], 1, 0);
        assert_eq!(run(&mut cache, &[1], 1, 0), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        let place = tempfile::tempdir().unwrap();
        let message = TokenCache::spilling(&place.path().join("none"), 1).unwrap_err().to_string();
        assert!(message.contains("none") && message.contains("exist"), "{message}");
    }

    #[test]
    fn numbers_of_older_reports_can_be_read() {
        let old: CacheStats = serde_json::from_str(r#"{"hits":3,"misses":2,"bytes":1}"#).unwrap();
        assert_eq!(old, CacheStats { hits: 3, misses: 2, bytes: 1, ..CacheStats::default() });
    }
}
