//! The fixmap: pages at fixed virtual addresses that can be mapped before there is any allocator, through last-level
//! tables inside the kernel image. It serves the first console, the device tree, and the table pages that the linear
//! map does not reach yet; then the final tables take its mappings over.

use super::desc::Stage1;
use super::tlb;
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange};
use crate::hal::entry::{Entry, EntryFormat, RawEntry};
use crate::hal::level::{LeafLevel, Level};
use crate::hal::prot::Prot;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Reason why a page of the fixmap could not be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FixmapError {
    /// The fixmap has no such page.
    NoSuchPage,
    /// The page is mapped already: it has to be cleared first, as a live entry must not change its address.
    InUse,
    /// The range is larger than the remaining slots.
    NoRoom,
}

impl fmt::Display for FixmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchPage => "fixmap: no such page",
            Self::InUse => "fixmap: page in use",
            Self::NoRoom => "fixmap: no room",
        })
    }
}

impl core::error::Error for FixmapError {}

/// The pages from a base address on, and the entries that map them.
///
/// # Invariants
///
/// - `FIX-1`: `entries` are the last-level entries of the pages from `base` on, in the tables that TTBR1 holds.
/// - `FIX-2`: an entry is absent or a leaf; it never goes from one leaf to another without an invalidation between.
#[derive(Debug)]
pub struct Fixmap {
    base: VirtAddr,
    entries: &'static [AtomicU64],
}

impl Fixmap {
    /// The fixmap whose pages start at `base` and whose entries are `entries`.
    ///
    /// # Safety
    ///
    /// `FIX-1` holds for as long as the value is used; nothing else maps or unmaps these pages.
    #[must_use]
    pub const unsafe fn new(base: VirtAddr, entries: &'static [AtomicU64]) -> Self {
        // INVARIANT: FIX-1 is the caller's promise; FIX-2, as the boot stub left the tables empty.
        Self { base, entries }
    }

    /// The virtual address of page `page`.
    ///
    /// # Errors
    ///
    /// [`FixmapError::NoSuchPage`].
    pub fn page(&self, page: usize) -> Result<VirtAddr, FixmapError> {
        if page >= self.entries.len() {
            return Err(FixmapError::NoSuchPage);
        }
        self.base.checked_add(page as u64 * PAGE_SIZE).ok_or(FixmapError::NoSuchPage)
    }

    /// Maps the page frame at `phys` as page `page`. Boot CPU.
    ///
    /// # Errors
    ///
    /// [`FixmapError::NoSuchPage`], [`FixmapError::InUse`].
    pub fn map(&self, page: usize, phys: PhysAddr, prot: Prot) -> Result<VirtAddr, FixmapError> {
        let virt = self.page(page)?;
        let entry = self.entries.get(page).ok_or(FixmapError::NoSuchPage)?;
        if entry.load(Ordering::Relaxed) != RawEntry::ABSENT.get() {
            return Err(FixmapError::InUse);
        }
        let leaf = Stage1::leaf(LeafLevel::Pte, phys.align_down(PAGE_SIZE), prot, false);
        entry.store(leaf.get(), Ordering::Relaxed);
        tlb::publish();
        Ok(virt)
    }

    /// Unmaps page `page`, on all CPUs, before it returns. Unmapping a page that is not mapped is a no-op.
    pub fn clear(&self, page: usize) {
        let (Some(entry), Ok(virt)) = (self.entries.get(page), self.page(page)) else { return };
        if entry.swap(RawEntry::ABSENT.get(), Ordering::Relaxed) != RawEntry::ABSENT.get() {
            tlb::flush_kernel_page(virt);
        }
    }

    /// Maps every page that `range` touches, from page `first` on, and returns where its first byte is.
    ///
    /// # Errors
    ///
    /// [`FixmapError::NoRoom`] if the pages go past `limit`, [`FixmapError::InUse`]; nothing stays mapped then.
    pub fn map_range(
        &self,
        first: usize,
        limit: usize,
        range: PhysRange,
        prot: Prot,
    ) -> Result<VirtRange, FixmapError> {
        let pages = range.align_outwards(PAGE_SIZE).ok_or(FixmapError::NoRoom)?;
        let count = usize::try_from(pages.size() / PAGE_SIZE).map_err(|_| FixmapError::NoRoom)?;
        if count > limit.saturating_sub(first) {
            return Err(FixmapError::NoRoom);
        }
        for index in 0..count {
            let phys = PhysAddr::new(pages.start().get() + index as u64 * PAGE_SIZE);
            if let Err(error) = self.map(first + index, phys, prot) {
                (first..first + index).for_each(|page| self.clear(page));
                return Err(error);
            }
        }
        let start = self.page(first)?.checked_add(range.start().offset_in(PAGE_SIZE));
        start.and_then(|start| VirtRange::from_size(start, range.size())).ok_or(FixmapError::NoRoom)
    }

    /// Every page that is mapped: where, to what, and how.
    pub fn mappings(&self) -> impl Iterator<Item = (VirtAddr, PhysAddr, Prot)> {
        self.entries.iter().enumerate().filter_map(|(page, entry)| {
            match Stage1::decode(Level::Pte, RawEntry::new(entry.load(Ordering::Relaxed))) {
                Entry::Leaf(leaf) => Some((self.page(page).ok()?, leaf.phys, leaf.prot)),
                _ => None,
            }
        })
    }
}
