//! The descriptor of a frame.
#![forbid(unsafe_code)]

use super::{Kind, PageState};
use crate::hal::prot::MemoryType;
use crate::mm::layout::PAGE_DESCRIPTOR_SIZE;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Descriptor of one frame: 32 bytes, all-zero at first.
///
/// Every field is an atomic, accessed relaxed: plain loads and stores. The zone's lock, the ownership of the block, or the
/// reference count orders them, as each field says.
///
/// # Invariants
///
/// Over all descriptors of a map, tested by the check of the page allocator:
///
/// - `PAGE-1`: every frame belongs to exactly one block: the frames of a head's block are [`Kind::Inside`], or
///   [`Kind::Tail`] if it is compound, and a frame that is neither starts a block.
/// - `PAGE-2`: a block is aligned to its size and lies in one zone.
/// - `PAGE-3`: a head is free, on a per-CPU list, allocated with at least one reference, reserved, or a hole.
/// - `PAGE-4`: the frames of a compound block point to its head.
/// - `PAGE-5`: the allocator's count of accounted pages is that of the blocks that say so.
#[derive(Debug, Default)]
#[repr(C)]
pub struct PageDescriptor {
    /// A [`PageState`]. Written by the block's owner; the count also by holders of a reference.
    state: AtomicU64,
    /// Free: the next block of the list. Tail: the head. Otherwise the owner's.
    next: AtomicU32,
    /// Free: the block before on the list. User: pins that the state does not count. Otherwise the owner's.
    prev: AtomicU32,
    /// By kind. The low half is zero but in the pages of a slab ([`SlabWord`](crate::mm::slab::SlabWord)).
    aux: AtomicU64,
    /// The owner's word: its cache, its area, its address space. Zero while the block is not claimed.
    owner: AtomicU64,
}

const _: () = {
    assert!(size_of::<PageDescriptor>() as u64 == PAGE_DESCRIPTOR_SIZE);
    assert!(offset_of!(PageDescriptor, state) == 0 && offset_of!(PageDescriptor, next) == 8);
    assert!(offset_of!(PageDescriptor, prev) == 12 && offset_of!(PageDescriptor, owner) == 24);
};

impl PageDescriptor {
    /// Distance of [`PageDescriptor::aux`] from the start, for code that does not know the type.
    pub const AUX: usize = offset_of!(Self, aux);
    /// Distance of [`PageDescriptor::owner`] from the start.
    pub const OWNER: usize = offset_of!(Self, owner);

    /// The state.
    #[must_use]
    #[inline]
    pub fn state(&self) -> PageState {
        PageState::from_raw(self.state.load(Ordering::Relaxed))
    }

    /// Replaces the state. Caller must own the block, and hold its only reference.
    #[inline]
    pub(in crate::mm) fn set_state(&self, state: PageState) {
        self.state.store(state.raw(), Ordering::Relaxed);
    }

    /// Replaces the state if it is still `from`.
    ///
    /// # Errors
    ///
    /// The current state.
    pub(in crate::mm) fn exchange(&self, from: PageState, to: PageState) -> Result<(), PageState> {
        // Acquire and release: accesses to the memory before a free come before those of its next owner.
        let exchanged = self.state.compare_exchange(from.raw(), to.raw(), Ordering::AcqRel, Ordering::Relaxed);
        exchanged.map(|_| ()).map_err(PageState::from_raw)
    }

