//! The array of free objects that each CPU has for each cache: the hot path of allocation and free, without a shared
//! lock and without a shared write (Linux: per-CPU sheaves).
//!
//! An array is a stack of addresses. Its [`ArrayHeader`] lies in the CPU's own data, at a distance from their start that
//! is the same on every CPU: the [`ArrayOffset`] of the cache. A CPU's arrays are its own: it alone changes them. An interrupt
//! handler on the same CPU uses them too, so an operation either masks interrupts, as those in this file do, or can be
//! interrupted anywhere before its last store and started again ([`SlabHal`] says how).
#![forbid(unsafe_code)]

use super::super::SlabHal;
use super::super::object::Object;
use super::super::words::{ArrayHeader, ArrayOffset, Magazine, get, pack, set, unpack};
use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// An array of one CPU. Caller must be that CPU, with interrupts masked, unless a method says otherwise.
pub(in crate::mm::slab) struct Array<'l>(&'l ArrayHeader);

impl<'l> Array<'l> {
    #[inline(always)]
    pub(in crate::mm::slab) fn new<H: SlabHal>(local: &'l H::Local, offset: ArrayOffset) -> Self {
        Self(H::header(local, offset))
    }

    /// Takes the object that was freed last.
    #[inline(always)]
    pub(in crate::mm::slab) fn pop(&self) -> Option<VirtAddr> {
        let top = self.0.top.load(Ordering::Relaxed);
        if top == 0 {
            return None;
        }
        let entry = VirtAddr::new(top.wrapping_sub(8));
        let object = Object::of_array(entry).load(0);
        if object == 0 {
            return None;
        }
        self.0.served.store(self.0.served.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // INVARIANT: ARR-1, ARR-2: it was not the word below the entries.
        self.0.top.store(entry.get(), Ordering::Relaxed);
        Some(VirtAddr::new(object))
    }

    /// Puts an object on top. Returns whether there was room.
    #[inline(always)]
    pub(in crate::mm::slab) fn push(&self, object: VirtAddr) -> bool {
        let top = self.0.top.load(Ordering::Relaxed);
        if top >= self.0.limit.load(Ordering::Relaxed) {
            return false;
        }
        Object::of_array(VirtAddr::new(top)).store(0, object.get());
        // INVARIANT: ARR-1, ARR-2: there was room.
        self.0.top.store(top.wrapping_add(8), Ordering::Relaxed);
        true
    }

    /// The mark of an object of the cache. Any CPU.
    #[inline(always)]
    pub(in crate::mm::slab) fn mark_of(&self, slot: VirtAddr) -> u64 {
        self.0.mark.load(Ordering::Relaxed) ^ slot.get()
    }

    /// Sets the secret that turns an object's address into its mark. The creator of the cache calls it.
    pub(in crate::mm::slab) fn set_mark(&self, secret: u64) {
        set(&self.0.mark, secret);
    }

    /// Objects in it, without the spare. Any CPU; the number may change at any moment.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(in crate::mm::slab) fn count(&self) -> u32 {
        (get(&self.0.top).saturating_sub(get(&self.0.base)) / 8) as u32
    }

