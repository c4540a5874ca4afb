//! Things of known size under a byte budget, and which of them go when it is full.

use std::collections::HashMap;

use super::ReferenceKvKey;

/// What is kept in one place.
///
/// What makes room are things that no run asked for lately, the oldest first. What the run that asks needs itself never
/// goes: a run scans its things in order, and dropping the oldest would drop each just before it is needed again.
#[derive(Debug)]
pub(super) struct ByteBudgetCache<T> {
    things: HashMap<ReferenceKvKey, Kept<T>>,
    bytes: u64,
}

/// One thing on a [`ByteBudgetCache`].
#[derive(Debug)]
pub(super) struct Kept<T> {
    pub(super) thing: T,
    pub(super) bytes: u64,
    /// The run that asked for it last.
    pub(super) last_run: u64,
}

impl<T> Default for ByteBudgetCache<T> {
    fn default() -> Self {
        Self { things: HashMap::new(), bytes: 0 }
    }
}

impl<T> ByteBudgetCache<T> {
    /// Bytes kept now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether something is kept under this key.
    pub(super) fn has(&self, key: &ReferenceKvKey) -> bool {
        self.things.contains_key(key)
    }

    /// What is kept under this key, which this run now asked for.
    pub(super) fn get(&mut self, key: &ReferenceKvKey, run: u64) -> Option<&Kept<T>> {
        let kept = self.things.get_mut(key)?;
        kept.last_run = run;
        Some(kept)
    }

    pub(super) fn put(&mut self, key: ReferenceKvKey, kept: Kept<T>) {
        self.take(&key);
        self.bytes += kept.bytes;
        self.things.insert(key, kept);
    }

    pub(super) fn take(&mut self, key: &ReferenceKvKey) -> Option<Kept<T>> {
        let kept = self.things.remove(key)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }

    /// Whether a thing of this run fits once older ones have made room.
    pub(super) fn has_room(&self, bytes: u64, budget: u64, run: u64) -> bool {
        let needed: u64 = self.things.values().filter(|kept| kept.last_run >= run).map(|kept| kept.bytes).sum();
        needed + bytes <= budget
    }

    /// Takes down what has to go for a thing of this run, or, if that would not fit all the same, what is beyond the
    /// budget by itself (it may have been larger). The oldest comes first.
    pub(super) fn make_room(&mut self, bytes: u64, budget: u64, run: u64) -> Vec<(ReferenceKvKey, Kept<T>)> {
        let most = if self.has_room(bytes, budget, run) { budget - bytes } else { budget };
        if self.bytes <= most {
            return Vec::new();
        }
        let stale = self.things.iter().filter(|(_, kept)| kept.last_run < run);
        let mut stale: Vec<(u64, ReferenceKvKey)> = stale.map(|(key, kept)| (kept.last_run, *key)).collect();
        stale.sort_unstable();
        let mut gone = Vec::new();
        for (_, key) in stale {
            if self.bytes <= most {
                break;
            }
            gone.extend(self.take(&key).map(|kept| (key, kept)));
        }
        gone
    }
}