    /// Replaces the state if it is still `from`; orders no other access, as the block moves from this CPU to this CPU's
    /// lists. May fail spuriously.
    #[inline(always)]
    pub(in crate::mm) fn exchange_here(&self, from: PageState, to: PageState) -> bool {
        self.state.compare_exchange_weak(from.raw(), to.raw(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Replaces the state by the one that `change` returns, if it returns one and nobody else changes the state meanwhile.
    /// Returns the second value of `change`. It uses the machine's instructions, which may fail spuriously.
    #[inline(always)]
    pub(in crate::mm) fn try_change<T>(
        &self,
        load: impl FnOnce(&AtomicU64) -> u64,
        store: impl FnOnce(&AtomicU64, u64, u64) -> bool,
        change: impl FnOnce(PageState) -> Option<(PageState, T)>,
    ) -> Option<T> {
        let found = load(&self.state);
        let (new, answer) = change(PageState::from_raw(found))?;
        store(&self.state, found, new.raw()).then_some(answer)
    }

    /// The next block of the list, or the head, as a number that may be [`Page::NIL`](super::Page::NIL).
    #[inline]
    pub(in crate::mm) fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    #[inline]
    pub(in crate::mm) fn set_next(&self, next: u32) {
        self.next.store(next, Ordering::Relaxed);
    }

    #[inline]
    pub(in crate::mm) fn prev(&self) -> u32 {
        self.prev.load(Ordering::Relaxed)
    }

    #[inline]
    pub(in crate::mm) fn set_prev(&self, prev: u32) {
        self.prev.store(prev, Ordering::Relaxed);
    }

    /// Adds `count`, which may be negative, to the number that the owner keeps in place of the second link.
    #[inline]
    pub(in crate::mm) fn add_prev(&self, count: i32) {
        // Release: what was done through the pin comes before the page may be another's.
        self.prev.fetch_add(count.cast_unsigned(), Ordering::AcqRel);
    }

    /// Changes the owner's word. By the owner.
    #[inline]
    pub(in crate::mm) fn set_owner(&self, owner: u64) {
        self.owner.store(owner, Ordering::Relaxed);
    }

    /// Records the use of a block that has just been allocated, so that nobody else has a reference. The owner's word stays
    /// zero.
    #[inline]
    pub(in crate::mm) fn claim_fresh(&self, kind: Kind) {
        self.set_state(self.state().with_kind(kind));
    }

    /// The owner's word.
    #[must_use]
    pub fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Eight bytes whose meaning depends on the block's kind.
    #[must_use]
    pub fn aux(&self) -> &AtomicU64 {
        &self.aux
    }

    /// Takes another reference (Linux: `get_page`). Returns whether there was one before.
    pub(in crate::mm) fn get(&self) -> bool {
        let another = |raw| {
            let state = PageState::from_raw(raw);
            let counted = state.kind().is_allocated() && state.references() != 0 && state.references() != u32::MAX;
            counted.then_some(raw.wrapping_add(PageState::ONE_REFERENCE))
        };
        // Relaxed: the caller holds a reference, so the block cannot be freed meanwhile. If the caller is wrong and the block
        // is free, the reference is refused.
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, another).is_ok()
    }

    /// Counts one more mapping of the block, so that it cannot be freed. The caller owns the block.
    ///
    /// # Errors
    ///
    /// Its state, if it may not be mapped, or is mapped more often than can be counted.
    pub(in crate::mm) fn hold(&self) -> Result<(), PageState> {
        let one_more = |raw| {
            let state = PageState::from_raw(raw);
            let counted = state.may_be_mapped() && state.mappings() < PageState::MAX_MAPPINGS;
            counted.then(|| raw + PageState::ONE_MAPPING)
        };
        self.change(one_more)
    }

    /// Takes back what [`PageDescriptor::hold`] counted. When no CPU translates the mapping any more.
    pub(in crate::mm) fn release(&self) {
        debug_assert!(self.state().mappings() != 0, "what is released was held");
        // Release: accesses through the mapping come before a free, which reads the state first.
        self.state.fetch_sub(PageState::ONE_MAPPING, Ordering::Release);
    }

    /// Notes that `vm_map_ram` maps pages of the block. The caller owns the block.
    ///
    /// # Errors
    ///
    /// Its state, if it may not be mapped.
    pub(in crate::mm) fn note_brief(&self) -> Result<(), PageState> {
        self.change(|raw| {
            let state = PageState::from_raw(raw);
            state.may_be_mapped().then_some(state.with_brief().raw())
        })
    }

    /// Changes the state atomically, even if others change it meanwhile.
    fn change(&self, to: impl FnMut(u64) -> Option<u64>) -> Result<(), PageState> {
        let changed = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to);
        changed.map(|_| ()).map_err(PageState::from_raw)
    }

    /// Makes an unclaimed block one of `kind` that belongs to `owner`, or a claimed one unclaimed again. A block that an area
    /// maps stays what it is.
    ///
    /// # Errors
    ///
    /// The kind that the block has, if it may not become `kind`; nothing has changed then.
    #[inline]
    pub(in crate::mm) fn become_kind(&self, kind: Kind, owner: u64) -> Result<(), Kind> {
        let mut raw = self.state.load(Ordering::Relaxed);
        loop {
            let state = PageState::from_raw(raw);
            if !state.kind().may_become(kind) || state.mappings() != 0 {
                return Err(state.kind());
            }
            let new = state.with_kind(kind).raw();
            // Others may hold references, whose count is in the same word.
            match self.state.compare_exchange_weak(raw, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(found) => raw = found,
            }
        }
        self.owner.store(owner, Ordering::Relaxed);
        Ok(())
    }

    /// Records the memory type with which the block is mapped from now on. Returns whether it is allocated.
    pub(in crate::mm) fn set_memory_type(&self, memory: MemoryType) -> bool {
        let change = |raw| {
            let state = PageState::from_raw(raw);
            state.kind().is_allocated().then_some(state.with_memory_type(memory).raw())
        };
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}
