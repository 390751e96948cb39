//! The array of free objects that each CPU has for each cache: the hot path of allocation and free, without a shared
//! lock and without a shared write (Linux: per-CPU sheaves).
//!
//! An array is a stack of addresses. Its [`ArrayHeader`] lies in the CPU's own data, at a distance from their start that
//! is the same on every CPU: the [`Slot`] of the cache. A CPU's arrays are its own: it alone changes them. An interrupt
//! handler on the same CPU uses them too, so an operation either masks interrupts, as those in this file do, or can be
//! interrupted anywhere before its last store and started again ([`SlabHal`](super::SlabHal) says how).
#![forbid(unsafe_code)]

use super::SlabHal;
use super::object::Object;
use crate::addr::VirtAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// Where each CPU has the header of a cache's array: bytes from the start of the CPU's data.
///
/// # Invariants
///
/// - `SLOT-1`: each CPU's data have an [`ArrayHeader`] there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Slot(u32);

impl Slot {
    /// The slot this far from the start of each CPU's data; `SLOT-1` is the machine's to keep.
    #[must_use]
    #[inline(always)]
    pub const fn at(distance: u32) -> Self {
        // INVARIANT: SLOT-1 is the caller's promise.
        Self(distance)
    }

    /// Bytes from the start of a CPU's data.
    #[must_use]
    #[inline(always)]
    pub const fn distance(self) -> u32 {
        self.0
    }
}

/// The header of an array. By its CPU alone, interrupts masked or in a sequence that restarts; others may look.
///
/// The entries lie elsewhere, upwards from `base`; the word below them is zero for good, so that the entry on top of an
/// empty array is null: that it is empty needs no comparison. An array that is off has no entries: it is empty and full
/// at the same time. All-zero is an array that is off.
///
/// # Invariants
///
/// - `ARR-1`: the words from `base` up to `top` are the addresses of free objects of the cache, each in no other place.
/// - `ARR-2`: `base <= top <= limit`, in steps of eight, with as many entries up to `limit` as the CPU has memory for, or
///   all of them are zero. The word below `base` is zero.
#[derive(Debug)]
#[repr(C)]
pub struct ArrayHeader {
    /// Allocations that it has served.
    pub served: AtomicU64,
    /// The address of the first free entry.
    pub top: AtomicU64,
    /// The address behind the last entry.
    pub limit: AtomicU64,
    /// The address of the first entry.
    pub base: AtomicU64,
}

impl ArrayHeader {
    /// An array that is off.
    pub const OFF: Self =
        Self { served: AtomicU64::new(0), top: AtomicU64::new(0), limit: AtomicU64::new(0), base: AtomicU64::new(0) };
}

/// An array of one CPU. By that CPU, interrupts masked, unless a method says otherwise.
pub(super) struct Array<'l>(&'l ArrayHeader);

impl<'l> Array<'l> {
    #[inline(always)]
    pub(super) fn new<H: SlabHal>(local: &'l H::Local, slot: Slot) -> Self {
        Self(H::header(local, slot))
    }

