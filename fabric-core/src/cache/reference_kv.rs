//! KV cache for references with a byte budget in memory, and optionally one on disk.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::TokensBySite;
use super::byte_budget::{ByteBudgetCache, Entry};
use super::claims::{Claim, Claims};
use super::disk::{SpillFolder, SpilledTokens};
use crate::Error;
use crate::noise::ReferenceId;

/// Key of a recording: everything that determines a reference's keys and values.
///
/// Recordings are cached only if the noise on references is fixed
/// ([`has_fixed_references`](crate::noise::RunNoise::has_fixed_references)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferenceKvKey {
    /// Identifies the image and its encoding.
    pub id: ReferenceId,
    /// Bits of the noise level's timestep, alpha and sigma. The timestep alone is not enough: samplers that round it
    /// use the same one for different levels.
    pub level: [u64; 3],
    /// Digest of the pass's other inputs (text, SDXL's time ids).
    pub conditions: u64,
    /// Whether keys and values were rounded to half precision.
    pub half: bool,
    /// Bits of the token merge ratio.
    pub token_merge_ratio: u64,
}

/// Statistics of a [`ReferenceKvCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CacheStats {
    /// Recordings found in memory.
    pub hits: u64,
    /// Recordings found on disk.
    pub disk_hits: u64,
    /// Recordings that were not found.
    pub misses: u64,
    /// Bytes kept in memory now.
    pub bytes: u64,
    /// Bytes kept on disk now.
    pub disk_bytes: u64,
    /// Recordings that could not be written to disk or were damaged when read back. Images are not affected: such
    /// references are recorded again.
    pub disk_failures: u64,
}

impl CacheStats {
    /// Returns the sums of two caches' statistics.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            disk_hits: self.disk_hits + other.disk_hits,
            misses: self.misses + other.misses,
            bytes: self.bytes + other.bytes,
            disk_bytes: self.disk_bytes + other.disk_bytes,
            disk_failures: self.disk_failures + other.disk_failures,
        }
    }
}

/// Cache of reference keys and values with a byte budget.
///
/// A full cache evicts entries that the current run has not used, the ones used longest ago first. Entries used
/// by the current run are never evicted for its later steps: each run reads entries in the same order, so
/// evicting the oldest would evict each entry just before it is needed again. A budget too small for a run
/// therefore holds its first steps.
///
/// With a spill folder, entries that are evicted or do not fit move to disk, where the same rule applies with a
/// separate budget. Each entry is either in memory or on disk.
///
/// Threads may share a cache. Its lock is held only for bookkeeping, never during file access or transfers to or from
/// a device: a thread waiting for the lock might be the one that the device waits for.
#[derive(Debug, Default)]
pub struct ReferenceKvCache {
    /// Declared before the folder, so that files are dropped before the folder that contains them.
    state: Mutex<State>,
    folder: Option<SpillFolder>,
    claims: Claims,
}

/// Contents of a cache.
#[derive(Debug, Default)]
struct State {
    memory: ByteBudgetCache<Arc<TokensBySite>>,
    disk: Disk,
    /// Counters. The byte fields are unused here; [`ReferenceKvCache::stats`] fills them in.
    stats: CacheStats,
    run: u64,
    /// Number of calls to [`ReferenceKvCache::clear`].
    cleared: u64,
}

#[derive(Debug, Default)]
struct Disk {
    files: ByteBudgetCache<Arc<SpilledTokens>>,
    budget: u64,
    /// Bytes of the budget reserved for files being written.
    reserved: u64,
    /// Whether a write failed; nothing more is written then.
    off: bool,
    /// The last error.
    error: Option<String>,
}

