//! Room for a number of values, some of which may exist.

use super::allocator::Allocator;
use crate::gfp::Gfp;
use crate::mm::slab::SlabAllocError;
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};

/// Room for `capacity` values of `T`. Dropping it frees the room; its owner drops the values.
///
/// # Invariants
///
/// - `BUF-1`: if there are bytes to have, `at` is a block of `allocator` with the layout of an array of `room` values, and it
///   belongs to this buffer alone; if not, `room` is zero and `at` dangles, aligned.
pub(super) struct RawBuf<T, A: Allocator> {
    at: NonNull<T>,
    room: usize,
    allocator: A,
    /// It owns what its owner puts into it.
    owns: PhantomData<T>,
}

// SAFETY: BUF-1: the room belongs to this buffer alone, as if it held the values itself.
unsafe impl<T: Send, A: Allocator + Send> Send for RawBuf<T, A> {}
// SAFETY: BUF-1: the room belongs to this buffer alone, as if it held the values itself.
unsafe impl<T: Sync, A: Allocator + Sync> Sync for RawBuf<T, A> {}

impl<T, A: Allocator> RawBuf<T, A> {
    /// No room.
    pub(super) const fn new(allocator: A) -> Self {
        // INVARIANT: BUF-1: nothing.
        Self { at: NonNull::dangling(), room: 0, allocator, owns: PhantomData }
    }

    /// Takes over existing room.
    ///
    /// # Safety
    ///
    /// `BUF-1`.
    pub(super) const unsafe fn from_parts(at: NonNull<T>, room: usize, allocator: A) -> Self {
        // INVARIANT: BUF-1 is the caller's promise.
        Self { at, room: if size_of::<T>() == 0 { 0 } else { room }, allocator, owns: PhantomData }
    }

    /// Gives the room up, for [`RawBuf::from_parts`].
    pub(super) fn into_parts(self) -> (NonNull<T>, usize, A) {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped afterwards.
        let allocator = unsafe { ptr::read(&raw const this.allocator) };
        (this.at, this.room, allocator)
    }

    /// Address of the first value.
    pub(super) const fn at(&self) -> NonNull<T> {
        self.at
    }

    /// Capacity, in values: any number for types without bytes.
    pub(super) const fn capacity(&self) -> usize {
        if size_of::<T>() == 0 { usize::MAX } else { self.room }
    }

    fn layout(room: usize) -> Result<Layout, SlabAllocError> {
        Layout::array::<T>(room).map_err(|_| SlabAllocError::Overflow)
    }

    /// Makes room for exactly this number of values. The existing ones are kept, as far as they fit. With [`Gfp::ZERO`] new
    /// bytes are zero.
    ///
    /// Less room is refused only for lack of memory to move to.
    pub(super) fn resize(&mut self, room: usize, gfp: Gfp) -> Result<(), SlabAllocError> {
        if size_of::<T>() == 0 || room == self.room {
            return Ok(());
        }
        let (old, new) = (Self::layout(self.room)?, Self::layout(room)?);
        let at = if self.room == 0 {
            self.allocator.allocate(new, gfp)?.cast()
        } else if room == 0 {
            // SAFETY: BUF-1, and nothing in it is used any more.
            unsafe { self.allocator.free(self.at.cast(), old) };
            NonNull::dangling()
        } else {
            // SAFETY: BUF-1.
            unsafe { self.allocator.resize(self.at.cast(), old, new, gfp) }?.cast()
        };
        // INVARIANT: BUF-1.
        (self.at, self.room) = (at, room);
        Ok(())
    }
}

impl<T, A: Allocator> Drop for RawBuf<T, A> {
    fn drop(&mut self) {
        if self.room != 0
            && let Ok(layout) = Self::layout(self.room)
        {
            // SAFETY: BUF-1, and nobody uses the room any more.
            unsafe { self.allocator.free(self.at.cast(), layout) };
        }
    }
}
