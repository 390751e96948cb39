//! A growable array (Linux: `rust/kernel/alloc/kvec.rs`).
//!
//! Functions that need memory take a [`Gfp`] and return a `Result`; the error returns a value for which there was no room.
//! Nothing here panics: an index out of bounds is an error or `None`, except in the methods of `[T]` itself.

use super::allocator::{Allocator, Refused, Stateless};
use super::into_iter::IntoIter;
use super::kbox::KBox;
use super::raw::RawBuf;
use crate::gfp::Gfp;
use crate::mm::slab::SlabAllocError;
use core::fmt;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::{self, NonNull};

/// A growable array of values in a block of an allocator. An empty one has no block.
///
/// # Invariants
///
/// - `VEC-1`: the first `len` places of `buf` hold values, which belong to this array alone.
pub struct KVec<T, A: Allocator> {
    buf: RawBuf<T, A>,
    len: usize,
}

/// Reason why a value was not inserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InsertError {
    /// The index is out of bounds: the array is shorter.
    OutOfBounds,
    /// There was no memory to grow.
    Memory(SlabAllocError),
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds => f.write_str("index out of bounds"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InsertError {}

impl<T, A: Allocator + Stateless> KVec<T, A> {
    /// An empty array.
    #[must_use]
    pub const fn new() -> Self {
        Self::new_in(A::THE)
    }

    /// An empty array with room for `capacity` values.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    pub fn with_capacity(capacity: usize, gfp: Gfp) -> Result<Self, SlabAllocError> {
        Self::with_capacity_in(capacity, gfp, A::THE)
    }

    /// `count` copies of a value.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    pub fn from_elem(value: T, count: usize, gfp: Gfp) -> Result<Self, SlabAllocError>
    where
        T: Clone,
    {
        let mut row = Self::new();
        row.extend_with(count, value, gfp)?;
        Ok(row)
    }
}

impl<T, A: Allocator + Stateless> Default for KVec<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, A: Allocator> KVec<T, A> {
    /// Capacity of the first block, in values: eight bytes of small ones, four of others, one of large ones.
    const FIRST: usize = match size_of::<T>() {
        0..=1 => 8,
        2..=1024 => 4,
        _ => 1,
    };

    /// An empty array that will be in memory of `allocator`.
    #[must_use]
    pub const fn new_in(allocator: A) -> Self {
        // INVARIANT: VEC-1: none.
        Self { buf: RawBuf::new(allocator), len: 0 }
    }

