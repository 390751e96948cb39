//! The memory of objects: the only file of the slab allocator that accesses it.

use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// Memory of a slab, from the start of one object's slot on.
///
/// # Invariants
///
/// - `OBJ-1`: the address is that of a slot in a slab, a multiple of 8. The whole slot is mapped, and as long as the object
///   is free it is the allocator's alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(in crate::mm::slab) struct Object(VirtAddr);

impl Object {
    /// The slot at `addr`.
    ///
    /// # Safety
    ///
    /// `OBJ-1`.
    #[inline(always)]
    pub(in crate::mm::slab) const unsafe fn new(addr: VirtAddr) -> Self {
        // INVARIANT: OBJ-1 is the caller's promise.
        Self(addr)
    }

    /// The slot whose address an array holds, or held, or that the page's descriptor confirms.
    #[inline(always)]
    pub(in crate::mm::slab) const fn of_array(addr: VirtAddr) -> Self {
        // INVARIANT: OBJ-1 by ARR-1 and WORD-1.
        Self(addr)
    }

    /// The slot `size` bytes further on, in the same slab.
    #[inline(always)]
    pub(in crate::mm::slab) const fn next(self, size: u32) -> Self {
        // INVARIANT: OBJ-1: the slab has one there, or it is not used.
        Self(VirtAddr::new(self.0.get().wrapping_add(size as u64)))
    }

    /// Start of the slot.
    #[inline(always)]
    pub(in crate::mm::slab) const fn addr(self) -> VirtAddr {
        self.0
    }

    /// The word `offset` bytes from the start, a multiple of 8 inside the slot.
    #[inline(always)]
    fn word(self, offset: u32) -> *mut u64 {
        debug_assert!(offset.is_multiple_of(8), "words of objects are aligned");
        self.0.as_ptr::<u8>().wrapping_add(offset as usize).cast()
    }

    /// Reads a word. An object that is freed twice may have a new owner, so the value may be anything.
    #[inline(always)]
    pub(in crate::mm::slab) fn load(self, offset: u32) -> u64 {
        // SAFETY: OBJ-1: mapped and aligned. Atomic, as a wrong user may be writing to it.
        unsafe { AtomicU64::from_ptr(self.word(offset)) }.load(Ordering::Relaxed)
    }

    /// Writes a word of a free object.
    #[inline(always)]
    pub(in crate::mm::slab) fn store(self, offset: u32, value: u64) {
        // SAFETY: OBJ-1: mapped, aligned, and the allocator's.
        unsafe { AtomicU64::from_ptr(self.word(offset)) }.store(value, Ordering::Relaxed);
    }

    /// Writes a word of an object that is being freed, if it holds `before`. Returns whether it did.
    #[inline]
    pub(in crate::mm::slab) fn replace(self, offset: u32, before: u64, value: u64) -> bool {
        // SAFETY: OBJ-1: mapped and aligned. Atomic, as another context may be freeing it too.
        let word = unsafe { AtomicU64::from_ptr(self.word(offset)) };
        word.compare_exchange(before, value, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Fills `len` bytes from `offset` on.
    #[inline(always)]
    pub(in crate::mm::slab) fn fill(self, offset: u32, byte: u8, len: usize) {
        let start = self.0.as_ptr::<u8>().wrapping_add(offset as usize);
        // SAFETY: OBJ-1, and the caller stays in the slot.
        unsafe { start.write_bytes(byte, len) };
    }

    /// Offset, from `offset`, of the first of `len` bytes that is not `byte`.
    pub(in crate::mm::slab) fn find_other(self, offset: u32, byte: u8, len: u32) -> Option<u32> {
        (0..len).find(|at| self.byte(offset + at) != byte)
    }

    /// Offset, from `offset`, of the last of `len` bytes that is not `byte`.
    pub(in crate::mm::slab) fn find_last_other(self, offset: u32, byte: u8, len: u32) -> Option<u32> {
        (0..len).rfind(|at| self.byte(offset + at) != byte)
    }

    /// Reads a byte.
    pub(in crate::mm::slab) fn byte(self, offset: u32) -> u8 {
        let at = self.0.as_ptr::<u8>().wrapping_add(offset as usize);
        // SAFETY: OBJ-1, and the caller stays in the slot. Volatile, as a wrong user may be writing to it.
        unsafe { at.read_volatile() }
    }

    /// Fills `len` bytes from the byte `from` on of an allocation that is at least as large.
    pub(in crate::mm::slab) fn fill_from(self, from: usize, byte: u8, len: usize) {
        let start = self.0.as_ptr::<u8>().wrapping_add(from);
        // SAFETY: OBJ-1, and the caller stays in the allocation.
        unsafe { start.write_bytes(byte, len) };
    }

    /// Copies the first `len` bytes of another allocation, at least as large as this one, here.
    pub(in crate::mm::slab) fn copy_from(self, other: Self, len: usize) {
        // SAFETY: OBJ-1 for both, and the caller stays in the allocations, which are distinct.
        unsafe { self.0.as_ptr::<u8>().copy_from_nonoverlapping(other.0.as_ptr::<u8>(), len) };
    }

    /// The slot as an array of `words` words.
    pub(in crate::mm::slab) fn words<'m>(self, words: usize) -> &'m [AtomicU64] {
        // SAFETY: OBJ-1: mapped and aligned; the caller stays in the slot and releases it only when the words are no longer
        // used.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr::<AtomicU64>(), words) }
    }
}

/// Copies words that nobody else uses meanwhile: as many as both slices have.
#[inline(always)]
pub(in crate::mm::slab) fn copy_words(to: &[AtomicU64], from: &[AtomicU64]) {
    let words = to.len().min(from.len());
    // SAFETY: both slices have the same number of words and, being words of different memory or moved down, may be copied one
    // by one from the start; `copy` allows for an overlap. Nobody else uses them: arrays are their CPU's, depots their lock's.
    unsafe { core::ptr::copy(from.as_ptr().cast::<u64>(), to.as_ptr().cast::<u64>().cast_mut(), words) };
}

/// Reads words that nobody else uses meanwhile.
#[inline(always)]
pub(in crate::mm::slab) const fn load_words<const N: usize>(from: &[AtomicU64; N]) -> [u64; N] {
    // SAFETY: atomics have the size and alignment of their values, and their CPU alone writes to the entries of an array.
    unsafe { core::ptr::from_ref(from).cast::<[u64; N]>().read() }
}

/// The low half.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub(in crate::mm::slab) const fn low(word: u64) -> u32 {
    word as u32
}
