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
pub(crate) struct ReferenceKvKey {
    /// Identifies the image and its encoding.
    pub(crate) id: ReferenceId,
    /// Bits of the noise level's timestep, alpha and sigma. The timestep alone is not enough: samplers that round it
    /// use the same one for different levels.
    pub(crate) level: [u64; 3],
    /// Digest of the pass's other inputs (text, SDXL's time ids).
    pub(crate) conditions: u64,
    /// Whether keys and values were rounded to half precision.
    pub(crate) half: bool,
    /// Bits of the token merge ratio.
    pub(crate) token_merge_ratio: u64,
}

/// Statistics of the cache of reference keys and values.
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
pub(crate) struct ReferenceKvCache {
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
    pub(crate) fn spilling(folder: &Path, bytes: u64) -> Result<Self, Error> {
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
    pub(crate) fn stats(&self) -> CacheStats {
        let state = self.lock();
        CacheStats { bytes: state.memory.bytes(), disk_bytes: state.disk.files.bytes(), ..state.stats }
    }

    /// Returns the last disk error: a failed write, after which nothing more is written, or the last entry of
    /// this run that could not be read back.
    pub(crate) fn spill_error(&self) -> Option<String> {
        self.lock().disk.error.clone()
    }

    /// Starts a new run: entries that it does not use may be evicted.
    pub(crate) fn begin_run(&self) {
        let mut state = self.lock();
        state.run += 1;
        if !state.disk.off {
            state.disk.error = None;
        }
    }

    /// Removes all entries, and allows writing to disk again after a failure.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        let forgotten = (std::mem::take(&mut state.memory), std::mem::take(&mut state.disk.files));
        (state.disk.off, state.disk.error) = (false, None);
        state.cleared += 1;
        drop(state);
        drop(forgotten);
    }

    /// Returns the entry with this key. An entry on disk moves to memory if the memory budget (in bytes) allows it.
    pub(crate) fn get(&self, key: &ReferenceKvKey, budget: u64) -> Option<Arc<TokensBySite>> {
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
    pub(crate) fn insert(&self, key: ReferenceKvKey, tokens: Arc<TokensBySite>, budget: u64) {
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
mod tests;
