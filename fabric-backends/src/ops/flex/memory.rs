//! Memory of results, used again.
//!
//! The system clears fresh memory page by page when it is first written, which takes longer than many of the operations
//! that fill it. So the memory of large results is kept when they are dropped, for the next ones, up to a limit.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{AllocationProperty, Bytes, DType};
use burn_std::{AccessError, AccessPolicy, AllocationController};

/// Numbers that are kept at most: 256 MiB.
const KEPT: usize = 1 << 26;

/// Results of fewer numbers are left to the allocator, which is quick with them.
const SMALL: usize = 1 << 14;

/// What is kept, the longest unused first.
static FREE: Mutex<VecDeque<Vec<f32>>> = Mutex::new(VecDeque::new());

fn free() -> MutexGuard<'static, VecDeque<Vec<f32>>> {
    // What a panic left behind is as good as before: each change is a single one.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// At least `count` numbers of any value.
fn take(count: usize) -> Vec<f32> {
    let found = {
        let mut free = free();
        // The smallest that is large enough, unless much of it would lie idle.
        let fits = |numbers: &&(usize, usize)| numbers.1 >= count && numbers.1 - count <= count / 4;
        let lengths: Vec<_> = free.iter().map(Vec::len).enumerate().collect();
        let best = lengths.iter().filter(fits).min_by_key(|(_, length)| *length);
        best.and_then(|&(at, _)| free.remove(at))
    };
    found.unwrap_or_else(|| vec![0.0; count])
}

/// Keeps this memory for later, in the place of what was longest unused.
fn give_back(numbers: Vec<f32>) {
    if !(SMALL..=KEPT).contains(&numbers.len()) {
        return;
    }
    let mut free = free();
    let mut kept: usize = free.iter().map(Vec::len).sum();
    while kept + numbers.len() > KEPT {
        kept -= free.pop_front().map_or(0, |oldest| oldest.len());
    }
    free.push_back(numbers);
}

/// A tensor of this layout, of as many numbers as `f` is given. It finds any values there, and writes them all.
pub(super) fn filled(count: usize, layout: Layout, f: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut numbers = if count < SMALL { vec![0.0; count] } else { take(count) };
    f(&mut numbers[..count]);
    let length = count * size_of::<f32>();
    #[allow(unsafe_code, reason = "burn takes memory of others this way")]
    // SAFETY: `memory` has at least `count` numbers, all of them initialised.
    let bytes = unsafe { Bytes::from_controller(Box::new(Lent(numbers)), length) };
    FlexTensor::new(bytes, layout, DType::F32)
}

/// Numbers that are given back when they are dropped.
struct Lent(Vec<f32>);

impl Drop for Lent {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
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
        // SAFETY: the bytes of these numbers, borrowed alone; the caller promised to write no uninitialised ones, and any
        // bytes are numbers.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) })
    }

    #[allow(unsafe_code, reason = "bytes are all that burn knows of")]
    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let length = self.0.len() * size_of::<f32>();
        // SAFETY: the bytes of these numbers.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Shape;

    fn made(count: usize, value: f32) -> FlexTensor {
        filled(count, Layout::contiguous(Shape::from(vec![count])), |numbers| numbers.fill(value))
    }

    #[test]
    fn memory_is_used_again_and_never_shared() {
        // A length of this test's own: others run beside it.
        let count = SMALL * 3 + 7;
        let first = made(count, 1.0);
        let place = first.bytes().as_ptr();
        let (kept, other) = (first.clone(), made(count, 2.0));
        drop(first);
        assert_ne!(made(count, 3.0).bytes().as_ptr(), place, "somebody still holds it");
        assert!(kept.storage::<f32>().iter().all(|x| *x == 1.0) && other.storage::<f32>().iter().all(|x| *x == 2.0));
        drop(kept);
        let again = made(count - 5, 4.0);
        assert_eq!(again.storage::<f32>(), vec![4.0; count - 5]);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        for _ in 0..3 {
            give_back(vec![0.0; KEPT / 2 + 1]);
        }
        assert!(free().iter().map(Vec::len).sum::<usize>() <= KEPT);
        give_back(vec![0.0; KEPT + 1]);
        assert!(free().iter().all(|numbers| numbers.len() <= KEPT));
    }
}
