//! A slice that several threads write, each a different part.

use std::marker::PhantomData;

/// Slice that gives out mutable parts without borrowing the whole.
pub(crate) struct Shared<'a> {
    first: *mut f32,
    length: usize,
    whole: PhantomData<&'a mut [f32]>,
}

#[allow(unsafe_code, reason = "the parts that threads ask for do not overlap")]
// SAFETY: this is a pointer into a slice that outlives it; callers of `part` guarantee exclusive access.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(whole: &'a mut [f32]) -> Self {
        Self { first: whole.as_mut_ptr(), length: whole.len(), whole: PhantomData }
    }

    /// Returns a pointer to `count` elements from `first` on, after a bounds check.
    pub(crate) fn pointer(&self, first: usize, count: usize) -> *mut f32 {
        assert!(first <= self.length && count <= self.length - first, "{count} from {first} of {}", self.length);
        self.first.wrapping_add(first)
    }

    /// Returns these elements.
    ///
    /// # Safety
    ///
    /// While the result lives, no other call may ask for any of these elements.
    #[allow(unsafe_code, reason = "the parts that threads ask for do not overlap")]
    #[allow(clippy::mut_from_ref, reason = "that is the purpose")]
    pub(crate) unsafe fn part(&self, range: std::ops::Range<usize>) -> &mut [f32] {
        // SAFETY: the elements lie within the slice, as `pointer` asserts; the caller promises exclusive
        // access.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(range.start, range.len()), range.len()) }
    }
}
