//! The heap that grows at its end (Linux: `brk`).
#![forbid(unsafe_code)]

use super::merge::Proposal;
use super::records::Records;
use super::summary::start_with_guard;
use super::translations::MapHal;
use super::{AddressMap, MapError, VmFlags};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::ds::rbtree::Cursor;

/// The flags of the heap.
const HEAP: VmFlags = VmFlags::READ.union(VmFlags::WRITE).union(VmFlags::MAYACCESS);

impl<'a> AddressMap<'a> {
    /// Where the heap begins.
    #[must_use]
    pub const fn start_brk(&self) -> UserAddr {
        self.start_brk
    }

    /// Where the heap ends.
    #[must_use]
    pub const fn current_brk(&self) -> UserAddr {
        self.brk
    }

    /// Sets where the heap begins, and ends for now: behind a program that has just been loaded.
    pub const fn set_start_brk(&mut self, start: UserAddr) {
        self.start_brk = start;
        self.brk = start;
    }

    /// Moves the end of the heap to `to`, any address, and answers with it. The system call answers with
    /// [`Self::current_brk`] where this fails.
    ///
    /// # Errors
    ///
    /// - [`MapError::BadRange`]: below the start of the heap.
    /// - [`MapError::OutsideSpace`], [`MapError::Exists`]: no room, or less than a page before what comes next.
    /// - [`MapError::DataLimit`], [`MapError::AddressSpaceLimit`], [`MapError::MapCount`], [`MapError::NoMemory`].
    /// - [`MapError::Sealed`]: memory to unmap is sealed.
    ///
    /// Nothing has changed then.
    pub fn brk<H: MapHal<'a>>(&mut self, with: &H, to: UserAddr) -> Result<UserAddr, MapError> {
        if to < self.start_brk {
            return Err(MapError::BadRange(to));
        }
        if to > self.layout.task_size {
            return Err(MapError::OutsideSpace(to));
        }
        // The end of the address space is that of a page, so neither wraps.
        let page_end = |addr: UserAddr| addr.get().wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        let (old, new) = (page_end(self.brk), page_end(to));
        if new < old {
            self.unmap_pages(with, new, old)?;
        } else if old < new {
            self.grow_heap(with, old, new)?;
        }
        self.brk = to;
        Ok(to)
    }

    #[inline]
    fn grow_heap<H: MapHal<'a>>(&mut self, with: &H, low: u64, high: u64) -> Result<(), MapError> {
        let range = Proposal { low, high, offset: low >> PAGE_SHIFT, flags: HEAP, object: None };
        let prev = self.tree.last_at_or_below(low).map(Cursor::node);
        if let Some(prev) = prev.filter(|prev| prev.high() > low) {
            return Err(MapError::Exists(prev.range()));
        }
        let next = self.tree.next_of(prev);
        // A page stays free, so that what runs over the end of the heap faults.
        if let Some(next) = next.filter(|next| start_with_guard(next) < high.saturating_add(PAGE_SIZE)) {
            return Err(MapError::Exists(next.range()));
        }
        self.may_expand(HEAP, range.pages())?;
        // The heap does not reach the next area, so it merges with the area before it or with none.
        if let Some(prev) = prev.filter(|prev| range.continues(prev)) {
            self.tree.set_end(prev, high);
            // INVARIANT: VMA-5.
            self.usage.add(HEAP, range.pages());
            return Ok(());
        }
        self.may_add_areas(1)?;
        let mut records = Records::take(with, 1)?;
        self.enter(with, (prev, next), None, &range, &mut records);
        records.give_back(with);
        Ok(())
    }
}
