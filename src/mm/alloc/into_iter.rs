//! Iterator that moves the values out of an array one by one.

use super::allocator::Allocator;
use super::raw::RawBuf;
use core::fmt;
use core::iter::FusedIterator;
use core::ptr::NonNull;

/// The values of a [`KVec`](super::KVec), in order. Values that are not taken are dropped with it.
///
/// # Invariants
///
/// - `ITER-1`: the places from `next` up to `end` hold values, which belong to this iterator alone.
pub struct IntoIter<T, A: Allocator> {
    buf: RawBuf<T, A>,
    next: usize,
    end: usize,
}

impl<T, A: Allocator> IntoIter<T, A> {
    /// The first `len` values of a buffer.
    ///
    /// # Safety
    ///
    /// They exist, without another owner.
    pub(super) const unsafe fn new(buf: RawBuf<T, A>, len: usize) -> Self {
        // INVARIANT: ITER-1 is the caller's promise.
        Self { buf, next: 0, end: len }
    }

    /// Takes the value at a place that is no longer counted.
    ///
    /// # Safety
    ///
    /// There is one, and it is taken once.
    unsafe fn value_at(&self, index: usize) -> T {
        // SAFETY: inside the buffer.
        let place = unsafe { self.buf.at().add(index) };
        // SAFETY: by this function's `# Safety`, there is a value at `index`, and it is taken once.
        unsafe { place.read() }
    }

    /// The values not taken yet.
    #[must_use]
    pub const fn as_slice(&self) -> &[T] {
        // SAFETY: inside the buffer, or its end.
        let first = unsafe { self.buf.at().add(self.next) };
        // SAFETY: ITER-1.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), self.end - self.next) }
    }
}

impl<T, A: Allocator> Iterator for IntoIter<T, A> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        // INVARIANT: ITER-1.
        self.next += 1;
        // SAFETY: ITER-1 as it was.
        Some(unsafe { self.value_at(self.next - 1) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl<T, A: Allocator> DoubleEndedIterator for IntoIter<T, A> {
    fn next_back(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        // INVARIANT: ITER-1.
        self.end -= 1;
        // SAFETY: ITER-1 as it was.
        Some(unsafe { self.value_at(self.end) })
    }
}

impl<T, A: Allocator> ExactSizeIterator for IntoIter<T, A> {}
impl<T, A: Allocator> FusedIterator for IntoIter<T, A> {}

impl<T, A: Allocator> Drop for IntoIter<T, A> {
    fn drop(&mut self) {
        // SAFETY: inside the buffer, or its end.
        let first = unsafe { self.buf.at().add(self.next) };
        let left = NonNull::slice_from_raw_parts(first, self.end - self.next);
        // SAFETY: ITER-1. The room is freed when its field is dropped, also if a value panics.
        unsafe { left.drop_in_place() };
    }
}

impl<T: fmt::Debug, A: Allocator> fmt::Debug for IntoIter<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}
