//! One buffer, several workers: a view through which each worker writes its own part.
//!
//! [`SharedMut`] is made from an exclusive borrow, so nobody else can touch the buffer while it lives. What it cannot
//! check is that workers keep to disjoint parts; that is the contract of its `unsafe` methods.

use std::marker::PhantomData;
use std::ops::Range;

/// A copyable view of an exclusively borrowed buffer, whose parts are handed out to different workers.
#[derive(Debug)]
pub struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> Clone for SharedMut<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<'_, T> {}

// SAFETY: the view stands for `&mut [T]`; access to parts is the caller's promise of disjointness.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above; no shared reference to the elements exists beside the parts handed out.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// A view of the whole buffer.
    pub fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), borrow: PhantomData }
    }

    /// A view of `len` elements at `start`.
    ///
    /// # Safety
    /// For `'a`, the memory is valid and initialised, and all access to it goes through views like this one.
    pub(crate) unsafe fn from_raw(start: *mut T, len: usize) -> Self {
        Self { start, len, borrow: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the elements start, to read. Whoever reads keeps to elements that no worker writes meanwhile.
    pub(crate) fn as_ptr(&self) -> *const T {
        self.start
    }

    /// Where the elements start, to write. Whoever writes keeps to elements that no other worker uses meanwhile.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.start
    }

    /// The elements of `range`, to write and read; panics when it lies outside the buffer.
    ///
    /// # Safety
    /// While the returned slice lives, no other part that overlaps it is in use, by this worker or another. Workers
    /// that split one step write disjoint parts; a later step may read them after a barrier.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    #[inline(always)]
    pub unsafe fn part_mut(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: in bounds; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }

    /// The elements of `range`, to read; panics when it lies outside the buffer.
    ///
    /// # Safety
    /// While the returned slice lives, no worker writes to an overlapping part.
    #[inline(always)]
    pub unsafe fn part(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: in bounds; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.end - range.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_write_disjoint_parts() {
        let mut buffer = vec![0usize; 100];
        let view = SharedMut::new(&mut buffer);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || {
                    // SAFETY: each worker has its own quarter.
                    let part = unsafe { view.part_mut(worker * 25..(worker + 1) * 25) };
                    part.fill(worker);
                });
            }
        });
        assert!(buffer.iter().enumerate().all(|(i, &x)| x == i / 25));
    }

    #[test]
    #[should_panic(expected = "part 3..9 of 8")]
    fn parts_outside_the_buffer_are_refused() {
        let mut buffer = [0u8; 8];
        // SAFETY: the only part in use.
        let _ = unsafe { SharedMut::new(&mut buffer).part_mut(3..9) };
    }
}
