//! Cache with a byte budget that evicts the entries used longest ago, but none that the current run used.

use std::collections::HashMap;

use super::ReferenceKvKey;

/// Values of known size, in memory or on disk, under a byte budget.
///
/// Entries of earlier runs are evicted first, those used longest ago before the others. An entry that the current run
/// has used is never evicted: runs use their entries in the same order again and again, so evicting the oldest would
/// evict each entry just before it is needed.
#[derive(Debug)]
pub(super) struct ByteBudgetCache<T> {
    entries: HashMap<ReferenceKvKey, Entry<T>>,
    bytes: u64,
}

/// One value of a [`ByteBudgetCache`].
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) value: T,
    pub(super) bytes: u64,
    /// Number of the last run that used it.
    pub(super) last_run: u64,
}

impl<T> Default for ByteBudgetCache<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), bytes: 0 }
    }
}

impl<T> ByteBudgetCache<T> {
    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is an entry under this key.
    pub(super) fn has(&self, key: &ReferenceKvKey) -> bool {
        self.entries.contains_key(key)
    }

    /// The entry under this key, marked as used by this run.
    pub(super) fn get(&mut self, key: &ReferenceKvKey, run: u64) -> Option<&Entry<T>> {
        let entry = self.entries.get_mut(key)?;
        entry.last_run = run;
        Some(entry)
    }

    pub(super) fn put(&mut self, key: ReferenceKvKey, entry: Entry<T>) {
        self.take(&key);
        self.bytes += entry.bytes;
        self.entries.insert(key, entry);
    }

    pub(super) fn take(&mut self, key: &ReferenceKvKey) -> Option<Entry<T>> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// Whether a value of this run fits after evicting entries of earlier runs.
    pub(super) fn has_room(&self, bytes: u64, budget: u64, run: u64) -> bool {
        let needed: u64 = self.entries.values().filter(|entry| entry.last_run >= run).map(|entry| entry.bytes).sum();
        needed + bytes <= budget
    }

    /// Evicts and returns entries of earlier runs, oldest first, to make room for a value of this run. If the
    /// value would not fit even then, evicts only what exceeds the budget (which may have been larger before).
    pub(super) fn make_room(&mut self, bytes: u64, budget: u64, run: u64) -> Vec<(ReferenceKvKey, Entry<T>)> {
        let most = if self.has_room(bytes, budget, run) { budget - bytes } else { budget };
        if self.bytes <= most {
            return Vec::new();
        }
        let stale = self.entries.iter().filter(|(_, entry)| entry.last_run < run);
        let mut stale: Vec<(u64, ReferenceKvKey)> = stale.map(|(key, entry)| (entry.last_run, *key)).collect();
        stale.sort_unstable();
        let mut gone = Vec::new();
        for (_, key) in stale {
            if self.bytes <= most {
                break;
            }
            gone.extend(self.take(&key).map(|entry| (key, entry)));
        }
        gone
    }
}