    /// An empty array with room for `capacity` values in memory of `allocator`.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    pub fn with_capacity_in(capacity: usize, gfp: Gfp, allocator: A) -> Result<Self, SlabAllocError> {
        let mut row = Self::new_in(allocator);
        row.reserve_exact(capacity, gfp)?;
        Ok(row)
    }

    /// Number of values.
    #[must_use]
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Capacity, in values.
    #[must_use]
    #[inline(always)]
    pub const fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Makes room for `additional` more values, and for as many again as the array has if memory is plentiful.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the array is unchanged then.
    #[inline]
    pub fn reserve(&mut self, additional: usize, gfp: Gfp) -> Result<(), SlabAllocError> {
        // VEC-1: there are no more values than there is room for.
        if additional <= self.capacity() - self.len { Ok(()) } else { self.grow(additional, gfp) }
    }

    /// Makes room for `additional` more values and no others.
    ///
    /// # Errors
    ///
    /// As for [`KVec::reserve`].
    pub fn reserve_exact(&mut self, additional: usize, gfp: Gfp) -> Result<(), SlabAllocError> {
        let needed = self.len.checked_add(additional).ok_or(SlabAllocError::Overflow)?;
        if needed <= self.capacity() { Ok(()) } else { self.buf.resize(needed, gfp) }
    }

    #[cold]
    fn grow(&mut self, additional: usize, gfp: Gfp) -> Result<(), SlabAllocError> {
        let needed = self.len.checked_add(additional).ok_or(SlabAllocError::Overflow)?;
        let wanted = self.capacity().saturating_mul(2).max(needed).max(Self::FIRST);
        // The rest of the doubled room is optional: no wait for it, no warning without it.
        let modest = (gfp - Gfp::DIRECT_RECLAIM - Gfp::RETRY_MAYFAIL - Gfp::NOFAIL) | Gfp::NOWARN;
        if wanted > needed && self.buf.resize(wanted, modest).is_ok() {
            return Ok(());
        }
        self.buf.resize(needed, gfp)
    }

    /// Frees unused room. It costs a move to a smaller block, or nothing.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`] of allocators that cannot shrink a block without another; the array is unchanged then.
    pub fn shrink_to_fit(&mut self, gfp: Gfp) -> Result<(), SlabAllocError> {
        if self.len < self.capacity() { self.buf.resize(self.len, gfp) } else { Ok(()) }
    }

    /// Appends a value.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`], with the value.
    #[inline]
    pub fn push(&mut self, value: T, gfp: Gfp) -> Result<(), Refused<T>> {
        if let Err(error) = self.reserve(1, gfp) {
            return Err(Refused { value, error });
        }
        self.put(value);
        Ok(())
    }

    /// Appends a value if there is room.
    ///
    /// # Errors
    ///
    /// The value.
    #[inline]
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.len == self.capacity() {
            return Err(value);
        }
        self.put(value);
        Ok(())
    }

    /// Appends a value, where there is room.
    #[inline]
    fn put(&mut self, value: T) {
        debug_assert!(self.len < self.capacity(), "there is room");
        // SAFETY: BUF-1: there is room behind the values.
        let place = unsafe { self.buf.at().add(self.len) };
        // SAFETY: BUF-1: there is room behind the values; nothing there is dropped (VEC-1).
        unsafe { place.write(value) };
        // INVARIANT: VEC-1.
        self.len += 1;
    }

    /// Takes the last value.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: VEC-1: a value was there.
        let place = unsafe { self.buf.at().add(self.len) };
        // SAFETY: it is no longer counted, so it has no other owner.
        Some(unsafe { place.read() })
    }

    /// Drops the values from `len` on.
    pub fn truncate(&mut self, len: usize) {
        let Some(gone) = self.len.checked_sub(len) else { return };
        // INVARIANT: VEC-1 holds while they are dropped, even if a drop panics.
        self.len = len;
        // SAFETY: the first value to be dropped, or the end.
        let first = unsafe { self.buf.at().add(len) };
        // SAFETY: VEC-1 as it was: that many values, which are not counted any more.
        unsafe { NonNull::slice_from_raw_parts(first, gone).drop_in_place() };
    }

    /// Drops all values. The room stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Sets the number of values.
    ///
    /// # Safety
    ///
    /// `len` is at most the capacity, and the first `len` places hold values.
    pub unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity(), "no more than there is room for");
        // INVARIANT: VEC-1 is the caller's promise.
        self.len = len;
    }

    /// The room behind the values, to fill before [`KVec::set_len`].
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<T>] {
        // SAFETY: inside the room, or its end.
        let spare = unsafe { self.buf.at().add(self.len) };
        // SAFETY: BUF-1: that many places, which hold no values, or whose values are forgotten.
        unsafe { core::slice::from_raw_parts_mut(spare.cast().as_ptr(), self.capacity() - self.len) }
    }

    /// The values.
    #[must_use]
    #[inline(always)]
    pub const fn as_slice(&self) -> &[T] {
        // SAFETY: VEC-1.
        unsafe { core::slice::from_raw_parts(self.buf.at().as_ptr(), self.len) }
    }

    /// The values.
    #[inline(always)]
    pub const fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: VEC-1.
        unsafe { core::slice::from_raw_parts_mut(self.buf.at().as_ptr(), self.len) }
    }

    /// Gives the array up. Returns its address, its length, and its capacity. For [`KVec::from_raw_parts_in`].
    #[must_use = "the values would never be dropped"]
    pub fn into_raw_parts_with_allocator(self) -> (*mut T, usize, usize, A) {
        let len = self.len;
        let (at, room, allocator) = self.into_buf().into_parts();
        (at.as_ptr(), len, room, allocator)
    }

    /// The array of the parts from [`KVec::into_raw_parts_with_allocator`].
    ///
    /// # Safety
    ///
    /// The parts came from there, once, with this allocator; the first `len` places hold values.
    #[must_use]
    pub const unsafe fn from_raw_parts_in(at: *mut T, len: usize, capacity: usize, allocator: A) -> Self {
        // SAFETY: an array's pointer is not null.
        let at = unsafe { NonNull::new_unchecked(at) };
        // SAFETY: by this function's `# Safety`, the parts came from a vector with this allocator, once.
        let buf = unsafe { RawBuf::from_parts(at, capacity, allocator) };
        // INVARIANT: VEC-1 is the caller's promise.
        Self { buf, len }
    }

    /// The room, without its values, which the caller must drop.
    pub(super) fn into_buf(self) -> RawBuf<T, A> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped afterwards.
        unsafe { ptr::read(&raw const this.buf) }
    }

    /// The values as a box, which takes no more memory than they need.
    ///
    /// # Errors
    ///
    /// The array, as for [`KVec::shrink_to_fit`].
    pub fn into_boxed_slice(mut self, gfp: Gfp) -> Result<KBox<[T], A>, Refused<Self>> {
        if let Err(error) = self.shrink_to_fit(gfp) {
            return Err(Refused { value: self, error });
        }
        let (at, len, _, allocator) = self.into_raw_parts_with_allocator();
        // SAFETY: BOX-1: the block's capacity is full of values, or there is no value and no block.
        Ok(unsafe { KBox::from_raw_in(ptr::slice_from_raw_parts_mut(at, len), allocator) })
    }

    /// The values of a box as an array.
    #[must_use]
    pub fn from_boxed_slice(values: KBox<[T], A>) -> Self {
        let (at, allocator) = KBox::into_raw_with_allocator(values);
        // SAFETY: BOX-1: a block for that many values, all of which are there.
        unsafe { Self::from_raw_parts_in(at.cast(), at.len(), at.len(), allocator) }
    }
}

impl<T, A: Allocator> Drop for KVec<T, A> {
    fn drop(&mut self) {
        // The room is freed when its field is dropped, also if a value panics.
        self.clear();
    }
}

impl<T, A: Allocator> IntoIterator for KVec<T, A> {
    type Item = T;
    type IntoIter = IntoIter<T, A>;

    fn into_iter(self) -> IntoIter<T, A> {
        let len = self.len;
        // SAFETY: VEC-1: that many values, which the array has given up.
        unsafe { IntoIter::new(self.into_buf(), len) }
    }
}