    /// Objects that it may hold; 0 if it is off. Any CPU.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(in crate::mm::slab) fn capacity(&self) -> u32 {
        (get(&self.0.limit).saturating_sub(get(&self.0.base)) / 8) as u32
    }

    /// Whether it has no room at all: its CPU had no memory for it, or every call is to take the slow path. Any CPU.
    #[inline]
    pub(in crate::mm::slab) fn is_off(&self) -> bool {
        self.capacity() == 0
    }

    /// Objects in the spare. Any CPU.
    #[inline]
    pub(in crate::mm::slab) fn spare_count(&self) -> u32 {
        unpack(get(&self.0.spare)).1
    }

    /// Objects in both. Any CPU.
    pub(in crate::mm::slab) fn held(&self) -> u32 {
        self.count().wrapping_add(self.spare_count())
    }

    /// Whether it has memory for entries.
    pub(in crate::mm::slab) fn has_memory(&self) -> bool {
        get(&self.0.base) != 0
    }

    /// The spare, if there is one.
    #[inline]
    pub(in crate::mm::slab) fn spare(&self) -> Option<Magazine> {
        Some(unpack(get(&self.0.spare)).0).filter(|spare| *spare != Magazine::NONE)
    }

    /// The magazine in use.
    #[inline]
    pub(in crate::mm::slab) fn magazine(&self) -> Magazine {
        Magazine(get(&self.0.base))
    }

    /// Allocations that it has served, and calls that took the slow path. Any CPU.
    pub(in crate::mm::slab) fn events(&self) -> (u64, u64, u64) {
        (get(&self.0.served), get(&self.0.slow_allocs), get(&self.0.slow_frees))
    }

    #[inline]
    pub(in crate::mm::slab) fn count_slow_alloc(&self) {
        set(&self.0.slow_allocs, get(&self.0.slow_allocs).wrapping_add(1));
    }

    #[inline]
    pub(in crate::mm::slab) fn count_slow_free(&self) {
        set(&self.0.slow_frees, get(&self.0.slow_frees).wrapping_add(1));
    }

    /// The entries of the magazine in use, the coldest (oldest) first.
    pub(in crate::mm::slab) fn entries(&self) -> &'static [AtomicU64] {
        self.magazine().entries(self.capacity())
    }

    /// The last `most` entries, or all there are.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(in crate::mm::slab) fn hot(&self, most: usize) -> &'static [AtomicU64] {
        let top = get(&self.0.top);
        // ARR-2: not below the base.
        let count = most.min((top.wrapping_sub(get(&self.0.base)) / 8) as usize);
        Magazine(top.wrapping_sub(8 * count as u64)).entries(count as u32)
    }

    /// The empty entries.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(in crate::mm::slab) fn room(&self) -> &'static [AtomicU64] {
        let top = get(&self.0.top);
        // ARR-2: not above the limit.
        Magazine(top).entries((get(&self.0.limit).wrapping_sub(top) / 8) as u32)
    }

    /// Sets the count, after entries have been changed: the caller keeps `ARR-1`.
    pub(in crate::mm::slab) fn set_count(&self, count: u32) {
        set(&self.0.top, get(&self.0.base).wrapping_add(8 * u64::from(count)));
    }

    /// Drops the objects on top; the caller owns them from here on.
    #[inline]
    pub(in crate::mm::slab) fn drop_top(&self, objects: usize) {
        set(&self.0.served, get(&self.0.served).wrapping_add(objects as u64));
        set(&self.0.top, get(&self.0.top).wrapping_sub(8 * objects as u64));
    }

    /// Counts the objects that have been written to the first entries of [`Array::room`].
    #[inline]
    pub(in crate::mm::slab) fn grow(&self, objects: usize) {
        set(&self.0.top, get(&self.0.top).wrapping_add(8 * objects as u64));
    }

    /// Uses `magazine` with `count` objects from here on, with room for `capacity`; returns the one used before.
    #[inline]
    pub(in crate::mm::slab) fn load(&self, magazine: Magazine, count: u32, capacity: u32) -> Magazine {
        let before = self.magazine();
        // INVARIANT: ARR-1, ARR-2.
        set(&self.0.base, magazine.0);
        set(&self.0.limit, magazine.0.wrapping_add(8 * u64::from(capacity)));
        set(&self.0.top, magazine.0.wrapping_add(8 * u64::from(count)));
        before
    }

    /// Keeps `magazine` as the spare; returns the one before.
    #[inline]
    pub(in crate::mm::slab) fn set_spare(&self, magazine: Magazine, count: u32) -> Magazine {
        let before = unpack(get(&self.0.spare)).0;
        // INVARIANT: ARR-1, ARR-2.
        set(&self.0.spare, pack(magazine, count));
        before
    }

    /// Swaps the two magazines. The array is on, and has a spare.
    #[inline]
    pub(in crate::mm::slab) fn swap(&self) {
        let (base, (Magazine(spare), count)) = (get(&self.0.base), unpack(get(&self.0.spare)));
        let held = self.count();
        let room = get(&self.0.limit).wrapping_sub(base);
        // INVARIANT: ARR-1, ARR-2.
        set(&self.0.base, spare);
        set(&self.0.limit, spare.wrapping_add(room));
        set(&self.0.top, spare.wrapping_add(8 * u64::from(count)));
        set(&self.0.spare, pack(Magazine(base), held));
    }

    /// Whether the array is empty.
    #[inline]
    pub(in crate::mm::slab) fn is_empty(&self) -> bool {
        get(&self.0.top) == get(&self.0.base)
    }

    /// Whether the array is on and full.
    #[inline]
    pub(in crate::mm::slab) fn is_full(&self) -> bool {
        let limit = get(&self.0.limit);
        get(&self.0.top) == limit && limit != get(&self.0.base)
    }

    /// Whether it has a spare, and the spare is empty.
    #[inline]
    pub(in crate::mm::slab) fn has_empty_spare(&self) -> bool {
        matches!(unpack(get(&self.0.spare)), (spare, 0) if spare != Magazine::NONE)
    }

    /// Sets its capacity, while it is empty; 0 switches it off.
    pub(in crate::mm::slab) fn set_capacity(&self, objects: u32) {
        self.load(self.magazine(), 0, objects);
    }

    /// Takes its empty magazines away.
    pub(in crate::mm::slab) fn release_memory(&self) -> [Magazine; 2] {
        set(&self.0.limit, 0);
        set(&self.0.top, 0);
        let used = self.magazine();
        set(&self.0.base, 0);
        [used, self.set_spare(Magazine::NONE, 0)]
    }
}
