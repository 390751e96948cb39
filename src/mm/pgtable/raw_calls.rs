//! Changes of mappings: whether the addresses are the caller's, only the caller knows.
//!
//! Each is declared `unsafe` here for everybody else, and is a `do_…` function inside this crate. Nothing here does anything.

use super::{Change, Collapsed, Gather, LivePolicy, MapFlags, PageTable, PgtableError, PinnedTable, UnmapFlags};
use crate::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use crate::hal::frame::FrameSource;
use crate::hal::level::Slot;
use crate::hal::mmu::Mmu;
use crate::hal::prot::Prot;

impl<M: Mmu> PageTable<M> {
    /// Maps `range` to the physical memory from `phys` on, with 1 GiB and 2 MiB blocks and contiguous groups wherever
    /// both addresses and the length allow. When it returns, every CPU can use the mapping; nothing is invalidated,
    /// since an absent entry is never in a TLB. A table that stands where a block would fit stays, even an empty one, and
    /// is mapped into, unless [`MapFlags::REPLACE_TABLES`] says otherwise: [`PageTable::unmap`] leaves none inside its
    /// range unless told to.
    ///
    /// Whether `phys` may be mapped with that memory type is for the caller to know. May be called in any context that
    /// `frames` allows. Cost: one descent for each table touched, and about three instructions a page.
    ///
    /// # Errors
    ///
    /// [`PgtableError::Unaligned`], [`Empty`](PgtableError::Empty), [`OutsideSpace`](PgtableError::OutsideSpace),
    /// [`PhysOutOfRange`](PgtableError::PhysOutOfRange) or [`WrongPrivilege`](PgtableError::WrongPrivilege) for
    /// arguments that no mapping can have; [`Overlap`](PgtableError::Overlap) if anything is mapped in `range`, which
    /// stays as it is; [`NoFrame`](PgtableError::NoFrame). Pages mapped until then are unmapped again and flushed.
    /// Empty tables that reach beyond `range` stay, to be used by the next mapping there.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps, changes or unmaps at the same time. The physical range is
    /// its to map so: what is reached by it breaks no reference that anybody holds, nor the memory type of another
    /// mapping.
    #[inline(always)]
    pub unsafe fn map<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        phys: PhysAddr,
        prot: Prot,
        flags: MapFlags,
    ) -> Result<(), PgtableError> {
        self.do_map(frames, range, phys, prot, flags)
    }

    /// Maps `frames` in their order to the pages from `start` on, an entry of 4 KiB each. When it returns, every CPU can
    /// use the mapping. All or nothing, as [`PageTable::map`], which does the same for memory in one piece. May be called
    /// in any context that `source` allows. Cost: one descent for each table touched, and about eight instructions a
    /// page.
    ///
    /// # Errors
    ///
    /// Those of [`PageTable::map`]; no frames are an [`Empty`](PgtableError::Empty) range.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps, changes or unmaps at the same time. The physical range is
    /// its to map so: what is reached by it breaks no reference that anybody holds, nor the memory type of another
    /// mapping.
    #[inline]
    pub unsafe fn map_frames<F: FrameSource>(
        &self,
        source: &F,
        start: VirtAddr,
        frames: impl ExactSizeIterator<Item = Pfn>,
        prot: Prot,
    ) -> Result<(), PgtableError> {
        self.do_map_frames(source, start, frames, prot)
    }

    /// Unmaps everything in `range`; holes are no error. The memory stays reachable until `gather` is flushed.
    ///
    /// A table goes if everything that it translates lies in `range`; one that reaches further may be in use by
    /// somebody else. Contiguous groups and blocks go whole. Any context. Cost: one descent for each table touched, and
    /// about a third of an instruction for each page.
    ///
    /// # Errors
    ///
    /// [`PgtableError::WouldSplit`] if an edge of `range` lies inside a block or contiguous group: [`PageTable::carve`]
    /// it first; and [`Unaligned`](PgtableError::Unaligned), [`Empty`](PgtableError::Empty),
    /// [`OutsideSpace`](PgtableError::OutsideSpace). Then nothing is unmapped.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps or changes at the same time, and nobody uses them after
    /// the call.
    #[inline]
    pub unsafe fn unmap<F: FrameSource>(
        &self,
        range: VirtRange,
        flags: UnmapFlags,
        gather: &mut Gather<'_, M, F>,
    ) -> Result<(), PgtableError> {
        self.do_unmap(range, flags, gather)
    }

    /// [`PageTable::unmap`] of one range, flushed at once: when it returns, no CPU reaches what was there.
    ///
    /// # Errors
    ///
    /// Those of [`PageTable::unmap`].
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps or changes at the same time, and nobody uses them after
    /// the call.
    #[inline]
    pub unsafe fn unmap_and_flush<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        flags: UnmapFlags,
    ) -> Result<(), PgtableError> {
        self.do_unmap_and_flush(frames, range, flags)
    }

    /// Changes the protection of everything that `range` maps. When it returns, no CPU acts on the old one.
    ///
    /// A permission or flag changes in place. A memory type changes by break-before-make, and so does anything about a
    /// contiguous group, except that under [`LivePolicy::BbmLevel2`] the group is unfolded first, and stays so. Cost:
    /// two walks over the entries of `range`, one compare-exchange a leaf, one or two flushes.
    ///
    /// # Errors
    ///
    /// [`PgtableError::NotMapped`] if there is a hole in `range`; [`WouldSplit`](PgtableError::WouldSplit) if an edge
    /// lies inside a block or group ([`PageTable::carve`] it first); [`NeedsBreak`](PgtableError::NeedsBreak) for a
    /// memory type under [`LivePolicy::BbmLevel2`]; [`Prot`](PgtableError::Prot),
    /// [`BbmUnsupported`](PgtableError::BbmUnsupported), and those of a bad range. Then nothing has changed.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps or unmaps at the same time, and nobody uses them as the
    /// change forbids.
    #[inline]
    pub unsafe fn protect(&self, range: VirtRange, change: Change, policy: LivePolicy) -> Result<(), PgtableError> {
        self.do_protect(range, change, policy)
    }

    /// Uses larger leaves for what `range` maps, wherever memory, protection and alignment allow and the whole of the
    /// larger leaf lies in `range`; `flags` rule out blocks or groups. Translations stay the same. Leaves that are old,
    /// or writable and clean, are left alone. Tables that became blocks are freed, after their flush, to `frames`. Done
    /// when it returns.
    ///
    /// Cost: three walks over the entries of `range`, and a flush for each block or group made.
    ///
    /// # Errors
    ///
    /// [`PgtableError::BbmUnsupported`], and those of a bad range.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps, changes or unmaps at the same time.
    #[inline]
    pub unsafe fn collapse<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        flags: MapFlags,
        policy: LivePolicy,
    ) -> Result<Collapsed, PgtableError> {
        self.do_collapse(frames, range, flags, policy)
    }

    /// Splits the leaves that lie across the two edges of `range`, so that [`PageTable::unmap`] and [`PageTable::protect`]
    /// can take it. Every translation stays the same; done when it returns. A split leaf becomes plain entries
    /// of the next size, which can be changed one by one; [`PageTable::collapse`] is the way back.
    ///
    /// Touches all of a block or group that an edge cuts (see the module). Cost: a table and 512 stores a block.
    ///
    /// # Errors
    ///
    /// [`PgtableError::BbmUnsupported`], [`NoFrame`](PgtableError::NoFrame),
    /// [`Malformed`](PgtableError::Malformed), and those of a bad range. A split that was done stays done: it changes
    /// no translation.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps, changes or unmaps at the same time.
    #[inline]
    pub unsafe fn carve<F: FrameSource>(
        &self,
        frames: &F,
        range: VirtRange,
        policy: LivePolicy,
    ) -> Result<(), PgtableError> {
        self.do_carve(frames, range, policy)
    }

    /// [`PageTable::map_frames`] where the table is known, and known to have nothing from `first` on: an entry for each of
    /// `list`, of which `page_of` says how many frames behind `origin` its frame is, up to the first of which it says
    /// nothing: whether there was none. If there was one, CPUs need not see the others before the next call. Cost: five
    /// instructions a page, and `page_of`.
    ///
    /// # Errors
    ///
    /// [`PgtableError::WrongPrivilege`]; [`OutsideSpace`](PgtableError::OutsideSpace) for more pages than the table has
    /// from there on; [`PhysOutOfRange`](PgtableError::PhysOutOfRange). Nothing is mapped then.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps, changes or unmaps at the same time. The physical range is
    /// its to map so: what is reached by it breaks no reference that anybody holds, nor the memory type of another
    /// mapping.
    #[inline(always)]
    pub unsafe fn map_pinned<T: Copy>(
        &self,
        pinned: &PinnedTable,
        first: Slot,
        list: &[T],
        origin: Pfn,
        page_of: impl FnMut(T) -> Option<u32>,
        prot: Prot,
    ) -> Result<bool, PgtableError> {
        self.do_map_pinned(pinned, first, list, origin, page_of, prot)
    }

    /// Unmaps `count` pages from `first` on, as many of them as are in this table, and waits until no CPU reaches what was
    /// there. The table stays. Cost: two DSB, and a TLBI a page or at most five with FEAT_TLBIRANGE.
    ///
    /// # Safety
    ///
    /// The caller owns the addresses, which nobody else maps or changes at the same time, and nobody uses them after
    /// the call.
    #[inline(always)]
    pub unsafe fn unmap_pinned(&self, pinned: &PinnedTable, first: Slot, count: u64) {
        self.do_unmap_pinned(pinned, first, count)
    }
}