impl ReferenceKvCache {
    /// Creates an empty cache that keeps up to `bytes` on disk, in a new folder inside `folder`. The new folder
    /// is removed when the cache is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be created.
    pub fn spilling(folder: &Path, bytes: u64) -> Result<Self, Error> {
        let made = SpillFolder::new(folder)
            .map_err(|source| Error::SpillFolder { place: folder.display().to_string(), source })?;
        let disk = Disk { budget: bytes, ..Disk::default() };
        Ok(Self {
            state: Mutex::new(State { disk, ..State::default() }),
            folder: Some(made),
            claims: Claims::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the state inconsistent: only bookkeeping runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns hits, misses and bytes so far.
    pub fn stats(&self) -> CacheStats {
        let state = self.lock();
        CacheStats { bytes: state.memory.bytes(), disk_bytes: state.disk.files.bytes(), ..state.stats }
    }

    /// Returns the last disk error: a failed write, after which nothing more is written, or the last entry of
    /// this run that could not be read back.
    pub fn spill_error(&self) -> Option<String> {
        self.lock().disk.error.clone()
    }

    /// Starts a new run: entries that it does not use may be evicted.
    pub fn begin_run(&self) {
        let mut state = self.lock();
        state.run += 1;
        if !state.disk.off {
            state.disk.error = None;
        }
    }

    /// Removes all entries, and allows writing to disk again after a failure.
    pub fn clear(&self) {
        let mut state = self.lock();
        let forgotten = (std::mem::take(&mut state.memory), std::mem::take(&mut state.disk.files));
        (state.disk.off, state.disk.error) = (false, None);
        state.cleared += 1;
        drop(state);
        drop(forgotten);
    }

    /// Returns the entry with this key. An entry on disk moves to memory if the memory budget (in bytes) allows it.
    pub fn get(&self, key: &ReferenceKvKey, budget: u64) -> Option<Arc<TokensBySite>> {
        let (file, bytes) = match self.lock().find(key)? {
            Found::InMemory(tokens) => return Some(tokens),
            Found::OnDisk(file, bytes) => (file, bytes),
        };
        let read = file.read();
        let mut state = self.lock();
        let tokens = match read {
            Ok(tokens) => Arc::new(tokens),
            Err(error) => {
                state.forget_damaged(key, &file, &error);
                return None;
            }
        };
        state.stats.disk_hits += 1;
        let fits = state.memory.has_room(bytes, budget, state.run);
        drop(state);
        drop(file);
        if fits {
            self.insert(*key, tokens.clone(), budget);
        }
        Some(tokens)
    }

    /// Claims the recording of this key for the current thread, or returns `None` if another thread records it.
    pub(crate) fn claim(&self, key: ReferenceKvKey) -> Option<Claim<'_>> {
        self.claims.claim(key)
    }

    /// Waits until the thread that records this key has finished; see [`Claims::wait`].
    pub(crate) fn wait(&self, key: &ReferenceKvKey, since: Instant) {
        self.claims.wait(key, since);
    }

    /// Looks up a key that [`Self::get`] did not find a moment ago. The two lookups count as one.
    pub(crate) fn look_again(&self, key: &ReferenceKvKey, budget: u64) -> Option<Arc<TokensBySite>> {
        self.lock().stats.misses -= 1;
        self.get(key, budget)
    }

    /// Adds an entry, in memory if `budget` (in bytes) allows it, else on disk if its budget allows it.
    pub fn insert(&self, key: ReferenceKvKey, tokens: Arc<TokensBySite>, budget: u64) {
        let bytes = tokens.values().map(|layer| size_of_tensor(&layer.key) + size_of_tensor(&layer.value)).sum::<u64>();
        let Placed { replaced, without_place } = self.lock().place(key, tokens, bytes, budget);
        drop(replaced);
        for (key, entry) in without_place {
            self.spill(key, entry);
        }
    }

    /// Writes an entry that does not fit in memory to disk, if it fits there.
    ///
    /// Threads that need the entry while it is being written record it again: slower, with the same result.
    fn spill(&self, key: ReferenceKvKey, entry: TokensEntry) {
        let Some(folder) = &self.folder else { return };
        let Some(mut reservation) = self.reserve(&entry) else { return };
        let written = folder.write(&entry.value);
        let superfluous = reservation.fill(key, entry.last_run, written);
        drop(superfluous);
    }

    /// Reserves space on disk and evicts older files for it.
    fn reserve(&self, entry: &TokensEntry) -> Option<Reservation<'_>> {
        let mut state = self.lock();
        let Disk { files, budget, reserved, off, .. } = &mut state.disk;
        let bytes = *reserved + entry.bytes;
        if *off || !files.has_room(bytes, *budget, entry.last_run) {
            return None;
        }
        let older = files.make_room(bytes, *budget, entry.last_run);
        *reserved = bytes;
        let cleared = state.cleared;
        drop(state);
        drop(older);
        Some(Reservation { cache: self, bytes: entry.bytes, cleared })
    }
}

type TokensEntry = Entry<Arc<TokensBySite>>;
type FileEntry = Entry<Arc<SpilledTokens>>;

/// Location of a recording.
enum Found {
    InMemory(Arc<TokensBySite>),
    OnDisk(Arc<SpilledTokens>, u64),
}

/// Entries left over by [`State::place`].
struct Placed {
    /// Old entries with the same key, to be dropped after the lock is released.
    replaced: (Option<TokensEntry>, Option<FileEntry>),
    /// Entries without room in memory, to be written to disk.
    without_place: Vec<(ReferenceKvKey, TokensEntry)>,
}

impl State {
    /// Looks up a recording and counts a hit in memory or a miss.
    fn find(&mut self, key: &ReferenceKvKey) -> Option<Found> {
        if let Some(entry) = self.memory.get(key, self.run) {
            self.stats.hits += 1;
            return Some(Found::InMemory(entry.value.clone()));
        }
        let Some(entry) = self.disk.files.get(key, self.run) else {
            self.stats.misses += 1;
            return None;
        };
        Some(Found::OnDisk(entry.value.clone(), entry.bytes))
    }

