//! One slice that several threads write, each its own part.

use std::marker::PhantomData;

/// A slice whose parts are handed out without a borrow of the whole.
pub(crate) struct Shared<'a> {
    first: *mut f32,
    length: usize,
    whole: PhantomData<&'a mut [f32]>,
}

#[allow(unsafe_code, reason = "the parts that threads ask for do not overlap")]
// SAFETY: a pointer into a slice that outlives this; `part` is what must be used with care.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(whole: &'a mut [f32]) -> Self {
        Self { first: whole.as_mut_ptr(), length: whole.len(), whole: PhantomData }
    }

    /// Where these elements begin.
    pub(crate) fn pointer(&self, first: usize, count: usize) -> *mut f32 {
        assert!(first <= self.length && count <= self.length - first, "{count} from {first} of {}", self.length);
        self.first.wrapping_add(first)
    }

    /// These elements.
    ///
    /// # Safety
    ///
    /// As long as the result lives, nobody else asks for any of them.
    #[allow(unsafe_code, reason = "the parts that threads ask for do not overlap")]
    #[allow(clippy::mut_from_ref, reason = "that is the purpose")]
    pub(crate) unsafe fn part(&self, range: std::ops::Range<usize>) -> &mut [f32] {
        // SAFETY: within the slice, as `pointer` asserts; that nobody else has it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(range.start, range.len()), range.len()) }
    }
}