    #[inline(always)]
    fn top(&self) -> VirtAddr {
        VirtAddr::new(self.0.top.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn set_top(&self, top: u64) {
        self.0.top.store(top, Ordering::Relaxed);
    }

    fn base(&self) -> u64 {
        self.0.base.load(Ordering::Relaxed)
    }

    fn limit(&self) -> u64 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Takes the object that was given last.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<VirtAddr> {
        let top = self.top();
        if top == VirtAddr::ZERO {
            return None;
        }
        let entry = VirtAddr::new(top.get().wrapping_sub(8));
        let object = Object::of_array(entry).load(0);
        if object == 0 {
            return None;
        }
        let served = &self.0.served;
        served.store(served.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // INVARIANT: ARR-1, ARR-2: it was not the word below the entries.
        self.set_top(entry.get());
        Some(VirtAddr::new(object))
    }

    /// Gives an object; whether there was room.
    #[inline(always)]
    pub(super) fn push(&self, object: VirtAddr) -> bool {
        let top = self.top();
        if top.get() >= self.limit() {
            return false;
        }
        Object::of_array(top).store(0, object.get());
        // INVARIANT: ARR-1, ARR-2: there was room.
        self.set_top(top.get() + 8);
        true
    }

    /// Objects in it. Any CPU; a moment later it may be another number.
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(super) fn count(&self) -> u32 {
        (self.top().get().saturating_sub(self.base()) / 8) as u32
    }

    /// Objects that it may hold; 0 if it is off. Any CPU.
    #[expect(clippy::cast_possible_truncation, reason = "arrays are small")]
    pub(super) fn capacity(&self) -> u32 {
        (self.limit().saturating_sub(self.base()) / 8) as u32
    }

    /// Whether it has memory for entries.
    pub(super) fn has_memory(&self) -> bool {
        self.base() != 0
    }

    /// Allocations that it has served. Any CPU.
    pub(super) fn served(&self) -> u64 {
        self.0.served.load(Ordering::Relaxed)
    }

    /// The entries that it may use, the coldest first.
    pub(super) fn entries(&self) -> &'static [AtomicU64] {
        match self.base() {
            0 => &[],
            base => Object::of_array(VirtAddr::new(base)).words(self.capacity() as usize),
        }
    }

    /// Sets the count, after entries have been changed: `ARR-1` is the caller's.
    pub(super) fn set_count(&self, count: u32) {
        self.set_top(self.base() + 8 * u64::from(count));
    }

    /// Drops the objects on top, which are the caller's then.
    pub(super) fn take_many(&self, objects: usize) {
        let served = &self.0.served;
        served.store(served.load(Ordering::Relaxed).wrapping_add(objects as u64), Ordering::Relaxed);
        self.set_top(self.top().get().saturating_sub(8 * objects as u64));
    }

    /// Sets how many objects it may hold, once it is empty; 0 switches it off.
    pub(super) fn set_capacity(&self, objects: u32) {
        // INVARIANT: ARR-2. First nothing fits, then it is empty, then there is room.
        self.0.limit.store(self.base(), Ordering::Relaxed);
        self.set_top(self.base());
        self.0.limit.store(self.base() + 8 * u64::from(objects), Ordering::Relaxed);
    }

    /// Gives it the memory of its entries, zeroed words of which the first stays zero; it is off.
    pub(super) fn set_memory(&self, memory: Object) {
        // INVARIANT: ARR-2.
        let base = memory.addr().get() + 8;
        self.0.limit.store(base, Ordering::Relaxed);
        self.0.base.store(base, Ordering::Relaxed);
        self.set_top(base);
    }

    /// Takes the memory of its entries away, if it has some: the word below them.
    pub(super) fn take_memory(&self) -> Option<VirtAddr> {
        let base = self.base();
        self.0.limit.store(0, Ordering::Relaxed);
        self.set_top(0);
        self.0.base.store(0, Ordering::Relaxed);
        (base != 0).then(|| VirtAddr::new(base - 8))
    }
}

/// What every CPU keeps at hand of the slab allocator besides its arrays. All-zero is the state before there is one.
#[derive(Debug)]
#[repr(C)]
pub struct CpuSlabs {
    /// Where the descriptor of the page at address zero would lie, for a machine whose short way of freeing computes with
    /// it. The same on every CPU.
    pub descriptors: AtomicU64,
    /// What free objects hold in their mark word. The same on every CPU.
    pub mark: AtomicU64,
    /// Not zero if another CPU has asked for this one's objects.
    requested: AtomicU64,
}

impl CpuSlabs {
    /// Before there is an allocator.
    pub const NONE: Self =
        Self { descriptors: AtomicU64::new(0), mark: AtomicU64::new(0), requested: AtomicU64::new(0) };

    /// Asks the CPU to give its objects back. Any CPU.
    pub(super) fn request(&self) {
        // Release pairs with the acquire in `is_requested`.
        self.requested.store(1, Ordering::Release);
    }

    /// Whether the CPU has yet to answer.
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire) != 0
    }

    /// Says that the objects have been given back.
    pub(super) fn answer(&self) {
        self.requested.store(0, Ordering::Release);
    }
}
