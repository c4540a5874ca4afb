//! Properties of the cache: its budgets, and what happens when a disk fails.

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
    Arc::new(TokensBySite::from([(site(), ReferenceTokens { key: x.clone(), value: x, merged_counts: Vec::new() })]))
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
