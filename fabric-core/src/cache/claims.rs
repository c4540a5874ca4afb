//! Claims on references that are being recorded, so that several threads do not record the same one.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use fabric_backends::is_worker_thread;

use super::ReferenceKvKey;

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

    /// Waits until nobody claims this key. A thread that waits must have no claim of its own: two threads could wait
    /// for each other.
    ///
    /// Returns at once on a worker thread of the device's thread pool: the thread that records may be the same one, further
    /// down its stack, and would never continue.
    pub(super) fn wait(&self, key: &ReferenceKvKey) {
        if is_worker_thread() {
            return;
        }
        let mut keys = self.lock();
        while keys.contains(key) {
            keys = self.released.wait(keys).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.key);
        self.claims.released.notify_all();
    }
}