    /// Adds a recording to memory if it fits.
    fn place(&mut self, key: ReferenceKvKey, tokens: Arc<TokensBySite>, bytes: u64, budget: u64) -> Placed {
        let replaced = (self.memory.take(&key), self.disk.files.take(&key));
        let entry = Entry { value: tokens, bytes, last_run: self.run };
        let fits = self.memory.has_room(bytes, budget, self.run);
        // Newest first: on disk, older entries would be evicted for newer ones.
        let displaced = self.memory.make_room(bytes, budget, self.run).into_iter().rev();
        let mut without_place = Vec::new();
        if fits {
            self.memory.put(key, entry);
        } else {
            without_place.push((key, entry));
        }
        without_place.extend(displaced);
        Placed { replaced, without_place }
    }

    /// Removes an unreadable file, unless another one has replaced it meanwhile.
    fn forget_damaged(&mut self, key: &ReferenceKvKey, file: &Arc<SpilledTokens>, error: &std::io::Error) {
        let Self { disk, stats, run, .. } = self;
        if disk.files.get(key, *run).is_some_and(|entry| Arc::ptr_eq(&entry.value, file)) {
            disk.files.take(key);
        }
        stats.misses += 1;
        stats.disk_failures += 1;
        if !disk.off {
            disk.error = Some(format!(
                "a file of spilled keys and values was not as it had been written: {error}; images are not \
                 affected, it was recorded again: see whether the disk is sound and nobody else writes there"
            ));
        }
    }
}

/// Reserved space on disk for a file being written; released on drop if writing did not finish.
#[derive(Debug)]
struct Reservation<'a> {
    cache: &'a ReferenceKvCache,
    bytes: u64,
    /// Value of [`State::cleared`] when it was created.
    cleared: u64,
}

