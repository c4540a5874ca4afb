//! Claims on references that are being recorded, so that several threads do not record the same one.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fabric_backends::is_worker_thread;

use super::ReferenceKvKey;

/// Longest wait for recordings in one evaluation; after it, the waiting thread records for itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keys that some thread is recording now.
#[derive(Debug, Default)]
pub(super) struct Claims {
    keys: Mutex<HashSet<ReferenceKvKey>>,
    released: Condvar,
}

/// Claim of one thread on one key, released on drop, also when recording fails.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    claims: &'a Claims,
    key: ReferenceKvKey,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, HashSet<ReferenceKvKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a key for the current thread, or returns `None` if another thread has claimed it.
    pub(super) fn claim(&self, key: ReferenceKvKey) -> Option<Claim<'_>> {
        self.lock().insert(key).then(|| Claim { claims: self, key })
    }

    /// Waits until nobody claims this key, at most until [`PATIENCE`] after `since`; the claim is then taken away, in case
    /// the device of the other thread never answers. A thread that waits must have no claim of its own: two threads could
    /// wait for each other.
    ///
    /// Returns at once on a worker thread of the device's thread pool: the thread that records may be the same one, further
    /// down its stack, and would never continue.
    pub(super) fn wait(&self, key: &ReferenceKvKey, since: Instant) {
        if is_worker_thread() {
            return;
        }
        let keys = self.lock();
        let recording = |keys: &mut HashSet<ReferenceKvKey>| keys.contains(key);
        let left = PATIENCE.saturating_sub(since.elapsed());
        let (mut keys, _) =
            self.released.wait_timeout_while(keys, left, recording).unwrap_or_else(PoisonError::into_inner);
        keys.remove(key);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.key);
        self.claims.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::ReferenceId;

    fn key(id: u8) -> ReferenceKvKey {
        ReferenceKvKey { id: ReferenceId([id; 32]), level: [0; 3], conditions: 0, half: false, token_merge_ratio: 0 }
    }

    #[test]
    fn one_thread_has_a_key_and_the_others_wait_for_it() {
        let claims = Claims::default();
        let first = claims.claim(key(1)).expect("nobody else has it");
        assert!(claims.claim(key(1)).is_none());
        let other = claims.claim(key(2)).expect("another key");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| claims.wait(&key(1), Instant::now()));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            drop(first);
            waiting.join().expect("it goes on");
        });
        drop(other);
        claims.wait(&key(1), Instant::now());
        // A thread that panics while it records releases its claim.
        let panicked = std::thread::scope(|scope| {
            let recording = scope.spawn(|| {
                let _claim = claims.claim(key(3));
                panic!("the device failed");
            });
            recording.join().is_err()
        });
        assert!(panicked && claims.claim(key(3)).is_some());
        // A claim that is held for too long is taken away.
        let _hung = claims.claim(key(4)).expect("nobody else has it");
        claims.wait(&key(4), Instant::now().checked_sub(PATIENCE).expect("the machine runs for longer"));
        assert!(claims.claim(key(4)).is_some());
    }
}
