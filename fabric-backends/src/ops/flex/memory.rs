//! Memory pool for results.
//!
//! The system clears fresh memory page by page when it is first written, which takes longer than many of the
//! operations that fill it. So the memory of large results is kept for later results when they are dropped, up
//! to a limit.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{AllocationProperty, Bytes, DType};
use burn_std::{AccessError, AccessPolicy, AllocationController};

/// Maximum number of f32 values in the pool: 256 MiB.
const KEPT: usize = 1 << 26;

/// Results with fewer values come from the allocator, which is fast at this size.
const SMALL: usize = 1 << 14;

/// The pool that all results share.
static POOL: Mutex<Pool> = Mutex::new(Pool { free: VecDeque::new(), limit: KEPT });

fn pool() -> MutexGuard<'static, Pool> {
    // A poisoned lock can be ignored: each change to the pool leaves it valid.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the bytes in the pool that are free for new results.
pub(crate) fn kept_bytes() -> u64 {
    (pool().kept() * size_of::<f32>()) as u64
}

/// Buffers that are currently unused.
#[derive(Debug)]
struct Pool {
    /// Ordered from the longest to the shortest unused.
    free: VecDeque<Vec<f32>>,
    /// Maximum number of values in all buffers together.
    limit: usize,
}

impl Pool {
    fn kept(&self) -> usize {
        self.free.iter().map(Vec::len).sum()
    }

    /// Takes the smallest buffer with at least `count` values, which are arbitrary. Returns `None` if there is
    /// no such buffer or it is more than a quarter too large.
    fn take(&mut self, count: usize) -> Option<Vec<f32>> {
        let fits = |(_, length): &(usize, usize)| (count..=count + count / 4).contains(length);
        let (at, _) = self.free.iter().map(Vec::len).enumerate().filter(fits).min_by_key(|(_, length)| *length)?;
        self.free.remove(at)
    }

    /// Returns a buffer to the pool and frees the longest unused buffers if the limit is exceeded.
    fn give_back(&mut self, numbers: Vec<f32>) {
        if numbers.len() > self.limit {
            return;
        }
        let mut kept = self.kept();
        while kept + numbers.len() > self.limit {
            kept -= self.free.pop_front().map_or(0, |oldest| oldest.len());
        }
        self.free.push_back(numbers);
    }
}

/// Creates a tensor with this layout from `count` values that `f` writes. The values that `f` receives are
/// arbitrary, so it must write all of them.
pub(super) fn filled(count: usize, layout: Layout, f: impl FnOnce(&mut [f32])) -> FlexTensor {
    let got = if count < SMALL { None } else { pool().take(count) };
    let mut numbers = got.unwrap_or_else(|| vec![0.0; count]);
    if cfg!(any(test, debug_assertions)) {
        // Makes values that `f` did not write visible in tests.
        numbers.fill(f32::NAN);
    }
    f(&mut numbers[..count]);
    let bytes = if count < SMALL {
        Bytes::from_elems(numbers)
    } else {
        #[allow(unsafe_code, reason = "burn takes memory of others this way")]
        // SAFETY: there are at least `count` numbers, all of them initialised.
        unsafe {
            Bytes::from_controller(Box::new(Lent(numbers)), count * size_of::<f32>())
        }
    };
    FlexTensor::new(bytes, layout, DType::F32)
}

/// Buffer that returns to the pool when it is dropped.
struct Lent(Vec<f32>);

impl Drop for Lent {
    fn drop(&mut self) {
        pool().give_back(std::mem::take(&mut self.0));
    }
}

impl AllocationController for Lent {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    #[allow(unsafe_code, reason = "bytes are all that burn knows of")]
    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let length = self.0.len() * size_of::<f32>();
        // SAFETY: these are the bytes of the buffer, borrowed exclusively. The caller promises not to write
        // uninitialised bytes, and any bytes are valid f32 values.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) })
    }

    #[allow(unsafe_code, reason = "bytes are all that burn knows of")]
    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let length = self.0.len() * size_of::<f32>();
        // SAFETY: these are the bytes of the buffer.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Shape;

    #[test]
    fn memory_is_used_again_if_little_of_it_lies_idle() {
        let mut pool = Pool { free: VecDeque::new(), limit: 1000 };
        let lengths = |pool: &Pool| pool.free.iter().map(Vec::len).collect::<Vec<_>>();
        for length in [400, 100, 120, 300] {
            pool.give_back(vec![0.0; length]);
        }
        let place = pool.free[1].as_ptr();
        let taken = pool.take(90).expect("the smallest that fits");
        assert_eq!(taken.as_ptr(), place);
        assert!(pool.take(90).is_none() && pool.take(401).is_none(), "too long, too short");
        assert_eq!(lengths(&pool), [400, 120, 300]);
        pool.give_back(vec![0.0; 301]);
        assert_eq!(lengths(&pool), [120, 300, 301], "the oldest makes room");
        pool.give_back(vec![0.0; 1001]);
        assert_eq!(lengths(&pool), [120, 300, 301], "more than all that may be kept");
    }

    #[test]
    fn memory_comes_back_when_nobody_holds_it() {
        // Lengths that no other test uses.
        let made = |count: usize, value: f32| {
            filled(count, Layout::contiguous(Shape::from(vec![count])), |numbers| numbers.fill(value))
        };
        let count = SMALL * 37 + 5;
        let is_kept = || pool().free.iter().any(|numbers| numbers.len() == count);
        let (first, second) = (made(count, 1.0), made(count, 2.0));
        let other = first.clone();
        drop(first);
        assert!(!is_kept(), "somebody still holds it");
        assert!(other.storage::<f32>().iter().all(|x| *x == 1.0) && second.storage::<f32>().iter().all(|x| *x == 2.0));
        drop(other);
        assert!(is_kept() && kept_bytes() >= (count * size_of::<f32>()) as u64);
    }
}