impl Reservation<'_> {
    /// Adds the written file to the cache, or notes the write error. Returns the file if it is no longer needed
    /// because the reference was recorded again or the cache was cleared meanwhile.
    fn fill(
        &mut self,
        key: ReferenceKvKey,
        last_run: u64,
        written: std::io::Result<SpilledTokens>,
    ) -> Option<SpilledTokens> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut state = self.cache.lock();
        let State { memory, disk, stats, cleared, .. } = &mut *state;
        disk.reserved -= bytes;
        if *cleared != self.cleared {
            // The cache was cleared while the file was written.
            return written.ok();
        }
        match written {
            Ok(file) if memory.has(&key) || disk.files.has(&key) => return Some(file),
            Ok(file) => disk.files.put(key, Entry { value: Arc::new(file), bytes, last_run }),
            Err(error) => {
                stats.disk_failures += 1;
                disk.off = true;
                disk.error = Some(format!(
                    "{bytes} bytes of keys and values could not be spilled to disk: {error}; images are not affected, \
                     but nothing more is spilled: make room for it and clear the caches, or choose another folder"
                ));
            }
        }
        None
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.cache.lock().disk.reserved -= self.bytes;
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
    use crate::cache::ReferenceTokens;
    use burn::tensor::{Device, Tensor};

    fn site() -> AttnSite {
        AttnSite { block: Block::Mid, attention: 0, layer: 0, kind: AttnKind::SelfAttention }
    }

    /// 2 * 8 * 4 = 64 bytes.
    fn tokens(number: u8) -> Arc<TokensBySite> {
        let x = Tensor::<3>::full([1, 4, 2], f32::from(number), &Device::flex());
        Arc::new(TokensBySite::from([(
            site(),
            ReferenceTokens { key: x.clone(), value: x, merged_counts: Vec::new() },
        )]))
    }

    fn key(id: u8, step: u8) -> ReferenceKvKey {
        ReferenceKvKey {
            id: ReferenceId([id; 32]),
            level: [u64::from(step); 3],
            conditions: 0,
            half: false,
            token_merge_ratio: 0,
        }
    }

    /// Gets a recording, or inserts it if it is missing; returns whether it was found. Checks that a found recording
    /// has the inserted values.
    #[track_caller]
    fn ask(cache: &ReferenceKvCache, id: u8, step: u8, budget: u64) -> bool {
        let Some(got) = cache.get(&key(id, step), budget) else {
            cache.insert(key(id, step), tokens(16 * id + step), budget);
            return false;
        };
        let values: Vec<f32> = got[&site()].key.clone().into_data().iter::<f32>().collect();
        assert_eq!(values, [f32::from(16 * id + step); 8]);
        true
    }

    /// How many of a run's recordings were there.
    #[track_caller]
    fn run(cache: &ReferenceKvCache, ids: &[u8], steps: u8, budget: u64) -> usize {
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
        let cache = ReferenceKvCache::default();
        cache.begin_run();
        for step in 0..3 {
            cache.insert(key(a, step), tokens(0), 128);
        }
        assert_eq!(cache.stats().bytes, 128);
        let has = |cache: &ReferenceKvCache, key| cache.get(&key, 128).is_some();
        assert!(has(&cache, key(a, 0)) && has(&cache, key(a, 1)), "a run keeps its first steps");
        assert!(!has(&cache, key(a, 2)));
        cache.begin_run();
        assert!(has(&cache, key(a, 0)));
        cache.insert(key(b, 0), tokens(0), 128);
        assert!(!has(&cache, key(a, 1)), "not asked for in this run");
        assert!(has(&cache, key(a, 0)) && has(&cache, key(b, 0)));
        assert_eq!(cache.stats().bytes, 128);
    }

    #[test]
    fn a_smaller_budget_frees_memory_even_for_what_will_not_fit() {
        let cache = ReferenceKvCache::default();
        run(&cache, &[1], 4, 1000);
        assert_eq!(cache.stats().bytes, 256);
        assert_eq!(run(&cache, &[2], 1, 63), 0);
        assert_eq!(cache.stats().bytes, 0);
    }

    #[test]
    fn what_memory_cannot_hold_is_found_on_disk() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 1 << 20).unwrap();
        assert_eq!(run(&cache, &[1, 2], 3, 128), 0);
        assert_eq!(files(&place).len(), 4);
        for _ in 0..3 {
            assert_eq!(run(&cache, &[1, 2], 3, 128), 6);
        }
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.disk_hits, stats.misses), (6, 12, 6));
        assert_eq!((stats.bytes, stats.disk_bytes, stats.disk_failures), (128, 256, 0));
        cache.clear();
        assert_eq!((cache.stats().bytes, cache.stats().disk_bytes, files(&place).len()), (0, 0, 0));
        assert_eq!(run(&cache, &[1], 1, 0), 0);
        drop(cache);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "its folder goes with it");
    }

    #[test]
    fn what_is_asked_for_again_changes_places_with_what_is_not() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 128).unwrap();
        run(&cache, &[1], 2, 128);
        run(&cache, &[2], 2, 128);
        assert_eq!((cache.stats().bytes, cache.stats().disk_bytes), (128, 128));
        // Both budgets are full: each recording frees its place on disk before it takes one in memory.
        assert_eq!(run(&cache, &[1], 2, 128), 2);
        assert_eq!(cache.stats().disk_hits, 2);
        assert_eq!(run(&cache, &[1], 2, 128), 2);
        assert_eq!((cache.stats().disk_hits, cache.stats().hits), (2, 2), "from memory now");
        assert_eq!(run(&cache, &[2], 2, 128), 2);
        assert_eq!((cache.stats().bytes, cache.stats().disk_bytes), (128, 128));
        assert_eq!(files(&place).len(), 2);
    }

    #[test]
    fn the_disk_budget_is_kept_and_stale_references_go_first() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 128).unwrap();
        assert_eq!(run(&cache, &[1], 3, 0), 0);
        assert_eq!(cache.stats().disk_bytes, 128);
        assert_eq!(run(&cache, &[1], 3, 0), 2, "a run keeps its first steps");
        assert_eq!(run(&cache, &[2], 1, 0), 0);
        assert_eq!((cache.stats().disk_bytes, files(&place).len()), (128, 2));
        assert_eq!(run(&cache, &[2], 1, 0), 1, "and gives way to the next one");
    }

    #[test]
    fn what_is_too_large_for_the_disk_drops_nothing_there() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 128).unwrap();
        run(&cache, &[1], 2, 0);
        let x = Tensor::<3>::zeros([1, 40, 2], &Device::flex());
        let large = ReferenceTokens { key: x.clone(), value: x, merged_counts: Vec::new() };
        cache.begin_run();
        cache.insert(key(3, 0), Arc::new(TokensBySite::from([(site(), large)])), 0);
        assert_eq!(run(&cache, &[1], 2, 0), 2);
    }

    #[test]
    fn a_damaged_file_is_a_miss_and_is_written_again() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 1 << 20).unwrap();
        run(&cache, &[1], 3, 0);
        let damaged = files(&place).pop().unwrap();
        fs::write(&damaged, "short").unwrap();
        assert_eq!(run(&cache, &[1], 3, 0), 2);
        assert_eq!(cache.stats().disk_failures, 1);
        assert!(cache.spill_error().unwrap().contains("has 5 bytes, expected 64"), "{:?}", cache.spill_error());
        assert_eq!(run(&cache, &[1], 3, 0), 3);
        assert_eq!((cache.spill_error(), cache.stats().disk_failures), (None, 1), "that was another run's");
    }

    #[test]
    fn a_write_that_fails_switches_the_disk_off_until_the_caches_are_cleared() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 1 << 20).unwrap();
        run(&cache, &[1], 1, 0);
        let own = files(&place)[0].parent().unwrap().to_owned();
        let aside = place.path().join("aside");
        fs::rename(&own, &aside).unwrap();
        assert_eq!(run(&cache, &[1, 2], 2, 64), 0, "a run goes on");
        let stats = cache.stats();
        assert_eq!((stats.bytes, stats.disk_bytes, stats.disk_hits), (64, 0, 0), "{stats:?}");
        assert!(cache.spill_error().unwrap().contains("could not be spilled"));
        fs::rename(&aside, &own).unwrap();
        assert_eq!(run(&cache, &[1, 2], 2, 64), 1, "what memory holds is still found");
        assert_eq!(cache.stats().disk_failures, stats.disk_failures, "nothing more was tried");
        assert!(cache.spill_error().is_some(), "and it is still said");
        cache.clear();
        assert_eq!(cache.spill_error(), None);
        run(&cache, &[1], 1, 0);
        assert_eq!(run(&cache, &[1], 1, 0), 1);
    }

    #[test]
    fn what_is_recorded_again_while_it_is_written_is_kept_once() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 128).unwrap();
        cache.begin_run();
        let entry = || Entry { value: tokens(16), bytes: 64, last_run: 1 };
        let mut reservation = cache.reserve(&entry()).expect("room for two");
        // As another run does between the writing of a file and its end: nothing waits, and nothing is lost.
        assert!(!ask(&cache, 1, 0, 64));
        let written = cache.folder.as_ref().expect("a folder").write(&tokens(16));
        assert!(reservation.fill(key(1, 0), 1, written).is_some(), "the file is not needed any more");
        let stats = cache.stats();
        assert_eq!((stats.bytes, stats.disk_bytes, files(&place).len()), (64, 0, 0), "{stats:?}");
        assert!(ask(&cache, 1, 0, 64));
    }

    #[test]
    fn what_is_being_written_counts_in_the_disks_budget_until_it_is_given_up() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 128).unwrap();
        cache.begin_run();
        let entry = Entry { value: tokens(0), bytes: 64, last_run: 1 };
        let writing = [cache.reserve(&entry).expect("room"), cache.reserve(&entry).expect("room")];
        assert!(cache.reserve(&entry).is_none(), "the budget is spoken for");
        cache.clear();
        assert!(cache.reserve(&entry).is_none(), "also when what lay there is forgotten");
        // As when a device panics while its numbers are brought to the host.
        drop(writing);
        assert!(cache.reserve(&entry).is_some());
    }

    #[test]
    fn what_was_being_written_is_forgotten_with_everything_else() {
        let place = tempfile::tempdir().unwrap();
        let cache = ReferenceKvCache::spilling(place.path(), 1 << 20).unwrap();
        cache.begin_run();
        let entry = Entry { value: tokens(0), bytes: 64, last_run: 1 };
        let [mut whole, mut failed] = [0, 1].map(|_| cache.reserve(&entry).expect("room"));
        let written = cache.folder.as_ref().unwrap().write(&entry.value);
        cache.clear();
        assert!(whole.fill(key(0, 0), 1, written).is_some(), "a file that nobody needs");
        assert!(failed.fill(key(1, 0), 1, Err(std::io::Error::other("full"))).is_none());
        assert_eq!((cache.stats().disk_bytes, cache.stats().disk_failures, cache.spill_error()), (0, 0, None));
        assert!(cache.get(&key(0, 0), 0).is_none());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        let place = tempfile::tempdir().unwrap();
        let message = ReferenceKvCache::spilling(&place.path().join("none"), 1).unwrap_err().to_string();
        assert!(message.contains("none") && message.contains("exist"), "{message}");
    }

    #[test]
    fn numbers_of_older_reports_can_be_read() {
        let old: CacheStats = serde_json::from_str(r#"{"hits":3,"misses":2,"bytes":1}"#).unwrap();
        assert_eq!(old, CacheStats { hits: 3, misses: 2, bytes: 1, ..CacheStats::default() });
    }
}
