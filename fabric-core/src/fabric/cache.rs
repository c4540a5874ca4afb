//! Reference keys and values, kept for later under a byte budget.

use std::collections::HashMap;
use std::sync::Arc;

use super::TokensBySite;
use crate::noise::ReferenceId;

/// What determines a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey {
    /// The picture, and how it was encoded.
    pub id: ReferenceId,
    /// The bits of the noise level's timestep.
    pub timestep: u64,
    /// A digest of what else the pass was given (its text, SDXL's time ids).
    pub conditions: u64,
    /// Whether it was rounded to half precision.
    pub half: bool,
    /// The bits of the share of tokens that were merged.
    pub merge: u64,
}

/// How well a [`TokenCache`] serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct CacheStats {
    /// Recordings found.
    pub hits: u64,
    /// Recordings that had to be made.
    pub misses: u64,
    /// Bytes kept now.
    pub bytes: u64,
}

/// Keys and values of references, kept under a byte budget.
///
/// A full cache drops what belongs to references that were not asked for lately; what the current references
/// need is never dropped for their own later steps (a run scans them in order, and dropping the oldest would then
/// drop everything just before it is needed again), so a budget too small for a run keeps its first steps.
#[derive(Debug, Default)]
pub struct TokenCache {
    entries: HashMap<CacheKey, Entry>,
    stats: CacheStats,
    run: u64,
}

#[derive(Debug)]
struct Entry {
    tokens: Arc<TokensBySite>,
    bytes: u64,
    last_run: u64,
}

impl TokenCache {
    /// Hits, misses and bytes so far.
    pub fn stats(&self) -> CacheStats {
        self.stats
    }

    /// Tells that a new run starts: what it does not ask for may be dropped.
    pub fn begin_run(&mut self) {
        self.run += 1;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.stats.bytes = 0;
    }

    /// What is kept under this key.
    pub fn get(&mut self, key: &CacheKey) -> Option<Arc<TokensBySite>> {
        let found = self.entries.get_mut(key).map(|entry| {
            entry.last_run = self.run;
            entry.tokens.clone()
        });
        match found {
            Some(_) => self.stats.hits += 1,
            None => self.stats.misses += 1,
        }
        found
    }

    /// Keeps a recording if the budget (in bytes) allows it.
    pub fn insert(&mut self, key: CacheKey, tokens: Arc<TokensBySite>, budget: u64) {
        let bytes = tokens.values().map(|lent| size_of_tensor(&lent.key) + size_of_tensor(&lent.value)).sum::<u64>();
        let mut stale: Vec<(u64, CacheKey, u64)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.last_run < self.run)
            .map(|(key, entry)| (entry.last_run, *key, entry.bytes))
            .collect();
        stale.sort_unstable_by(|a, b| b.cmp(a));
        while self.stats.bytes + bytes > budget {
            let Some((_, old, freed)) = stale.pop() else { return };
            self.entries.remove(&old);
            self.stats.bytes -= freed;
        }
        let entry = Entry { tokens, bytes, last_run: self.run };
        if let Some(old) = self.entries.insert(key, entry) {
            self.stats.bytes -= old.bytes;
        }
        self.stats.bytes += bytes;
    }
}

fn size_of_tensor(x: &burn::tensor::Tensor<3>) -> u64 {
    (x.dims().iter().product::<usize>() * x.dtype().size()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttnKind, AttnSite, Block};
    use crate::fabric::LentTokens;
    use burn::tensor::{Device, Tensor};

    /// 2 * 8 * 4 = 64 bytes.
    fn tokens() -> Arc<TokensBySite> {
        let site = AttnSite { block: Block::Mid, attention: 0, layer: 0, kind: AttnKind::SelfAttention };
        let x = Tensor::<3>::zeros([1, 4, 2], &Device::flex());
        Arc::new(HashMap::from([(site, LentTokens { key: x.clone(), value: x, stands_for: Vec::new() })]))
    }

    #[test]
    fn the_budget_is_kept_and_stale_references_go_first() {
        let key = |id, step: u8| CacheKey {
            id: ReferenceId([id; 32]),
            timestep: u64::from(step),
            conditions: 0,
            half: false,
            merge: 0,
        };
        let (a, b) = (1, 2);
        let mut cache = TokenCache::default();
        cache.begin_run();
        for step in 0..3 {
            cache.insert(key(a, step), tokens(), 128);
        }
        assert_eq!(cache.stats().bytes, 128);
        assert!(cache.get(&key(a, 0)).is_some() && cache.get(&key(a, 1)).is_some(), "a run keeps its first steps");
        assert!(cache.get(&key(a, 2)).is_none());
        cache.begin_run();
        assert!(cache.get(&key(a, 0)).is_some());
        cache.insert(key(b, 0), tokens(), 128);
        assert!(cache.get(&key(a, 1)).is_none(), "not asked for in this run");
        assert!(cache.get(&key(a, 0)).is_some() && cache.get(&key(b, 0)).is_some());
        assert_eq!(cache.stats().bytes, 128);
    }
}
